"""Faithful in-memory stands-in for what control works against."""
