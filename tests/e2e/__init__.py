"""The whole: real Envoy, real processes, the command line as a user types it."""
