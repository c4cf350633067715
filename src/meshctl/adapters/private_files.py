"""Files that only their owner may read, written so that a reader finds the old content or the new one, whole.  I/O.

Invariant 8: a directory made or opened here is 0700, a file written here is 0600, whatever the umask says, and from
its first byte on.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from meshctl.errors import MeshctlError

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600

TEMPORARY_PREFIX = ".new-"
"""What the names of files begin with that are not complete yet."""


def open_private_directory(path: Path) -> None:
    """Make a directory with its parents, all 0700, or take the one that is there and mend its permissions to that.

    Raises MeshctlError when it belongs to another user or cannot be used.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        _mend(path, os.O_RDONLY | os.O_DIRECTORY, DIRECTORY_MODE)
    except OSError as error:
        raise MeshctlError(
            f"the folder {path} cannot be used: {error.strerror}",
            hint=f"make sure that you own it and may write there, or remove it: {path}",
        ) from error


def mend_file(path: Path) -> None:
    """Take away what others than the owner may do with a file. Raises OSError, or MeshctlError when it is not ours."""
    _mend(path, os.O_RDONLY | os.O_NOFOLLOW, FILE_MODE)


def write_private(path: Path, content: bytes, *, durable: bool) -> None:
    """Replace a file by one of mode 0600 in one step.

    With ``durable`` the content and its name are on the disk when this returns. Without, the machine losing power
    may leave an empty or torn file behind: for content whose reader checks it and can do without it.

    Raises OSError.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
    # O_EXCL: nobody can have put a file or a link there beforehand.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, FILE_MODE)
            file.write(content)
            if durable:
                file.flush()
                os.fsync(descriptor)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync_directory(path.parent)


def remove_file(path: Path) -> None:
    """Remove a file for good; one that is not there is no error. Raises OSError."""
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Return when the names in a directory are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(directory: Path) -> None:
    """Remove what a crash left half-written in a directory that only one process writes to."""
    for path in directory.glob(f"{TEMPORARY_PREFIX}*"):
        path.unlink(missing_ok=True)


def find_exposure(path: Path, mode: int) -> str:
    """Why others could read or write a path, in words; empty when they cannot. A path that is not there is a reason."""
    try:
        found = path.lstat()
    except OSError as error:
        return f"{path}: {error.strerror}"
    if found.st_uid != os.geteuid():
        return f"{path} belongs to user {found.st_uid}"
    if stat.S_IMODE(found.st_mode) & ~mode:
        return f"{path} has mode {stat.S_IMODE(found.st_mode):04o} instead of {mode:04o}"
    return ""


def _mend(path: Path, flags: int, mode: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            raise MeshctlError(
                f"{path} belongs to another user (uid {found.st_uid}), who could read or replace what is in it",
                hint=f"run meshctl as that user, or remove it: {path}",
            )
        if stat.S_IMODE(found.st_mode) & ~mode or (stat.S_ISDIR(found.st_mode) and _lacks(found.st_mode, mode)):
            os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _lacks(found: int, mode: int) -> bool:
    return stat.S_IMODE(found) & mode != mode
