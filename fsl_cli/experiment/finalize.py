"""From a composed configuration to settings that mean the same from any folder."""

from __future__ import annotations

import re
from pathlib import Path

from fsl_cli.errors import UserError
from fsl_cli.runs.run import Run
from fsl_cli.settings.binding import demand_fit, demand_packages, demand_root
from fsl_cli.settings.compose import Config
from fsl_cli.settings.parts import of_size, with_absolute_paths
from fsl_cli.settings.schema import Settings

UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def finalize(config: Config) -> Settings:
    """The settings of a new run, such that they mean the same from any folder. Raises UserError where they do not fit.

    With `init`, images are seen as that run sees them.
    """
    settings = demand_fit(config.values)
    demand_packages(settings)
    demand_root(settings.data)
    if settings.time:
        seconds(settings.time)
        if settings.processes > 1:
            raise UserError(f"time={settings.time}: is for one process. Type steps=… for several.")
    if settings.train_on == "trainval" and (settings.calibrate or settings.patience):
        raise UserError(
            "train_on=trainval: no class is held out by which a temperature could be fitted or training ended early. "
            "Type calibrate=false patience=null too."
        )
    data, backbone = (with_absolute_paths(part, _absolute) for part in (settings.data, settings.backbone))
    pseudo = with_absolute_paths(settings.pseudo, _absolute) if settings.pseudo else None
    settings = settings.having(data=data, backbone=backbone, pseudo=pseudo)
    if settings.teacher:
        settings = settings.having(teacher=_absolute(settings.teacher))
    if settings.init:
        first = Run(settings.init).settings
        settings = settings.having(init=_absolute(settings.init), image=first.image, pretrained=first.pretrained)
        if first.image:
            settings = settings.having(data=of_size(settings.data, first.image.size))
    return settings.having(choices=config.choices)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def seconds(text: str) -> float:
    """2h, 90m, 1h30m, 1.5h. Raises UserError for what is no time."""
    found = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text)
    if not found or "".join(map("".join, found)) != text or not sum(float(number) for number, _ in found):
        raise UserError(f"time={text}: type hours, minutes or seconds, such as time=2h, time=1h30m or time=90s.")
    return sum(float(number) * UNITS[unit] for number, unit in found)
