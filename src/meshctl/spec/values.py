"""Values as people write them: durations, percentages, status ranges, addresses.  Pure.

Enters: the text of a scalar.  Leaves: numbers in seconds and percent, or ValueError with a reason in plain words.
"""

from __future__ import annotations

import math
import re
from urllib.parse import urlsplit

MAX_DURATION = 365 * 24 * 3600.0
"""Seconds; longer than a year is a mistake, and Envoy's timers would overflow long after it."""

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|h|m|s)", re.ASCII)
_DURATION = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
NUMBER = re.compile(r"[+-]?\d{1,12}(?:\.\d{1,9})?", re.ASCII)
INTEGER = re.compile(r"[+-]?(?:0|[1-9]\d{0,11})", re.ASCII)
_STATUS = re.compile(r"([1-5])(?:xx|XX)|(\d{3})(?:\s*-\s*(\d{3}))?", re.ASCII)
_HOST = re.compile(
    r"[A-Za-z0-9]([-A-Za-z0-9.]{0,251}[A-Za-z0-9])?|\d{1,3}(\.\d{1,3}){3}|\[?[0-9a-fA-F:]{2,45}\]?", re.ASCII
)


def parse_duration(text: str) -> float:
    """Seconds from ``5s``, ``300ms``, ``2m``, ``1h``, ``1m30s`` or a bare number of seconds.

    Raises:
        ValueError: it is none of these, is negative, or is longer than MAX_DURATION.
    """
    if NUMBER.fullmatch(text):
        seconds = float(text)
    elif _DURATION.fullmatch(text):
        seconds = math.fsum(float(amount) * _UNITS[unit] for amount, unit in _PART.findall(text))
    else:
        raise ValueError("not a duration")
    if seconds < 0:
        raise ValueError("a duration cannot be negative")
    if seconds > MAX_DURATION:
        raise ValueError("longer than a year")
    # Milliseconds are the finest that anyone writes; rounding drops what the sum of fractions added.
    return round(seconds, 6)


def format_duration(seconds: float) -> str:
    """The shortest way to write a duration: ``90.0`` -> ``1m30s``, ``0.3`` -> ``300ms``."""
    if seconds == 0:
        return "0s"
    whole_ms = round(seconds * 1000, 3)
    if whole_ms < 1000 or whole_ms % 1000:
        text = f"{whole_ms:.3f}".rstrip("0").rstrip(".")
        return f"{text}ms"
    rest = round(seconds)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = ((hours, "h"), (minutes, "m"), (rest, "s"))
    return "".join(f"{amount}{unit}" for amount, unit in parts if amount)


def parse_percentage(text: str) -> float:
    """A number from 0 to 100, written with or without ``%``. Raises ValueError."""
    number = text.removesuffix("%").rstrip()
    if not NUMBER.fullmatch(number):
        raise ValueError("not a percentage")
    value = float(number)
    if not 0 <= value <= 100:
        raise ValueError("not between 0 and 100")
    return value


def parse_statuses(text: str) -> tuple[int, int]:
    """A half-open range of HTTP statuses from ``200``, ``200-299`` or ``2xx``. Raises ValueError."""
    match = _STATUS.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a status")
    if match[1]:
        first = int(match[1]) * 100
        return first, first + 100
    first = int(match[2])
    last = int(match[3]) if match[3] else first
    if not 100 <= first <= last <= 599:
        raise ValueError("not within 100-599")
    return first, last + 1


def parse_address(text: str) -> tuple[str, int, bool]:
    """(host, port, tls) from ``host:port``, ``http://host[:port]`` or ``https://host[:port]``. Raises ValueError."""
    scheme, separator, _ = text.partition("://")
    if separator and scheme not in ("http", "https"):
        raise ValueError(f"the scheme {scheme} is not known; use http, https, or host:port")
    try:
        parts = urlsplit(text if separator else f"//{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError("the host or the port cannot be read") from error
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("an address is a host and a port, with no user, path or query")
    if port is None and separator:
        port = 443 if scheme == "https" else 80
    if port is None:
        raise ValueError("the port is missing")
    if not is_host(host):
        raise ValueError("the host is not a host name or an IP address")
    if port == 0:
        raise ValueError("the port must be between 1 and 65535")
    return host, port, scheme == "https" and bool(separator)


def parse_base_url(text: str) -> str:
    """``http://host:port`` or ``https://host/path`` without a slash at its end. Raises ValueError."""
    scheme, separator, _ = text.partition("://")
    if not separator or scheme not in ("http", "https"):
        raise ValueError("it does not begin with http:// or https://")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError("the host or the port cannot be read") from error
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("a base URL has no user, query or fragment")
    if not is_host(host) or port == 0:
        raise ValueError("the host is not a host name or an IP address, or the port is 0")
    path = parts.path.rstrip("/")
    if path.endswith("/v1/traces"):
        raise ValueError("the base URL ends before /v1/traces")
    return f"{scheme}://{parts.netloc}{path}"


def is_host(text: str) -> bool:
    """Whether a text can be a host name or an IP address."""
    return _HOST.fullmatch(text) is not None
