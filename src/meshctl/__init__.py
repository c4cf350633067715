"""meshctl: a complete, real service mesh on one machine with one command."""

__version__ = "0.1.0"
