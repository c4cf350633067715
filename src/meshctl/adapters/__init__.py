"""Everything outside: SQLite, processes, Envoy's admin, gRPC, certificate files.  I/O."""
