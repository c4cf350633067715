"""Experiments carried out: verbs over the client, HTTP requests, programs, and the run of a whole experiment.  I/O."""
