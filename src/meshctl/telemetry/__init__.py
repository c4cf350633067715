"""Numbers back from the sidecars: their stats read, rolled up over time, and told as golden signals.  Pure."""
