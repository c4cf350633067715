"""Nodes -> the values of ``schema``, one module per part of the file.  Pure."""
