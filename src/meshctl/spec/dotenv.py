r"""The text of a ``.env`` file -> variables.  Pure.

One ``NAME=value`` a line, ``export`` before it is allowed; ``#`` begins a comment at the start of a line or after a
blank. Single quotes take everything as it is; double quotes know ``\n``, ``\t``, ``\r``, ``\"``, ``\\`` and ``\$``;
both may run over several lines. Values are not interpolated. A name without ``=`` is a problem.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from meshctl.errors import InvalidTopology, Where
from meshctl.spec.report import Report, quote

_BLANK = re.compile(r"(?:[ \t\r\f\v]*(?:#[^\n]*)?\n)*[ \t\r\f\v]*(?:#[^\n]*)?")
_NAME = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.]*)[ \t]*=[ \t]*", re.ASCII)
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_PLAIN = re.compile(r"[^\n]*")
_COMMENT = re.compile(r"(?:\A|[ \t])#.*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$"}
_HINT = "write `NAME=value`, and quote a value that holds ` #` or line breaks"


def parse_dotenv(text: str, path: str) -> Mapping[str, str]:
    """The variables of a ``.env`` file; the last of two of one name counts.

    Args:
        text: the file's text.
        path: the file as the user gave it, for the places of problems.

    Raises:
        InvalidTopology: a line is no variable or a quote is not closed; with all such problems.
    """
    report = Report([path])
    variables: dict[str, str] = {}
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    at = _skip(text, 0)
    while at < len(text):
        match = _NAME.match(text, at)
        if match is None:
            line = _line(text, at)
            report.add("bad-dotenv", f"{quote(line)} is no variable", _place(text, at, path), _HINT)
            at = _skip(text, at + len(line))
            continue
        end = match.end()
        value, end, problem = _read_value(text, end)
        if "\x00" in value:
            problem = "the value holds a NUL character"
        if problem:
            report.add("bad-dotenv", f"{problem}, for {quote(match[1])}", _place(text, match.end(), path), _HINT)
        variables[match[1]] = value
        at = _skip(text, end)
    if report.problems:
        raise InvalidTopology(report.problems)
    return variables


def _read_value(text: str, at: int) -> tuple[str, int, str]:
    """(value, where it ends, what is wrong)."""
    quoted = text[at : at + 1]
    if quoted in ("'", '"'):
        match = (_SINGLE if quoted == "'" else _DOUBLE).match(text, at)
        if match is None:
            return "", at + len(_line(text, at)), "the quote is not closed"
        value = match[1] if quoted == "'" else _ESCAPE.sub(_unescape, match[1])
        rest = _line(text, match.end())
        left = _COMMENT.sub("", rest).strip()
        return value, match.end() + len(rest), f"{quote(left)} follows the closing quote" if left else ""
    line = _line(text, at)
    return _COMMENT.sub("", line).strip(), at + len(line), ""


def _unescape(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[1], match[0])


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _line(text: str, at: int) -> str:
    match = _PLAIN.match(text, at)
    return match[0] if match else ""


def _place(text: str, at: int, path: str) -> Where:
    return Where(path, text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))
