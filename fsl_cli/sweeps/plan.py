"""The runs of a sweep, known and checked before the first of them begins."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from fsl_cli.errors import UserError
from fsl_cli.settings.compose import compose
from fsl_cli.settings.explain import demand_readable
from fsl_cli.settings.registry import choices, groups
from fsl_cli.settings.several import sets_typed
from fsl_cli.settings.typed import for_hydra

COUNTS = {
    "hydra.sweeper.n_trials": 1,
    "hydra.sweeper.n_jobs": 1,
    "hydra.launcher.n_jobs": -1,
}  # joblib: -1 is all cores
PLUGINS = {  # what launchers and sweepers need, and the extra that brings it
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "sweep"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "sweep"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "sweep"),
    "ray": ("hydra_plugins.hydra_ray_launcher", "ray"),
    "optuna": ("optuna", "sweep"),
}


class Plan(NamedTuple):
    fixed: list[str]  # the words of every run
    runs: list[list[str]] | None  # what each run of a grid differs in; None: a search only finds that out
    first: Sequence[str] = ()  # of a search: a value for each setting that it was told to try


def plan(typed: Sequence[str], user_dir: str | None) -> Plan:
    """What `fsl train -m` with these words would run. Raises UserError where that is nothing."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob, IntervalSweep

    demand_readable(typed, user_dir, sweep=True)
    parser = OverridesParser.create(_Choices(user_dir))  # type: ignore[arg-type]
    parsed = dict(zip(typed, parser.parse_overrides(for_hydra(typed, True)), strict=True))
    varied = {word: override for word, override in parsed.items() if override.is_sweep_override()}
    fixed = [word for word in typed if word not in varied]
    search = any(word.startswith("hydra/sweeper=") for word in typed)
    for word in varied:
        if word.startswith("data=[") or sets_typed(fixed, user_dir) and word.startswith("data."):
            raise UserError(f"{word}: a sweep has its data sets, where they are several, once. Sweep over each alone.")
    for word, override in varied.items():
        if isinstance(override.value(), Glob) and override.key_or_group not in groups(user_dir):
            raise UserError(f"{word}: glob chooses among the files of a group, such as 'algo=glob(*maml)'.")
        if isinstance(override.value(), IntervalSweep) and not search:
            raise UserError(f"{word}: an interval is for a search. Type hydra/sweeper=optuna, or values: choice(…).")
    first = {word: _first(override) for word, override in varied.items()}
    for word, value in first.items():
        if value is None:
            raise UserError(f"{word}: there is nothing in it to sweep over. range(0,3) is 0, 1 and 2.")
    if search:
        return Plan(fixed, None, [f"{word.partition('=')[0]}={value}" for word, value in first.items()])
    [runs] = BasicSweeper.split_arguments(list(varied.values()), None)
    return Plan(fixed, runs)


def _first(override: Any) -> Any:
    """One of the values that a word tries; None where there is none."""
    from hydra.core.override_parser.types import IntervalSweep

    value = override.value()
    return value.start if isinstance(value, IntervalSweep) else next(override.sweep_string_iterator(), None)


class _Choices(NamedTuple):
    """What Hydra's parser asks for a group's files, which a glob is looked up in."""

    user_dir: str | None

    def get_group_options(self, group: str, results_filter: object = None) -> list[str]:
        return sorted(choices(group, self.user_dir))


def demand_runs(planned: Plan, user_dir: str | None) -> int:
    """How many runs there are. Raises UserError with what `fsl train` would refuse of any of them.

    Runs that differ in their seed alone are looked at once.
    """
    from fsl_cli.experiment.ready import why_refused

    if planned.runs is None:
        if found := why_refused(compose([*planned.fixed, *planned.first], user_dir)):
            raise UserError(found)
        return 0
    lines, seen = [], dict[str, str]()
    for run in planned.runs:
        try:
            config = compose([*planned.fixed, *run], user_dir)
            key = _but_seed(config.values)
            if key not in seen:
                seen[key] = why_refused(config)
            found = seen[key]
        except UserError as error:
            found = str(error)
        if found:
            lines.append(f"{' '.join(run)}: {found}" if run else found)
    if lines:
        count = f"{len(lines)} of {len(planned.runs)} runs of this sweep cannot be; none was started."
        raise UserError("\n".join([count, *lines] if len(planned.runs) > 1 else lines))
    return len(planned.runs)


def _but_seed(values: dict[str, Any]) -> str:
    return json.dumps({**values, "seed": min(values["seed"], 0) if isinstance(values["seed"], int) else values["seed"]})


def demand_plugins(typed: Sequence[str]) -> None:
    """Raises UserError with what to install for the launcher and the sweeper that are asked for."""
    for word in typed:
        key, _, name = word.partition("=")
        if key in COUNTS and (not re.fullmatch(r"-?\d+", name) or int(name) < COUNTS[key] or int(name) == 0):
            raise UserError(f"{word}: must be a whole number of at least 1.")
        if key in ("hydra/launcher", "hydra/sweeper") and name in PLUGINS:
            package, extra = PLUGINS[name]
            if not _installed(package):
                raise UserError(f'{word}: {package} is not installed. Type pip install "fsl-cli[{extra}]".')


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # not even the package that it lies in
        return False
