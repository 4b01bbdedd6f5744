"""--clean-up makes no run: which options go with it, and which without it only."""

from __future__ import annotations

from typing import Final

import typer

_BESIDE: Final = frozenset({"--clean-up", "--older-than", "--proxy", "--ca-bundle", "--timeout", "--plain"})


def misplaced_option(context: typer.Context, *, cleaning_up: bool) -> str | None:
    """What is wrong with the options that were given together, in one line; None where nothing is."""
    for each in context.command.params:
        source = context.get_parameter_source(each.name or "")
        if source is None or source.name != "COMMANDLINE":
            continue
        option = each.opts[0]
        if cleaning_up and option not in _BESIDE:
            return f"{option} does nothing beside --clean-up, which makes no run: leave one of them out."
        if not cleaning_up and option == "--older-than":
            return "--older-than does nothing without --clean-up."
    return None
