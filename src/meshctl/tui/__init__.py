"""``meshctl top``: the traffic of a mesh, live in a terminal. A front end: it knows the client and the wire only."""
