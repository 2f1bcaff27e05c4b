"""Whose code a run may name: what the user has typed once, as long as the files are those of then.

trust.json in the run's folder holds, for each class that is not fsl's own, a fingerprint of its module's files, signed
with a key that lies outside of any run: a run from a stranger, or from another machine, asks again.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from fsl_cli.errors import UserError
from fsl_cli.files import read_json, write_json
from fsl_cli.runs.run import Run

NAME = "trust.json"


def trusted(run: Run, typed: Sequence[str]) -> list[str]:
    """The packages `typed`, and the modules trusted before in this run that have not changed since; keeps the first.

    Nothing is imported.
    """
    keep(run, typed)
    kept = _kept(run.folder)
    same = [
        name
        for name in set(_targets(run.settings.plain()))
        if (sign := kept.get(name)) and _same(sign, fingerprint(name))
    ]
    return [*typed, *sorted({name.rpartition(".")[0] for name in same} - set(typed))]


def keep(run: Run, typed: Sequence[str]) -> None:
    """Note in the run's folder that its classes of the packages `typed` are trusted as they are now."""
    own = {
        name
        for name in _targets(run.settings.plain())
        if f"{name}.".startswith(tuple(f"{package}." for package in typed))
    }
    signs = {name: sign for name in sorted(own) if (sign := fingerprint(name))}
    before = _kept(run.folder)
    if signs and {**before, **signs} != before:
        with suppress(OSError):  # a folder that is only to be read: the user is asked again
            write_json(run.folder / NAME, {**before, **signs})


def fingerprint(target: str) -> str:
    """Signed: the files of its package that importing `target`, a class or function, would run; "" where none is."""
    path: list[str] | None = None
    names = target.split(".")[:-1]
    signed = hmac.new(_key(), target.encode(), "sha256")
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


def _kept(folder: Path) -> dict[str, Any]:
    with suppress(UserError):
        return read_json(folder / NAME) if (folder / NAME).exists() else {}
    return {}


def _targets(node: Any) -> Iterator[str]:
    """Every `_target_` in a configuration."""
    if isinstance(node, dict):
        if isinstance(target := node.get("_target_"), str):
            yield target
        for inner in node.values():
            yield from _targets(inner)


def _key() -> bytes:
    """The user's own, made when it is first needed."""
    file = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "fsl" / "trust.key"
    with suppress(FileExistsError):
        file.parent.mkdir(parents=True, exist_ok=True)
        made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(made, "wb") as opened:
            opened.write(secrets.token_bytes(32))
    return file.read_bytes()
