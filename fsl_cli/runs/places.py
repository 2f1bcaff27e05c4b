"""Where a run's configuration, which may come from a stranger, would make fsl write or send.

The only such settings are `data.cache` and those of trackers: a run is written into its own folder, `out` counts when
it begins, and the others that are paths (`data.root`, `init`, `teacher`, `backbone.weights`, `backbone.file`) are read.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from fsl_cli.errors import UserError
from fsl_cli.files import read_json, write_json
from fsl_cli.settings.parts import OfData, Part, asked, on_each_set
from fsl_cli.settings.schema import Settings

SIGNS = "trust.json"
TRACKERS = "logger"  # the name of their sign, which no Python of a package has


def with_own_cache(settings: Settings) -> Settings:
    """With the user's own cache in place of one that holds nothing of fsl's: no other folder is written to."""

    def own(data: Part) -> Part:
        cache = asked(data, OfData).cache
        return data if not cache or _holds_stores(cache) else data.having(cache=None)

    return settings.having(data=on_each_set(own(settings.data), own))


def sign_trackers(folder: Path, settings: Settings) -> None:
    """Note in a run's folder that the user wants its trackers as they are now."""
    if settings.logger:
        with suppress(OSError):  # without a place for the key: the user is asked
            write_json(folder / SIGNS, {**read_signs(folder), TRACKERS: _sign(settings)})


def are_trackers_own(folder: Path, settings: Settings) -> bool:
    """Whether the trackers of a run are those that its user asked for with the key of this account."""
    known = read_signs(folder).get(TRACKERS)
    with suppress(OSError):
        return not settings.logger or (isinstance(known, str) and hmac.compare_digest(known, _sign(settings)))
    return False


def read_signs(folder: Path) -> dict[str, Any]:
    """What was signed in a run's folder; nothing where that cannot be read."""
    with suppress(UserError):
        return read_json(folder / SIGNS) if (folder / SIGNS).exists() else {}
    return {}


def key() -> bytes:
    """The user's own, made when it is first needed."""
    file = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "fsl" / "trust.key"
    with suppress(FileExistsError):
        file.parent.mkdir(parents=True, exist_ok=True)
        made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(made, "wb") as opened:
            opened.write(secrets.token_bytes(32))
    return file.read_bytes()


def _sign(settings: Settings) -> str:
    trackers = json.dumps({name: part.plain() for name, part in settings.logger.items()}, sort_keys=True, default=str)
    return hmac.new(key(), f"{TRACKERS} {trackers}".encode("utf-8", "surrogatepass"), "sha256").hexdigest()


def _holds_stores(cache: str) -> bool:
    with suppress(OSError, ValueError, RuntimeError):  # no path at all
        return any(Path(cache).expanduser().glob("*/store.json"))
    return False
