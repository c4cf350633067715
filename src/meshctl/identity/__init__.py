"""SPIFFE ids, what a certificate holds, when it rotates.  Pure."""
