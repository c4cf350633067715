"""How the words of a command are written in its help: ``meshctl scale [OPTIONS] SERVICE[/VERSION]=N...``.

typer's own form depends on its version, puts brackets around brackets and gives every flag a type.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument


def value_word(item: Any) -> str:
    """What stands for the value of an argument or option."""
    if item.metavar:
        return str(item.metavar)
    kind = getattr(item, "type_descriptor", None) or item.type  # typer names its types anew from 0.29 on
    choices = getattr(kind, "choices", None)
    word = "|".join(str(getattr(choice, "value", choice)) for choice in choices) if choices else item.name.upper()
    return f"[{word}]" if isinstance(item, TyperArgument) and not item.required else word


def usage_words(command: Any) -> list[str]:
    """What follows the command's name."""
    words = [value_word(item) for item in command.params if isinstance(item, TyperArgument) and not item.hidden]
    return ["[OPTIONS]", *words, *(["COMMAND [ARGS]..."] if hasattr(command, "list_commands") else [])]


def tidy(command: Any) -> Any:
    """Let a command, and those below it, show their words as here; returns it."""
    find_params = command.get_params

    def get_params(ctx: Any) -> list[Any]:
        items = list(find_params(ctx))
        for item in items:
            if isinstance(item, TyperArgument) or item.is_flag:
                item.display_type_rich = _show_no_type
        return items

    command.get_params = get_params
    command.collect_usage_pieces = lambda _ctx: usage_words(command)
    for below in getattr(command, "commands", {}).values():
        tidy(below)
    return command


def _show_no_type(**_context: Any) -> None:
    return None
