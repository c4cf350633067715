"""The JSON shapes of the API and the format of log files.  Pure."""
