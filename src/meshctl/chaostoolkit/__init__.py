"""An extension of Chaos Toolkit: ``chaos run`` drives a mesh of meshctl through these functions.

``meshctl.chaostoolkit.actions`` and ``meshctl.chaostoolkit.probes`` are what a ``python`` provider names. They need
nothing of Chaos Toolkit's own: what they raise is the failure of their activity. ``meshctl experiment run`` takes the
same files. The mesh is the one of ``meshctl_directory`` in ``configuration``, else of ``MESHCTL_DIR``, else of the
current folder or the nearest one above it.
"""
