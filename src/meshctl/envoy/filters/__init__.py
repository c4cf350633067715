"""One file per HTTP filter.  Pure."""
