"""Shared by tests: golden cases, real Envoy, meshes in temporary folders."""
