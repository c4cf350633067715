"""Experiments: a file that says what should hold, what is done to the mesh, and how it is put right again.  Pure."""
