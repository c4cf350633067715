"""Regular expressions that mean the same to Envoy (RE2) and to Python.  Pure.

Envoy refuses what RE2 does not know (look-around, back references, possessive repetition), and what only one of the
two knows or reads in another way must not get into a topology: what is said of a request has to be what happens to it.
Syntax of RE2: https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

import re
import warnings

_MAX_LENGTH = 1000
_MAX_REPEAT = 1000
_MAX_SIZE = 20_000
# Length times repeats: RE2 gives up on an expression that would fill its memory, and Envoy would refuse it.
_TOKEN = re.compile(
    r"(?P<escape>\\(?:x[0-9a-fA-F]{2}|.))|(?P<class>\[\^?\]?(?:\\.|\[:|[^\]\\])*\])"
    r"|(?P<group>\(\?(?:P?<.|.))|(?P<count>\{[0-9]*,?[0-9]*\})|(?P<repeat>[*+?])|(?P<other>.)",
    re.DOTALL,
)
_ESCAPES = frozenset("dDwWsSbBtnrfv")


def explain_unusable(pattern: str) -> str:
    """Why a regular expression cannot be used, in words that follow "it"; empty when it can."""
    if len(pattern) > _MAX_LENGTH:
        return f"is longer than {_MAX_LENGTH} characters"
    if not pattern.isascii() or not pattern.isprintable():
        return "holds characters other than printable ASCII"
    flags = re.match(r"\(\?[ims]+\)", pattern)
    reason = _find_foreign(pattern[flags.end() :] if flags else pattern)
    if reason:
        return reason
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(pattern, re.ASCII)
    except re.error as error:
        return f"is not valid: {error.msg}"
    except Warning:
        return "holds a set that may be read in two ways: put a backslash before `[`, `-`, `&`, `~` and `|` in it"
    return ""


def _find_foreign(pattern: str) -> str:
    repeats, previous = 1, ""
    for token in _TOKEN.finditer(pattern):
        kind, text = str(token.lastgroup), token.group()
        reason = _judge(kind, text, previous)
        if reason:
            return reason
        if kind == "count":
            repeats *= max(1, *_numbers(text))
            if repeats > _MAX_REPEAT:
                return f"repeats more than {_MAX_REPEAT} times"
            if repeats * len(pattern) > _MAX_SIZE:
                return "is too large: what it repeats is too long"
        previous = "(repeated)" if kind in ("count", "repeat") else text
    return ""


def _judge(kind: str, text: str, previous: str) -> str:
    if kind == "group" and text != "(?:":
        return f"uses `{text}`, which Envoy does not know: of groups that begin with `(?` only `(?:` is"
    if kind == "escape" and not _is_known(text):
        return f"uses `{text}`, which Envoy does not know or reads in another way"
    if kind == "class" and ("[:" in text or any(not _is_known(e) or e in (r"\b", r"\B") for e in _escapes(text))):
        return f"uses the set `{text}`, which Envoy reads in another way"
    if kind == "count" and (not _numbers(text) or text.startswith("{,")):
        return f"uses `{text}`, which Envoy reads in another way"
    if kind in ("count", "repeat") and (
        previous in ("^", "$", r"\b", r"\B") or (previous == "(repeated)" and text != "?")
    ):
        return f"has nothing that `{text}` could repeat"
    return ""


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"[0-9]+", text)]


def _escapes(text: str) -> list[str]:
    return re.findall(r"\\(?:x[0-9a-fA-F]{2}|.)", text)


def _is_known(escape: str) -> bool:
    letter = escape[1]
    return letter in _ESCAPES or (letter == "x" and len(escape) > 2) or not (letter.isalnum() or letter == "_")
