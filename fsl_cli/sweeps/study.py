"""Optuna's study of a search: where its trials are stored, what is reported to it, and which runs it stops."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from fsl_cli.errors import UserError, command
from fsl_cli.experiment.callbacks import Report

if TYPE_CHECKING:
    import optuna


def open_study(storage: str, name: str, prune_after: int | None, seed: int, at_a_time: int) -> optuna.Study:
    """The study in `storage`, begun where there is none; scores are maximised.

    `prune_after`: how many trials are never stopped; None: none is. Raises UserError when the storage cannot be used.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        kept = _storage(storage)
        study = optuna.create_study(storage=kept, study_name=name, direction="maximize", load_if_exists=True)
    except Exception as error:  # of SQLAlchemy, a driver or a file system
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"hydra.sweeper.storage={storage} cannot be used: {reason}") from error
    with warnings.catch_warnings():  # constant_liar is an experiment of Optuna's
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        begun = len(study.trials)  # else a search that goes on would draw what it drew before
        study.sampler = optuna.samplers.TPESampler(seed=seed + begun, constant_liar=at_a_time > 1)
    study.pruner = _pruner(prune_after)
    return study


def reporter(storage: str, name: str, number: int, prune_after: int | None) -> Report:
    """A function for the run of a trial: it reports a validation to the study, and asks whether to stop."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name=name, storage=_storage(storage), pruner=_pruner(prune_after))
    trial = optuna.trial.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)

    def report(step: int, score: float) -> bool:
        trial.report(score, step)
        return trial.should_prune()

    return report


def demand_same(study: optuna.Study, settings: dict[str, Any]) -> None:
    """Keep what a search holds fixed and what it tries with the study. Raises UserError when it was begun otherwise."""
    begun = study.user_attrs.get("settings")
    if begun is None:
        study.set_user_attr("settings", settings)
    elif begun != settings:
        differ = sorted(set(_listed(begun)) ^ set(_listed(settings)))
        other = command(f"hydra.sweeper.study_name={study.study_name}-2")
        raise UserError(
            f"The study {study.study_name} was begun with other settings; in one of the two only: {', '.join(differ)}. "
            f"Type those of before, or {other} for a study of its own."
        )


def _listed(begun: dict[str, Any]) -> list[str]:
    return [*begun["fixed"], *(f"{key}={text}" for key, text in begun["tried"].items())]


def _storage(url: str) -> Any:
    """Several processes write to a file: each waits for the others."""
    import optuna

    waits = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    return optuna.storages.RDBStorage(url, engine_kwargs=waits)


def _pruner(prune_after: int | None) -> optuna.pruners.BasePruner:
    import optuna

    return optuna.pruners.NopPruner() if prune_after is None else optuna.pruners.MedianPruner(prune_after)
