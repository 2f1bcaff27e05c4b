"""What a run leaves behind: its folder, and the schema of what is written there.

config.yaml overrides.txt environment.json      what was asked for, and where it ran
changes.diff                                    how fsl differed from its commit, where it did
classes.json                                    which classes each split holds
checkpoints/best.ckpt checkpoints/last.ckpt     by validation; for resuming
metrics.csv curves.png                          one row a validation
training.json                                   written when training is over
tracking.json                                   the run's ids in trackers, with logger=
result.json episodes.csv                        the test; those of later `fsl test` in tests/NAME/
"""

from __future__ import annotations

import atexit
import csv
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fsl_cli.errors import UserError

UNFINISHED = "unfinished=true"  # stands among the changes of a test whose run was not trained to its end


@dataclass(frozen=True)
class Result:
    """A test, with everything that tells whether two numbers may stand in one column."""

    algorithm: str
    data: str
    images: str  # hash of the store
    split: str
    split_hash: str
    rotations: str
    part: str  # which split was tested
    way: int | list[int]  # a number, or the range that it was drawn from
    shot: int | list[int]
    query: int | str  # images a class, or all that are left of it
    episodes: int
    seed: int  # of the run: weights and training episodes
    episode_seed: int  # of the test episodes
    norm: str  # whose statistics normalised
    inference: str  # inductive | transductive
    trained_on: str  # data set
    image: dict[
        str, Any
    ]  # what the run's backbone sees: channels, size, and the mean and std that pixels are scaled by
    checkpoint: str
    step: int  # meta-iterations behind the checkpoint
    metric: str  # accuracy | mse
    mean: float  # of the metric over the episodes; an accuracy is 0..1
    interval: float  # half the width of its 95% interval
    loss: float
    seconds: float  # of the test
    training_seconds: float
    changes: list[str]  # settings of the run that were changed for this test
    version: str
    sampling: str = "uniform"  # of an episode's classes: uniform in the split | within_alphabet


class FittedTask(NamedTuple):
    """What is drawn of a regression task."""

    x: list[float]
    truth: list[float]
    support_x: list[float]
    support_y: list[float]
    after: dict[int, list[float]]  # gradient steps -> predictions at x


def first_process() -> bool:
    """Whether this is the only process of its run, or the one of several, on whatever machine, that writes."""
    ranks = ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")  # torchrun's, Slurm's, and Lightning's own two
    return all(os.environ.get(rank, "0") == "0" for rank in ranks)


def new_folder(out: str, name: str) -> Path:
    """A fresh folder `out`/`name`/<time>; for a process that does not write, one that is gone when it ends.

    Raises UserError when it cannot be made.
    """
    if not first_process():
        own = tempfile.mkdtemp(prefix="fsl-")
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        return Path(own)
    parent = Path(out).expanduser() / name
    stem = time.strftime("%Y-%m-%d_%H-%M-%S")
    with writing(parent, "Choose another folder with out=FOLDER."):
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            folder = parent / (stem if number == 1 else f"{stem}-{number}")
            try:
                folder.mkdir()
                return folder
            except FileExistsError:  # another run began within this second
                continue
    raise UserError(f"{parent} already holds a thousand runs of this second. Choose another folder with out=FOLDER.")


def make_folder(folder: Path) -> None:
    """Make a folder where there is none. Raises UserError when it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "there is a file of that name" if folder.exists() else error.strerror
        raise UserError(f"The folder {folder} cannot be made: {reason}. Choose another with out=.") from error


def task_name(settings: dict[str, Any]) -> str:
    """5w1s, or 5-20w1-10s where way and shot are ranges."""
    return f"{_spelled(settings['way'])}w{_spelled(settings['shot'])}s"


def task_words(settings: dict[str, Any]) -> str:
    """5-way 1-shot, or 5-20-way 1-10-shot where way and shot are ranges; in regression, 10-shot."""
    if settings.get("metric") == "mse":
        return f"{_spelled(settings['shot'])}-shot"
    return f"{_spelled(settings['way'])}-way {_spelled(settings['shot'])}-shot"


def _spelled(count: int | list[int]) -> str:
    return str(count) if isinstance(count, int) else "-".join(map(str, count))


def spelled(metric: str, mean: float, interval: float) -> str:
    """97.29% ± 0.22%, or MSE 0.351 ± 0.020."""
    return f"{mean:.2%} ± {interval:.2%}" if metric == "accuracy" else f"MSE {mean:.3f} ± {interval:.3f}"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name that becomes `path` when all is written, and is removed when it is not."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def demand_place(path: Path, advice: str) -> None:
    """Before work that takes time: raises UserError, which ends in `advice`, where `path` can be no file."""
    top = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not top.is_dir() or not os.access(top, os.W_OK):
        reason = "it is a folder" if path.is_dir() else f"{top} is no folder that can be written to"
        raise UserError(f"{path} cannot be written: {reason}. {advice}")


@contextmanager
def writing(place: object, advice: str) -> Iterator[None]:
    """While inside, what cannot be written is the user's to mend: UserError that names `place` and ends in `advice`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{place} cannot be written: {error.strerror}. {advice}") from error


def saved_config(folder: Path) -> dict[str, Any]:
    """The configuration that a run was started with. Raises UserError when the folder holds no run."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder. Type one that fsl train made, such as outputs/….")
    if not (folder / "config.yaml").exists():
        raise UserError(f"{folder} holds no run: it has no config.yaml. Type a folder that fsl train made.")
    try:
        values = yaml.safe_load((folder / "config.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder} holds no run: config.yaml cannot be read ({reason}).") from error
    chosen = values.get("choices") if isinstance(values, dict) else None
    if not isinstance(chosen, dict) or not {"algo", "data"} <= chosen.keys():
        raise UserError(f"{folder / 'config.yaml'} is not the configuration of a run.")
    return values


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Raises UserError when the file is missing or no JSON."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} cannot be read: it holds a {type(content).__name__}, not an object.")
    return content


def write_table(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """A CSV file, whole or not at all."""
    with whole(path) as temporary, open(temporary, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_result(folder: Path, result: Result, scores: Iterable[tuple[int, float, float]]) -> None:
    """result.json, and episodes.csv with the metric and loss of each test episode."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "episodes.csv", ["index", result.metric, "loss"], scores)
    write_json(folder / "result.json", asdict(result))


def environment() -> dict[str, Any]:
    """Where a run ran: versions, device, threads, commit."""
    import torch

    packages = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "numpy")
    return {
        "fsl": _own_version(),
        "commit": commit(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "platform": platform.platform(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "threads": torch.get_num_threads(),
    }


def _own_version() -> str:
    from fsl_cli import __version__

    return __version__


def commit() -> str | None:
    """The commit of the checkout that fsl runs from, with `+` when files differ from it; None outside one."""
    commit = _git("rev-parse", "--short", "HEAD")
    return commit and commit.strip() + ("+" if changes() else "")


def changes() -> str:
    """How fsl's files differ from their commit, as `git apply` reads it; nothing outside a checkout."""
    return _git("diff", "HEAD", "--", ".", "../conf") or ""


def _git(*words: str) -> str | None:
    """What git says of the checkout that fsl runs from; None outside one."""
    here = Path(__file__).resolve().parent
    try:
        return subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError, UnicodeDecodeError):
        return None
