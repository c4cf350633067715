"""Canaries: the judge, and the machine that takes a version through the steps of a rollout.  Pure."""
