"""fsl train -m: the runs of a sweep, in whatever processes; each is noted in a file of the sweep's folder."""

from __future__ import annotations

import re
import shutil
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fsl_cli.errors import Interrupted, UserError
from fsl_cli.experiment.finalize import finalize
from fsl_cli.experiment.running import resume, start
from fsl_cli.pictures.sweep_screen import watched
from fsl_cli.runs.folder import new_folder
from fsl_cli.runs.jobs import Job, earlier_run, read_jobs, read_search, write_job
from fsl_cli.runs.run import Run
from fsl_cli.settings.compose import Config, from_hydra, out_folder
from fsl_cli.settings.explain import explain
from fsl_cli.settings.hydra_app import through_hydra
from fsl_cli.settings.hydra_conf import register_resolvers
from fsl_cli.settings.own_file import as_typed
from fsl_cli.settings.own_pictures import fit_to_pictures
from fsl_cli.settings.registry import take_user_dir
from fsl_cli.settings.several import typed_again
from fsl_cli.settings.typed import quoted, tables_as_typed
from fsl_cli.sweeps.outcome import rows, show_search, show_sweep
from fsl_cli.sweeps.plan import demand_plugins, demand_runs, plan


def sweep(words: Sequence[str], again: bool) -> None:
    """Run every combination, or a search's trials; one that fails does not stop the others.

    `again`: runs of before with the same settings are left as they are where they are finished, and go on where not.
    Raises UserError that lists what failed, and Interrupted after Ctrl-C or SIGTERM.
    """
    user_dir, typed = take_user_dir(words)
    demand_plugins(typed)
    planned = plan(typed, user_dir)
    demand_runs(planned, user_dir)
    place, expected = (
        new_folder(out_folder(planned.fixed, user_dir), ".sweeps").resolve(),
        planned.runs or [],
    )
    try:
        with watched(lambda: rows(read_jobs(place, expected))):
            here = f"hydra.sweep.dir={quoted(str(place))}"
            through_hydra(partial(run_one, typed, again, user_dir), [*typed, here], user_dir, sweep=True)
    except KeyboardInterrupt as stopped:
        how = "the same command" if any("sweeper=optuna" in word for word in typed) else "the same with resume=true"
        raise Interrupted(f"\nStopped. To go on: {how}.", getattr(stopped, "code", 130)) from None
    finally:
        jobs = read_jobs(place)
        show_sweep(read_jobs(place, expected) if jobs else [])
        if found := read_search(place):
            show_search(found)
        elif not jobs:  # refused before any run began
            shutil.rmtree(place)
    failed = [f"{' '.join(job.words)}: {job.message}" for job in jobs if job.state == "failed"]
    if failed:
        raise UserError("\n".join([f"{len(failed)} of {len(jobs)} runs failed.", *failed]))


def run_one(typed: Sequence[str], again: bool, user_dir: str | None, composed: Any) -> Job:
    """One run of the sweep that `typed` asks for; what goes wrong with it is noted in its file."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf.errors import OmegaConfBaseException

    register_resolvers()
    hydra = HydraConfig.get()
    overrides, place = typed_again(tables_as_typed(hydra.overrides.task), typed, user_dir), Path(hydra.sweep.dir)
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
        words = as_typed(overrides, typed)
        config = fit_to_pictures(from_hydra(composed, hydra.runtime.choices, words, user_dir)).config
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
        if number is not None and settings.processes == 1:
            from fsl_cli.sweeps.study import reporter

            prune_after = sweeper.prune_after if sweeper.prune else None
            report = reporter(sweeper.storage, sweeper.study_name, number, prune_after)
        if run:
            begun(run)
            trainer = settings.trainer_name
            other = trainer != run.settings.trainer_name
            resume(run, settings.trust, trainer if other else "", report=report)
        else:
            run = start(config, begun, report)
        state = "finished"
    return run, "pruned" if run.training and run.training.pruned else state
