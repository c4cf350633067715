"""2. Mesh + facts -> MeshPlan of ProxyPlans, our own intermediate form.  Pure, no protobuf."""
