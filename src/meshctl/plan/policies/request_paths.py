"""Paths of requests as authorization sees them.  Pure.

A sidecar normalises a path before it looks at any rule, and hands the normalised one on, so that rule and application
see the same: ``/./`` and ``/../`` (encoded ones too) are resolved, a backslash becomes a slash, and letters, digits and
``-._~`` are written without ``%``. This module says what comes of a path, as Envoy 1.40 does it with
``normalize_path``; a test holds the two together. See docs/adr/0014-authorization.md.
"""

from __future__ import annotations

import re
import string
from urllib.parse import unquote_to_bytes

_UNRESERVED = frozenset(f"{string.ascii_letters}{string.digits}-._~")
_ESCAPED = frozenset('"<>^`{|} ')
# Written as they are in a request, these are escaped by the sidecar.
_HIDDEN = frozenset("/\\;\0")
# Encoded, these are what one application takes for a part of the path's structure and another one does not.
_SLASHES = re.compile(rb"/+")


def normalise(path: str) -> str | None:
    """What a sidecar makes of a request's path, its query included; None when it answers 400 to it."""
    if not path.startswith("/") or "#" in path:
        return None
    given, mark, query = path.partition("?")
    if "%00" in given:
        return None
    return _canonical(given) + mark + query


def is_settled(path: str) -> bool:
    """Whether a normalised path means the same to everybody: no ``;``, no encoded slash, nothing encoded twice.

    Where rules name paths, others are refused: it could not be said which rule is about them.
    """
    return re.fullmatch(SETTLED, path, re.DOTALL) is not None and re.fullmatch(NESTED, path, re.DOTALL) is None


def matches_path(pattern: str, path: str) -> bool:
    """Whether a rule's path stands for a normalised and settled one.

    Several slashes count as one, a trailing slash and the query as none, and it makes no difference how a character is
    encoded.
    """
    wanted = unquote_to_bytes(pattern)
    found = _SLASHES.sub(b"/", unquote_to_bytes(path.partition("?")[0]))
    bare = found.rstrip(b"/")
    if wanted.endswith(b"/*"):
        return bare == wanted[:-2] or found.startswith(wanted[:-1])
    if wanted.endswith(b"*"):
        return found.startswith(wanted[:-1])
    return bare == wanted.rstrip(b"/")


def path_regex(pattern: str) -> str:
    """The same as ``matches_path`` as a regular expression (RE2) for the whole of ``:path``."""
    exact = not pattern.endswith("*")
    below = pattern.endswith("/*")
    bare = pattern.rstrip("*").rstrip("/") if exact or below else pattern[:-1]
    body = "".join(_byte_regex(value) for value in unquote_to_bytes(bare))
    if below:
        # Of the slash itself there may be none at the end: /orders/* is /orders too.
        return f"(?s){body}(?:[/?].*)?"
    return f"(?s){body}/*(?:\\?.*)?" if exact else f"(?s){body}.*"


def _byte_regex(value: int) -> str:
    character = chr(value)
    if character == "/":
        return "/+"
    if character in _UNRESERVED:
        return re.escape(character)
    encoded = "%" + "".join(f"[{digit.lower()}{digit}]" if digit.isalpha() else digit for digit in f"{value:02X}")
    if character.isascii() and character.isprintable():
        return f"(?:{re.escape(character)}|{encoded})"
    return encoded


def _settled_regex() -> str:
    pairs = []
    for first in "0123456789ABCDEF":
        seconds = [
            digit + (digit.lower() if digit.isalpha() else "")
            for digit in "0123456789ABCDEF"
            if chr(int(first + digit, 16)) not in _HIDDEN | _UNRESERVED
        ]
        if seconds:
            shown = f"[{first.lower()}{first}]" if first.isalpha() else first
            pairs.append(f"{shown}[{''.join(seconds)}]")
    return rf"(?:[^%;\\?]|%(?:{'|'.join(pairs)}))*(?:\?.*)?"


SETTLED = _settled_regex()
"""What a settled path is, as a regular expression (RE2, dot matches everything)."""

NESTED = "[^?]*%25[0-9a-fA-F]{2}.*"
"""What it is not: an encoded character that comes out when the path is decoded twice."""


def _canonical(given: str) -> str:
    """A path without query as the sidecar writes it, one character of ``out`` after the other."""
    out: list[str] = []
    at, stray = 0, -3
    while at < len(given):
        character = given[at]
        dot = _dot_at(given, at)
        if dot and out and out[-1] == "/":
            kind, length = _classify(given, at + dot)
            at += dot + length
            if kind == "up":
                _back_up(out)
            elif kind == "name":
                out.append(".")
            continue
        at += 1
        if character == "\\":
            out.append("/")
        elif character in _ESCAPED or not character.isascii():
            out.extend("".join(f"%{value:02X}" for value in character.encode()))
        elif character != "%":
            out.append(character)
        elif not _is_pair(given[at : at + 2]):
            stray = len(out)
            out.append("%")
        else:
            pair = given[at : at + 2]
            at += 2
            decoded = chr(int(pair, 16))
            out.extend(decoded if decoded in _UNRESERVED else f"%{pair}")
            if decoded in _UNRESERVED and stray >= len(out) - 3:
                _keep_stray(out, stray, given[at : at + 1])
    return "".join(out)


def _keep_stray(out: list[str], stray: int, following: str) -> None:
    """Escape a stray ``%`` with which what was just decoded would make a new encoded character."""
    after = "".join(out[stray + 1 :])
    if _is_pair((after + following)[:2]) and len(after) <= 2:
        out[stray + 1 :] = ["2", "5", *after]


def _is_pair(text: str) -> bool:
    return len(text) == 2 and all(digit in string.hexdigits for digit in text)


def _dot_at(given: str, at: int) -> int:
    """How long the dot at a place is: 1, 3 when it is encoded, 0 when there is none."""
    if given[at : at + 1] == ".":
        return 1
    return 3 if given[at : at + 3].lower() == "%2e" else 0


def _classify(given: str, after: int) -> tuple[str, int]:
    """What a dot that begins a segment is: this folder, the one above, or a name; and how much more belongs to it."""
    if after == len(given):
        return "here", 0
    if given[after] in "/\\":
        return "here", 1
    second = _dot_at(given, after)
    if second:
        rest = after + second
        if rest == len(given):
            return "up", second
        if given[rest] in "/\\":
            return "up", second + 1
    return "name", 0


def _back_up(out: list[str]) -> None:
    if len(out) > 1:
        out.pop()
        while out[-1] != "/":
            out.pop()
