"""Make the reference documents from the code they describe.

``python scripts/gen_docs.py`` writes them; ``--check`` writes nothing and exits with 1 when one of them is stale.
A document is one row of DOCUMENTS: its path and the function that makes its text.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from meshctl.api.reference import api_reference
from meshctl.experiments.keys import EXPERIMENT
from meshctl.experiments.problems import EXPERIMENT_KINDS
from meshctl.experiments.verbs import VERBS
from meshctl.spec.export import json_schema
from meshctl.spec.keys import TOPOLOGY
from meshctl.spec.problems import PROBLEM_KINDS
from meshctl.spec.shapes import (
    AnyOf,
    Documented,
    Duration,
    Key,
    ListOf,
    MapOf,
    Shape,
    Table,
    describe_shape,
    iterate_tables,
)

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that this file works as a script too, and not only as the module scripts.gen_docs

from scripts.cli_reference import cli_reference  # noqa: E402 - the line above is needed first

_NOTICE = "<!-- Made by scripts/gen_docs.py: do not edit. -->\n"


def make_api() -> str:
    """The reference of the control plane's API."""
    return f"{_NOTICE}\n{api_reference()}"


def make_cli() -> str:
    """The reference of the command line."""
    return f"{_NOTICE}\n{cli_reference()}"


def make_mesh_yaml() -> str:
    """The reference of the topology file."""
    lines = [
        _NOTICE,
        "# mesh.yaml",
        "",
        "A topology file says which services there are and how they are to be treated. `meshctl validate` checks it,",
        "and `docs/reference/mesh.schema.json` lets an editor complete and check it while you write.",
        "",
        "```yaml",
        "services:",
        "  frontend: {command: python frontend.py, upstreams: [orders]}",
        "  orders:",
        "    versions:",
        "      v1: {command: python orders.py, replicas: 2}",
        "      v2: {command: python orders.py, env: {ORDERS_FAST: 1}}",
        "    split: {v1: 90, v2: 10}",
        "```",
        "",
        "## Values",
        "",
        "- A **duration** is `300ms`, `5s`, `2m`, `1h`, a sum of these such as `1m30s`, or a number of seconds.",
        "- A **percentage** is `50%` or `50`.",
        "- A **status** is `200`, a range such as `200-299`, or a class such as `2xx`.",
        "- A **boolean** is `true` or `false`; `yes`, `no`, `on` and `off` are not.",
        "- `${VAR}` is filled in from the environment and `.env`; `${VAR:-default}` when it may be unset or empty,",
        "  `${VAR-default}` when it may be unset, `${VAR:?message}` and `${VAR?message}` to say what is missing, `$$`",
        "  for a plain dollar sign. A bare `$VAR` is left to the service's own shell. Within `{ }` and `[ ]` quote it.",
        "- Anchors, aliases and merge keys (`<<`) work; top-level keys that begin with `x-` are a place for them.",
        "",
        "## Several files",
        "",
        "`-f mesh.yaml -f local.yaml` lays the second over the first: mappings are merged key by key, everything else",
        "is replaced, and an empty value, `null` or `!reset` takes away what the first file said. `env` and",
        "`depends_on` are merged by name even when they are written as lists.",
        "",
        "## Inheritance",
        "",
        "Policies of a service are laid over those of `defaults`, key by key, and these over the built-in ones. What",
        "is written at a service beside `versions` is inherited by each version; `env` is merged.",
    ]
    for table in iterate_tables(TOPOLOGY):
        lines += ["", f"## {_heading(table)}", "", table.doc, "", "|Key|Value|Default|Meaning|", "|---|---|---|---|"]
        lines += [_row(key) for key in table.keys]
    return "\n".join(lines) + "\n"


def make_problems() -> str:
    """The reference of problem codes."""
    lines = [
        _NOTICE,
        "# Problems in topology files",
        "",
        "Everything that is wrong is reported at once, each with the file, line and column, and one of these codes.",
    ]
    for kind in PROBLEM_KINDS:
        example = kind.example if len(kind.example) < 300 else f"{kind.example[:120]}...\n"
        language = "sh" if kind.dotenv else "yaml"
        lines += ["", f"## {kind.code}", "", kind.explanation, "", f"```{language}", *example.splitlines(), "```"]
    return "\n".join(lines) + "\n"


