"""Files and directories that only their owner may use."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshctl.adapters.private_files import (
    TEMPORARY_PREFIX,
    find_exposure,
    mend_file,
    open_private_directory,
    remove_file,
    remove_temporaries,
    write_private,
)
from meshctl.errors import MeshctlError


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names_in(path: Path) -> list[str]:
    return sorted(item.name for item in path.iterdir())


@pytest.fixture(params=[0o000, 0o022, 0o177, 0o277], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_a_file_is_0600_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private(path, b"one", durable=True)
    assert mode_of(path) == 0o600
    write_private(path, b"two", durable=False)
    assert (mode_of(path), path.read_bytes()) == (0o600, b"two")
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("before", [0o777, 0o755, 0o500, 0o700])
def test_a_directory_is_mended_to_0700(tmp_path: Path, before: int) -> None:
    path = tmp_path / "ca"
    path.mkdir()
    path.chmod(before)
    open_private_directory(path)
    assert mode_of(path) == 0o700


def test_a_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    open_private_directory(tmp_path / "a" / "b")
    assert (mode_of(tmp_path / "a"), mode_of(tmp_path / "a" / "b")) == (0o700, 0o700)


def test_a_file_in_the_place_of_a_directory_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("")
    with pytest.raises(MeshctlError, match=f"the folder {tmp_path}/ca cannot be used") as caught:
        open_private_directory(tmp_path / "ca")
    assert str(tmp_path / "ca") in caught.value.hint


def test_somebody_elses_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only root could give a directory away, so this process says to be somebody else instead.
    uid = os.getuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(MeshctlError, match=f"belongs to another user \\(uid {uid}\\)") as caught:
        open_private_directory(tmp_path)
    assert "run meshctl as that user" in caught.value.hint
    assert find_exposure(tmp_path, 0o700) == f"{tmp_path} belongs to user {uid}"


def test_a_file_that_others_could_read_is_mended_and_a_stricter_one_left_alone(tmp_path: Path) -> None:
    for before, after in ((0o644, 0o600), (0o660, 0o600), (0o600, 0o600), (0o400, 0o400)):
        path = tmp_path / f"{before:o}"
        path.write_text("")
        path.chmod(before)
        assert bool(find_exposure(path, 0o600)) == (before != after)
        mend_file(path)
        assert mode_of(path) == after
        assert find_exposure(path, 0o600) == ""


def test_a_link_is_not_followed_when_permissions_are_mended(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    target.chmod(0o644)
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(OSError, match="link"):
        mend_file(tmp_path / "link")
    assert mode_of(target) == 0o644


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        write_private(tmp_path / "file", b"one", durable=True)
    assert names_in(tmp_path) == ["file"]


def test_half_written_files_are_removed_and_others_kept(tmp_path: Path) -> None:
    (tmp_path / f"{TEMPORARY_PREFIX}abc").write_text("half")
    (tmp_path / "kept").write_text("")
    remove_temporaries(tmp_path)
    assert names_in(tmp_path) == ["kept"]


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    remove_file(tmp_path / "file")
    remove_file(tmp_path / "file")
    assert names_in(tmp_path) == []
    assert "No such file" in find_exposure(tmp_path / "file", 0o600)
