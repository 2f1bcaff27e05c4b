"""What runs of a time before a setting existed had in its place."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from fsl_cli.settings.binding import located
from fsl_cli.settings.parts import Part
from fsl_cli.settings.schema import NAMES, Settings

OWN = "fsl_cli."  # nothing else is imported: a stranger's run may name any Python


def usual(part: Part) -> dict[str, Any]:
    """What a class of fsl's own takes where nothing is said, by name; none of others, and of one that is gone."""
    if not part.target.startswith(OWN):
        return {}
    try:
        parameters = inspect.signature(located(part)).parameters.values()
    except (ImportError, AttributeError, TypeError, ValueError):
        return {}
    return {each.name: each.default for each in parameters if each.default is not each.empty}


def aligned(runs: Sequence[Settings]) -> list[Settings]:
    """The runs' settings, where one says a setting of a class and another of the same class says none of that name.

    The latter is of a time when there was no such setting, and has what the class takes unasked. Imports the classes
    only where there is such a run.
    """
    said: dict[str, set[str]] = {}
    for run in runs:
        for part in _parts(run).values():
            said.setdefault(part.target, set()).update(part.values)

    def completed(part: Part) -> Part:
        if not (missing := said[part.target] - set(part.values)):
            return part
        return part.having(**{name: value for name, value in usual(part).items() if name in missing})

    return [run.having(**{name: completed(part) for name, part in _parts(run).items()}) for run in runs]


def _parts(run: Settings) -> dict[str, Part]:
    return {name: part for name in NAMES if isinstance(part := getattr(run, name), Part)}
