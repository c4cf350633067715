"""The folders and the lock of a control plane."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from meshctl import host
from meshctl.errors import ConflictError, EnvoyMissingError
from meshctl.wire.paths import MeshPaths


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_runtime_folders_are_made_private(tmp_path: Path) -> None:
    """Invariant 8."""
    host._make_runtime_folders(tmp_path / "meshctl", tmp_path / "meshctl" / "1a2b")
    assert [mode(tmp_path / "meshctl"), mode(tmp_path / "meshctl" / "1a2b")] == [0o700, 0o700]


@pytest.mark.parametrize("found", [0o755, 0o500, 0o777])
def test_the_modes_of_runtime_folders_are_mended(tmp_path: Path, found: int) -> None:
    folder = tmp_path / "meshctl"
    folder.mkdir()
    folder.chmod(found)
    host._make_runtime_folders(folder)
    assert mode(folder) == 0o700


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_a_link_in_place_of_a_runtime_folder_is_refused(tmp_path: Path, target: str) -> None:
    """In /tmp anybody may have put it there."""
    (tmp_path / "there").mkdir(mode=0o755)
    (tmp_path / "meshctl").symlink_to(tmp_path / target)
    with pytest.raises(ConflictError, match="no folder that can be used") as caught:
        host._make_runtime_folders(tmp_path / "meshctl")
    assert "XDG_RUNTIME_DIR" in caught.value.hint
    assert mode(tmp_path / "there") == 0o755


def test_a_file_in_place_of_a_runtime_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "meshctl").touch()
    with pytest.raises(ConflictError, match="no folder that can be used"):
        host._make_runtime_folders(tmp_path / "meshctl")


def test_a_runtime_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr("meshctl.host.os.geteuid", lambda: owner + 1)
    (tmp_path / "meshctl").mkdir()
    with pytest.raises(ConflictError, match=f"belongs to user {owner}"):
        host._make_runtime_folders(tmp_path / "meshctl")


def test_one_control_plane_at_a_time(tmp_path: Path) -> None:
    paths = MeshPaths(str(tmp_path), str(tmp_path / "run"))
    Path(paths.state).mkdir()
    with (
        host._only_daemon(paths),
        pytest.raises(ConflictError, match="another control plane"),
        host._only_daemon(paths),
    ):
        raise AssertionError("it was let in")
    with host._only_daemon(paths):
        assert mode(Path(paths.state) / "daemon.lock") == 0o600


def test_nothing_is_left_of_the_runtime_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "processes").mkdir(parents=True)
    (folder / "processes" / "web.json").touch()
    (folder / "api.sock").touch()
    (folder / "link").symlink_to(tmp_path)
    host._remove_runtime(folder)
    assert list(tmp_path.iterdir()) == []


def test_envoy_is_needed_to_start_and_not_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHCTL_ENVOY", "/nowhere/envoy")
    with pytest.raises(EnvoyMissingError):
        host._find_envoy(required=True)
    assert host._find_envoy(required=False) == ""
