"""Whose code a run may name: packages that the user has typed once, as long as their files have not changed.

trust.json in the run's folder holds, for each class that is not fsl's own, a fingerprint of its module's files, signed
with a key that lies outside of any run: a run from a stranger, or from another machine, asks again.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from fsl_cli.files import write_json
from fsl_cli.runs.places import SIGNS, key, read_signs
from fsl_cli.runs.run import Run


def trusted(run: Run, typed: Sequence[str]) -> list[str]:
    """The packages `typed`, and the modules trusted before in this run that have not changed since; keeps the first.

    Nothing is imported.
    """
    keep(run, typed)
    kept = read_signs(run.folder)
    same = [name for name in set(run.settings.targets()) if (sign := kept.get(name)) and _same(sign, fingerprint(name))]
    return [*typed, *sorted({name.rpartition(".")[0] for name in same} - set(typed))]


def keep(run: Run, typed: Sequence[str]) -> None:
    """Note in the run's folder that its classes of the packages `typed` are trusted as they are now."""
    own = {name for name in run.settings.targets() if f"{name}.".startswith(tuple(f"{package}." for package in typed))}
    signs = {name: sign for name in sorted(own) if (sign := fingerprint(name))}
    before = read_signs(run.folder)
    if signs and {**before, **signs} != before:
        with suppress(OSError):  # a folder that is only to be read: the user is asked again
            write_json(run.folder / SIGNS, {**before, **signs})


def fingerprint(target: str) -> str:
    """Signed: the files of its package that importing `target`, a class or function, would run; "" where none is."""
    path: list[str] | None = None
    names = target.split(".")[:-1]
    signed = hmac.new(key(), target.encode(), "sha256")
    for number in range(1, len(names) + 1):
        try:
            spec = PathFinder.find_spec(".".join(names[:number]), path)
            if spec is None or not spec.origin or not Path(spec.origin).is_file():
                return ""
            signed.update(Path(spec.origin).read_bytes())
        except (OSError, ValueError, ImportError):
            return ""
        path = list(spec.submodule_search_locations or [])
    return signed.hexdigest() if names else ""


def _same(sign: Any, now: str) -> bool:
    return isinstance(sign, str) and bool(now) and sign.isascii() and hmac.compare_digest(sign, now)
