"""Composition root: the only module that names adapters."""
