"""The settings of a test: the run's own, with what is typed in their place."""

from __future__ import annotations

import hashlib
import re

from fsl_cli.runs.run import Run
from fsl_cli.runs.trust import trusted
from fsl_cli.runs.wording import task_name
from fsl_cli.settings.binding import demand_fit, demand_root, without_weights
from fsl_cli.settings.changed import changed
from fsl_cli.settings.registry import names
from fsl_cli.settings.schema import Settings
from fsl_cli.settings.typed import plain_key


def settings_of_a_test(run: Run, given: dict[str, str], user_dir: str | None) -> Settings:
    """The settings of a run with what is `given` in place of its own; takes `trust` out of that.

    Raises UserError when the two do not go together.
    """
    trust = trusted(run, names(given.pop("trust", "")))
    settings = without_weights(demand_fit(changed(run.settings.plain(), given, user_dir), trust))
    if any(plain_key(key) == "data.root" for key in given):  # the run's own may be on another machine
        demand_root(settings.data)
    return settings


def test_name(settings: Settings, given: dict[str, str]) -> str:
    """A folder's name for this test: data, way, shot, and whatever else was changed."""
    others = [f"{key}={value}" for key, value in sorted(given.items()) if key not in ("data", "way", "shot")]
    name = "-".join([settings.data_name, task_name(settings.way, settings.shot), *others])
    name = re.sub(r"[^\w.=-]+", "_", name)
    return name if len(name) < 120 else f"{name[:100]}-{hashlib.blake2b(name.encode(), digest_size=5).hexdigest()}"
