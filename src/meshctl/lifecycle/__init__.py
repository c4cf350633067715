"""Processes as state machines: readiness, restart, back-off, order.  Pure."""
