"""Commands: a list of words, or a text.  Pure."""

from __future__ import annotations

import re
import shlex

from meshctl.spec.reader import Fields, read_scalar
from meshctl.spec.report import quote
from meshctl.spec.shapes import Text
from meshctl.spec.source import ListNode, ScalarNode

_SHELL_SYNTAX = re.compile(r"[|&;<>()`$*?~\n]|\A\s*[A-Za-z_][A-Za-z0-9_]*=")
_SHELL = ("/bin/sh", "-c")


def parse_command(text: str) -> tuple[str, ...]:
    """The argv of a command written as one text.

    A text with shell syntax - any of ``| & ; < > ( ) ` $ * ? ~`` or a newline, quoted or not, or a leading
    ``NAME=value`` - becomes ``("/bin/sh", "-c", text)``; any other is split into words as a POSIX shell would.

    Raises:
        ValueError: a quote is not closed.
    """
    if _SHELL_SYNTAX.search(text):
        return (*_SHELL, text)
    return tuple(shlex.split(text))


def read_command(fields: Fields, name: str) -> tuple[str, ...]:
    """The argv under a key; empty when it is absent or cannot be used (reported)."""
    node = fields.alternative(name)
    label = quote(name)
    if isinstance(node, ListNode):
        shape = Text(what="a word")
        words = [read_scalar(shape, item, f"an item of {label}", fields.report) for item in fields.items(name)]
        argv = tuple(word for word in words if isinstance(word, str))
        if argv and not argv[0]:
            fields.report.add("empty-command", f"the first word of {label} is empty", node.where)
        return argv
    if not isinstance(node, ScalarNode):
        return ()
    text = read_scalar(Text(what="a command"), node, label, fields.report)
    if not isinstance(text, str):
        return ()
    try:
        argv = parse_command(text.strip())
    except ValueError:
        hint = 'close the quote, or write the words as a list: ["python", "app.py"]'
        fields.report.add("bad-command", f"a quote in {label} is not closed: {quote(text)}", node.where, hint)
        return ()
    if not argv or not argv[0]:
        fields.report.add(
            "empty-command", f"{label} is empty", node.where, "write what to run, such as `python app.py`"
        )
        return ()
    return argv
