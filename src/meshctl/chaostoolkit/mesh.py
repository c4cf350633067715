"""One verb on the mesh that an experiment of Chaos Toolkit means.  I/O.

Enters: arguments as the file has them, and Chaos Toolkit's configuration.  Leaves: the answer, as JSON has it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meshctl.client.client import MeshClient
from meshctl.conduct.verbs import carry_out_verb
from meshctl.errors import NotRunningError, UsageError
from meshctl.experiments.model import Kind
from meshctl.experiments.verbs import convert_arguments, find_verb
from meshctl.wire.paths import locate

Configuration = Mapping[str, Any] | None

_MARKS = ("mesh.yaml", "mesh.yml", ".meshctl")


def carry_out(verb: str, kind: Kind, configuration: Configuration, /, **arguments: Any) -> Any:
    """Do it and wait for it; an argument that is None was not given.

    Raises a leaf of MeshctlError, whose text says what is wrong and what to do.
    """
    found = find_verb(verb, kind)
    assert found is not None, verb
    checked = convert_arguments(found, arguments)
    directory = find_directory(configuration or {}, os.environ, Path.cwd())
    socket = locate(directory, environ=os.environ, uid=os.getuid()).api_socket

    async def converse() -> Any:
        async with MeshClient(socket, directory=directory) as client:
            return await carry_out_verb(client, found.name, checked)

    return asyncio.run(converse())


def find_directory(configuration: Mapping[str, Any], environ: Mapping[str, str], here: Path) -> str:
    """The folder of the mesh.

    Raises:
        UsageError: the folder that is named does not exist.
        NotRunningError: nothing here or above it is the folder of a mesh.
    """
    named = str(configuration.get("meshctl_directory") or environ.get("MESHCTL_DIR", ""))
    if named:
        if not Path(named).is_dir():
            raise UsageError(f"no such folder: {named}", hint="`meshctl_directory` names the folder of a topology file")
        return str(Path(named).resolve())
    start = here.resolve()
    for place in (start, *start.parents):
        if any((place / mark).exists() for mark in _MARKS):
            return str(place)
    raise NotRunningError(f"no mesh in {start} or above it", hint="set MESHCTL_DIR, or run `chaos` in its folder")
