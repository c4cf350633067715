"""Who changes something."""

from __future__ import annotations

import getpass

import pytest

from meshctl.client.author import author_of


@pytest.mark.parametrize("error", [KeyError("uid 4711"), OSError("no name")])
def test_somebody_without_a_name_changes_things_too(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", fail)
    assert author_of("inject fault") == "somebody@inject fault"
