"""1. YAML -> Mesh: sources, schema, validation, export.  Pure."""
