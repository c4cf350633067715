"""What `meshctl init` writes: a name of an example, or None -> relative paths and texts.  Reads package data.

In a wheel the files lie in ``starter/`` beside this module; in a source checkout they are at the root of the
repository (see force-include in pyproject.toml).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from meshctl.errors import MeshctlError, NotFoundError

TOPOLOGY = "mesh.yaml"
_PACKAGED = Path(__file__).with_name("starter")
_CHECKOUT = Path(__file__).parents[3]
_BASIC = "examples/hello"
_EXAMPLES = {"shop": ("examples/shop", "examples/experiments")}


def example_names() -> tuple[str, ...]:
    """The examples that ``starter_files`` knows."""
    return tuple(sorted(_EXAMPLES))


def starter_files(example: str | None) -> Mapping[str, str]:
    """Relative path (with ``/``) -> text of everything a new project needs, the topology first.

    Raises NotFoundError for an unknown example, MeshctlError when the installation lacks the files.
    """
    if example is None:
        return _read_folder(_find_root() / _BASIC, prefix="")
    if example not in _EXAMPLES:
        known = ", ".join(example_names())
        raise NotFoundError(f"there is no example {example!r}", hint=f"there is: {known}")
    root = _find_root()
    topology = root / (TOPOLOGY if root == _PACKAGED else "mesh.example.yaml")
    files = {TOPOLOGY: topology.read_text(encoding="utf-8")}
    for folder in _EXAMPLES[example]:
        files |= _read_folder(root / folder, prefix=f"{folder}/")
    return files


def _find_root() -> Path:
    for root in (_PACKAGED, _CHECKOUT):
        if (root / _BASIC / TOPOLOGY).is_file():
            return root
    raise MeshctlError("the example files are missing from this installation", hint="install meshctl again")


def _read_folder(folder: Path, *, prefix: str) -> dict[str, str]:
    files = [path for path in folder.iterdir() if path.suffix in (".py", ".yaml")]
    files.sort(key=lambda path: (path.name != TOPOLOGY, path.name))
    return {f"{prefix}{path.name}": path.read_text(encoding="utf-8") for path in files}
