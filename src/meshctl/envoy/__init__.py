"""3. ProxyPlan -> Envoy protobuf resources.  Pure."""
