"""The reference of the command line holds every command, and is the same everywhere."""

from __future__ import annotations

import pytest
from scripts.cli_reference import cli_reference
from scripts.gen_docs import ROOT, make_cli

from meshctl.cli.app import VERBS


def test_every_command_that_is_shown_is_documented_with_an_example() -> None:
    sections = {part.partition("\n")[0]: part for part in cli_reference().split("\n## ")[1:]}
    assert {f"meshctl {verb.name}" for verb in VERBS if not verb.hidden} <= set(sections)
    assert not any(f"meshctl {verb.name}" in sections for verb in VERBS if verb.hidden)
    for name, text in sections.items():
        *_, usage, examples = text.split("```\n")[1::2]
        assert usage.startswith(name)
        assert examples.startswith(("meshctl ", name))


def test_groups_are_followed_by_their_commands() -> None:
    text = cli_reference()
    assert text.index("## meshctl certs\n") < text.index("## meshctl certs rotate\n") < text.index("## meshctl init\n")


def test_the_reference_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    narrow = cli_reference()
    monkeypatch.setenv("COLUMNS", "200")
    assert cli_reference() == narrow


def test_no_line_of_help_is_taken_for_a_heading() -> None:
    headings = [line for line in cli_reference().splitlines() if line.startswith("#")]
    assert headings[0] == "# Command line"
    assert all(line.startswith("## meshctl") for line in headings[1:])


def test_the_reference_is_not_stale() -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert text == make_cli(), "run python scripts/gen_docs.py"
