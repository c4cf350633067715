"""The async client of the API, over wire.  I/O."""
