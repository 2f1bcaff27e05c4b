"""The runs of a sweep as files, which say what each run is doing; and finding earlier runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from fsl_cli.files import read_json, write_json
from fsl_cli.runs.run import Run
from fsl_cli.runs.wording import task_name
from fsl_cli.settings.schema import Settings
from fsl_cli.settings.usual import aligned

# settings without effect on what is learned
WITHOUT_EFFECT = {"out", "logger", "trust", "choices", "image", "train_classes", "pretrained", "calibrate"}
IRRELEVANT = ("data.root", "data.cache", "data.download")  # where images come from, not which they are
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


def read_search(place: Path) -> dict[str, Any] | None:
    """What a search came to, as the sweeper of hydra_plugins/ has noted it; None where nothing was searched."""
    path = place / "search.json"
    return read_json(path) if path.exists() else None


def run_name(settings: Settings) -> str:
    """The folder of all runs of an algorithm, data set and task: maml-omniglot-5w1s."""
    name = f"{settings.algo_name}-{settings.data_name}-{task_name(settings.way, settings.shot)}"
    return re.sub(r"[^\w.=+-]+", "-", name).strip(".-")  # a choice may be typed as a path


def earlier_run(settings: Settings) -> Run | None:
    """The latest run below `out` with these settings, wherever it ran; None where there is none."""
    for folder in sorted((Path(settings.out).expanduser() / run_name(settings)).glob("*/"), reverse=True):
        if not (folder / "config.yaml").exists():
            continue
        run = Run(folder)
        wanted, found = map(_identity, aligned([settings, run.settings]))
        if wanted == found:
            return run
    return None


def _identity(settings: Settings) -> str:
    plain = {key: value for key, value in settings.plain().items() if key not in WITHOUT_EFFECT}
    if settings.time:  # these follow from how fast a machine is
        plain = {key: value for key, value in plain.items() if key not in ("steps", "val_every", "schedule")}
    trainer = {key: value for key, value in settings.trainer.plain().items() if key not in MACHINE}
    chosen = {"algo": settings.algo_name, "data": settings.data_choice}
    return json.dumps([{**plain, "trainer": trainer}, chosen], sort_keys=True)


class Dotted(dict[str, Any]):
    """Settings by their dotted names, of all parts together, for tables and comparisons.

    Of some runs a name may be missing: they are of a time when there was no such setting.
    """

    @property
    def algo(self) -> str:
        return str(self["algo"])

    @property
    def data(self) -> str:
        return str(self["data"])

    @property
    def backbone(self) -> str:
        return str(self["backbone"])

    @property
    def finetune(self) -> int:
        """Steps on each support set in the test of these settings."""
        return int(self.get("backbone.finetune") or 0)

    @property
    def network(self) -> str | None:
        """The name of a library's network."""
        return self.get("backbone.name")

    @property
    def filters(self) -> int | list[int] | None:
        return self.get("backbone.filters")

    @property
    def size(self) -> int | None:
        """Pixels that images are brought to."""
        return self.get("data.size")

    @property
    def is_unfinished(self) -> bool:
        """Whether the test is of a run whose training has not ended."""
        return bool(self.get("test.unfinished"))


def flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
