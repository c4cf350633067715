"""One file per policy: what a ProxyPlan holds of it.  Pure."""