def make_experiments() -> str:
    """The reference of experiment files."""
    lines = [
        _NOTICE,
        "# Experiment files",
        "",
        "What `meshctl experiment run` takes, in YAML or JSON. The shape is Chaos Toolkit's; the guide is",
        "[Experiments](../guides/experiments.md). Durations are `300ms`, `5s`, `2m` or a number of seconds.",
        "",
        "`${name}` stands for a value under `configuration`, with its type where nothing else is there; `$$` for a",
        "dollar sign. A tolerance is a scalar (the value is equal), a list of two numbers (it lies between them), a",
        "longer list (it is among them), or a mapping as below. A value that is a mapping with a `status` is judged by",
        "that.",
    ]
    for table in iterate_tables(EXPERIMENT):
        heading = "The file" if table is EXPERIMENT else f"`{table.id}`"
        lines += ["", f"## {heading}", "", table.doc, "", "|Key|Value|Default|Meaning|", "|---|---|---|---|"]
        lines += [_row(key) for key in table.keys]
    lines += ["", "## Verbs", "", "For Chaos Toolkit a verb is a function with underscores: `inject_fault`."]
    for verb in VERBS:
        lines += ["", f"### {verb.name} ({verb.kind})", "", verb.doc]
        if verb.answer:
            lines += ["", f"Answers: {verb.answer}."]
        if verb.arguments.keys:
            lines += ["", "|Argument|Value|Default|Meaning|", "|---|---|---|---|"]
            lines += [_row(key) for key in verb.arguments.keys]
    lines += ["", "## Problems", "", "Beside [those of topology files](problems.md):"]
    for kind in EXPERIMENT_KINDS:
        lines += ["", f"### {kind.code}", "", kind.explanation, "", "```yaml", *kind.example.splitlines(), "```"]
    return "\n".join(lines) + "\n"


def make_schema() -> str:
    """The JSON Schema of the topology file."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


DOCUMENTS: tuple[tuple[str, Callable[[], str]], ...] = (
    ("docs/reference/api.md", make_api),
    ("docs/reference/cli.md", make_cli),
    ("docs/reference/experiments.md", make_experiments),
    ("docs/reference/mesh-yaml.md", make_mesh_yaml),
    ("docs/reference/mesh.schema.json", make_schema),
    ("docs/reference/problems.md", make_problems),
)
"""(path from the root, function that makes the text)."""


def main() -> int:
    """Write or check every document; the exit code."""
    parser = argparse.ArgumentParser(description="Make the reference documents.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a document is stale")
    check = parser.parse_args().check
    stale = 0
    for path, make in DOCUMENTS:
        target = ROOT / path
        text = make()
        if target.exists() and target.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if check:
            print(f"{path} is stale: run python scripts/gen_docs.py", file=sys.stderr)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    return 1 if check and stale else 0


def _heading(table: Table) -> str:
    return "The file" if table is TOPOLOGY else f"`{table.id}`"


def _row(key: Key) -> str:
    name = f"`{key.name}`" + (" (required)" if key.required else "")
    default = "" if key.default in (None, "") else f"`{_write(key.default)}`"
    return f"|{name}|{_escape('; '.join(dict.fromkeys(_describe(key.shape))))}|{default}|{_escape(key.doc)}|"


def _write(value: Documented) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _describe(shape: Shape) -> Iterator[str]:
    if isinstance(shape, AnyOf):
        for inner in shape.shapes:
            yield from _describe(inner)
    elif isinstance(shape, Table):
        yield f"[mapping](#{shape.id})"
    elif isinstance(shape, ListOf):
        yield f"list of: {', '.join(_describe(shape.item))}"
    elif isinstance(shape, MapOf):
        name = shape.name.what.removeprefix("a ").removeprefix("an ")
        yield f"mapping of {name} to: {', '.join(_describe(shape.value))}"
    elif isinstance(shape, Duration):
        yield "duration"
    else:
        yield describe_shape(shape).removeprefix("a ").removeprefix("an ")


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
