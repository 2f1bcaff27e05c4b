"""fsl train -m: the runs of a sweep, in whatever processes; each is noted in a file of the sweep's folder."""

from __future__ import annotations

import importlib.util
import re
import shutil
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fsl_cli.errors import Interrupted, UserError
from fsl_cli.experiment.running import finalize, resume, start
from fsl_cli.files import read_json
from fsl_cli.pictures.sweep_screen import search_screen, sweep_screen, watched
from fsl_cli.runs.folder import new_folder
from fsl_cli.runs.jobs import Job, earlier_run, read_jobs, write_job
from fsl_cli.runs.run import Run
from fsl_cli.settings.compose import Config, compose, explain, from_hydra, register_resolvers, take_user_dir
from fsl_cli.settings.hydra_app import through_hydra
from fsl_cli.settings.own_pictures import fitted

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


def sweep(words: Sequence[str], again: bool) -> None:
    """Run every combination, or a search's trials; one that fails does not stop the others.

    `again`: runs of before with the same settings are left as they are where they are finished, and go on where not.
    Raises UserError that lists what failed, and Interrupted after Ctrl-C or SIGTERM.
    """
    user_dir, typed = take_user_dir(words)
    _demand_plugins(typed)
    place, expected = _plan(typed, user_dir)
    quoted = str(place).replace("'", "\\'")
    try:
        with watched(lambda: read_jobs(place, expected)):
            through_hydra(partial(run_one, typed, again), ["-m", *typed, f"hydra.sweep.dir='{quoted}'"], user_dir)
    except KeyboardInterrupt as stopped:
        how = "the same command" if any("sweeper=optuna" in word for word in typed) else "the same with resume=true"
        raise Interrupted(f"\nStopped. To go on: {how}.", getattr(stopped, "code", 130)) from None
    finally:
        jobs = read_jobs(place)
        sweep_screen(read_jobs(place, expected) if jobs else [])
        if (place / "search.json").exists():
            search_screen(read_json(place / "search.json"))
        elif not jobs:  # refused before any run began
            shutil.rmtree(place)
    failed = [f"{' '.join(job.words)}: {job.message}" for job in jobs if job.state == "failed"]
    if failed:
        raise UserError("\n".join([f"{len(failed)} of {len(jobs)} runs failed.", *failed]))


def run_one(typed: Sequence[str], again: bool, composed: Any) -> Job:
    """One run of the sweep that `typed` asks for; what goes wrong with it is noted in its file."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf.errors import OmegaConfBaseException

    register_resolvers()
    hydra = HydraConfig.get()
    overrides, place = list(hydra.overrides.task), Path(hydra.sweep.dir)
    shared = {_plain(word) for word in (*typed, "test=false")}
    own = [word for word in overrides if _plain(word) not in shared]
    job = Job(hydra.job.num, own or overrides, "running")

    def note(**changes: Any) -> Job:
        nonlocal job
        job = job._replace(**changes)
        write_job(place, job)
        return job

    note()
    try:
        files = next((each.path for each in hydra.runtime.config_sources if each.provider == "command-line"), None)
        config = fitted(from_hydra(composed, hydra.runtime.choices, overrides, files or None)).config
        run, state = _go(config, again, hydra.sweeper, lambda run: note(folder=str(run)))
        return note(state=state, folder=str(run), score=run.training.score if run.training else None)
    except UserError as error:
        return note(state="failed", message=str(error))
    except OmegaConfBaseException as error:
        return note(state="failed", message=str(explain(error, overrides)))
    except KeyboardInterrupt:
        note(state="stopped")
        raise
    except Exception as error:  # a bug of ours, or a device without memory: the next run may well go through
        traceback.print_exc()
        return note(state="failed", message=f"{type(error).__name__}: {error}")


def _plain(word: str) -> str:
    """A word without its quoting, which Hydra spells in its own way."""
    return re.sub(r"[\\'\" ]", "", word)


def _go(config: Config, again: bool, sweeper: Any, begun: Callable[[Run], Any]) -> tuple[Run, str]:
    """Start a run, or go on with that of before. Returns it and what became of it."""
    number = sweeper.get("trial")
    settings = finalize(config)
    run = None
    if again or number is not None:
        run = earlier_run(settings)
    if run and run.is_finished():
        state = "there"
    else:
        report = None
        if number is not None and settings.trainer.get("devices", 1) * settings.trainer.get("num_nodes", 1) == 1:
            from fsl_cli.sweeps.study import reporter

            prune_after = sweeper.prune_after if sweeper.prune else None
            report = reporter(sweeper.storage, sweeper.study_name, number, prune_after)
        if run:
            begun(run)
            trainer = config.choices["trainer"]
            other = trainer != run.settings.choices.get("trainer")
            resume(run, settings.trust, trainer if other else "", report=report)
        else:
            run = start(config, begun, report)
        state = "finished"
    return run, "pruned" if run.training and run.training.pruned else state


def _plan(typed: Sequence[str], user_dir: str | None) -> tuple[Path, list[list[str]]]:
    """A fresh folder for a sweep's notes, and what each run of a grid differs in; a search only finds that out."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob, IntervalSweep
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(list(typed))
    except HydraException as error:
        raise explain(error, typed, user_dir) from error
    varied = [override for override in parsed if override.is_sweep_override()]
    fixed = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
    place = new_folder(compose(fixed, user_dir).values["out"], ".sweeps").resolve()
    unknown = any(isinstance(override.value(), Glob | IntervalSweep) for override in varied)
    if unknown or any(word.startswith("hydra/sweeper=") for word in typed):
        return place, []
    [runs] = BasicSweeper.split_arguments(varied, None)
    return place, runs


def _demand_plugins(typed: Sequence[str]) -> None:
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
