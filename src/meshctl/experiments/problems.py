"""Every kind of problem that an experiment file can have.  Pure: a table.

Codes that topology files know too mean the same here. docs/reference/experiments.md is made from this table.
"""

from __future__ import annotations

from meshctl.spec.problems import PROBLEM_KINDS, ProblemKind


def _file(method: str, top: str = "") -> str:
    return f"title: t\ndescription: d\n{top}method:\n- {method}\n"


_CALL = "{type: probe, name: p, provider: {type: meshctl, verb: call, arguments: {service: web}}, %s}"

EXPERIMENT_KINDS = (
    ProblemKind(
        code="bad-tolerance",
        explanation="A tolerance is none of those that there are: a scalar, a list, `range`, `regex` or `jsonpath`.",
        example=_file(_CALL % "tolerance: {type: range, range: [1]}"),
    ),
    ProblemKind(
        code="bad-variable",
        explanation="A value of `configuration` comes from an environment variable that is not set or not of its type.",
        example=_file(_CALL % "", "configuration: {token: {type: env, key: NOBODY_SETS_THIS}}\n"),
    ),
    ProblemKind(
        code="not-supported",
        explanation="Chaos Toolkit knows it, meshctl does not run it. The hint says what to use instead.",
        example=_file("{type: probe, name: p, provider: {type: python, module: os.path, func: exists}}"),
    ),
    ProblemKind(
        code="unknown-reference",
        explanation="A `ref` names no activity of the experiment.",
        example=_file("{ref: nobody}"),
    ),
    ProblemKind(
        code="unknown-variable",
        explanation="`${name}` stands for nothing under `configuration`. `$$` stands for a plain dollar sign.",
        example=_file("{type: probe, name: p, provider: {type: http, url: 'http://${host}/'}}"),
    ),
    ProblemKind(
        code="unknown-verb",
        explanation="meshctl has no such action or probe.",
        example=_file("{type: action, name: a, provider: {type: meshctl, verb: inject flood}}"),
    ),
)
"""What only experiments can have, each with the shortest file that has it."""

CODES = frozenset(kind.code for kind in (*EXPERIMENT_KINDS, *PROBLEM_KINDS))
"""Every code that the reader of experiments may report: files are read by the reader of topologies."""
