"""4. Resources -> stream: snapshots, a sans-io delta xDS session, ordering.  Pure."""
