"""The runs of a sweep, as files: what each does, in whatever process; and finding runs of before."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from fsl_cli.files import read_json, write_json
from fsl_cli.runs.folder import saved_config
from fsl_cli.runs.wording import task_name

ELSEWHERE = {"out", "logger", "trust", "choices", "image", "train_classes"}  # says nothing of what is computed
MACHINE = {"accelerator", "devices", "num_nodes", "strategy"}  # of a trainer


class Job(NamedTuple):
    """One run of a sweep."""

    number: int
    words: list[str]  # what makes it differ
    state: str  # waiting | running | finished | there (finished before) | pruned | failed | stopped
    folder: str | None = None
    message: str = ""  # why it failed
    score: float | None = None  # best validation accuracy, or minus the error: higher is better


def write_job(place: Path, job: Job) -> None:
    """Note in the sweep's folder what a run does."""
    write_json(place / f"{job.number}.json", job._asdict())


def read_jobs(place: Path, expected: Iterable[list[str]] = ()) -> list[Job]:
    """All runs of a sweep by their number; those of `expected` that have not begun are waiting."""
    jobs = {number: Job(number, words, "waiting") for number, words in enumerate(expected)}
    for path in place.glob("[0-9]*.json"):
        job = Job(**read_json(path))
        jobs[job.number] = job
    return [jobs[number] for number in sorted(jobs)]


def is_finished(folder: Path, tested: bool) -> bool:
    """Whether a run has trained to its end, and was tested where it had to be."""
    return (folder / "training.json").exists() and ((folder / "result.json").exists() or not tested)


def score(folder: Path) -> float:
    """What a finished run is compared by in a search: validation, never the test."""
    training = read_json(folder / "training.json")
    return training["best_value"] if training["metric"] == "accuracy" else -training["best_value"]


def run_name(values: dict[str, Any], choices: dict[str, str]) -> str:
    """The folder of all runs of an algorithm, data set and task: maml-omniglot-5w1s."""
    return f"{choices['algo']}-{choices['data']}-{task_name(values)}"


def earlier_run(values: dict[str, Any], choices: dict[str, str]) -> Path | None:
    """The latest run below `out` with these settings, wherever it ran; None where there is none."""
    wanted = _identity({**values, "choices": choices})
    for folder in sorted((Path(values["out"]).expanduser() / run_name(values, choices)).glob("*/"), reverse=True):
        if (folder / "config.yaml").exists() and _identity(saved_config(folder)) == wanted:
            return folder
    return None


def _identity(config: dict[str, Any]) -> str:
    settings = {key: value for key, value in config.items() if key not in ELSEWHERE}
    settings["trainer"] = {key: value for key, value in config["trainer"].items() if key not in MACHINE}
    chosen = {group: config["choices"][group] for group in ("algo", "data")}
    return json.dumps([settings, chosen], sort_keys=True)
