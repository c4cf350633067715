"""Runners, one per file: await a change, gather facts, call a pure function, carry out its commands.  I/O."""
