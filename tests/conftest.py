"""What the tests share: a tiny data set in memory, real Omniglot where it is there, one thread, no real cache."""

from __future__ import annotations

import copy
import csv
import gc
import json
import os
import pydoc
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import fsl_cli.algorithms.over_tasks
from fsl_cli.algorithms.base import Algorithm
from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.data.sampler import Shape
from fsl_cli.data.store import DataSet, ImageStore, Split
from fsl_cli.data.tasks import ImageTasks
from fsl_cli.experiment.method import learner
from fsl_cli.settings.binding import demand_fit
from fsl_cli.settings.compose import compose
from fsl_cli.settings.registry import choices, conf_dir
from fsl_cli.settings.schema import Image, Settings

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


CURVES = {"np", "anp"}  # algorithms that have no classes: tests/algorithms/test_neural_process.py
DESCRIBED = {"zeroshot", "tipadapter"}  # that ask for class rows: tests/algorithms/test_class_rows.py
CLASSIFIERS = [name for name in choices("algo") if name not in CURVES | DESCRIBED]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[None]:
    """No test reads or writes the user's cache or key; glyphs are drawn once, also for `-n 2`.

    The kernels are compiled once for all sessions: their file is named by their source and the processor.
    """
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    (cache / "fsl").mkdir(parents=True, exist_ok=True)
    kernels = pytestconfig.cache.mkdir("kernels") if pytestconfig.cache else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(base / "config"))
        patch.delenv("COLUMNS", raising=False)  # which pytest-xdist sets: what is shown is not a terminal's 80 wide
        patch.setenv("XDG_CACHE_HOME", str(cache))
        with suppress(FileExistsError):
            (cache / "fsl" / "kernels").symlink_to(kernels or base)
        yield


def pytest_collection_finish() -> None:
    """What is there by now stays: looking it through for garbage, over and over, took a tenth of the tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5000, 20, 20)


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks on a CPU are taken one by one, however small."""
    monkeypatch.setattr(fsl_cli.algorithms.over_tasks, "_at_once", lambda *_: 0)


@pytest.fixture
def omniglot_root() -> Path:
    root = REAL / "omniglot"
    if not root.exists():
        pytest.skip(f"needs real Omniglot in {root}")
    return root


@pytest.fixture
def cores() -> int:
    return len(os.sched_getaffinity(0))


class Pixels(Backbone):
    """Features that are the image's own numbers, for logits computed by hand; nothing to learn."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.norm = "none"
        self.map_shape = shape  # type: ignore[assignment]
        self.out_features = int(np.prod(shape))
        self.block_channels = []

    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        return x.flatten(2)


def settings(words: Sequence[str]) -> Settings:
    """What a command line of fsl train comes to, checked and typed; composed once, and nobody can change it."""
    return _settings(tuple(words))


@cache
def _settings(words: tuple[str, ...]) -> Settings:
    return demand_fit(compose(words).values)


def made_by(algo: str) -> Any:
    """The class that conf/algo names, without composing anything."""
    written = yaml.safe_load((conf_dir() / "algo" / f"{algo}.yaml").read_text())
    target = written["algo"].get("_target_")
    return pydoc.locate(target) if target else made_by(written["defaults"][0])


def seen(channels: int, size: int) -> Image:
    """Images as they are, not scaled."""
    return Image(channels, size, [0.0], [1.0])


def untrained_run(folder: Path, *words: str, change: Callable[[Algorithm], None] = lambda algorithm: None) -> Algorithm:
    """A run's folder as training leaves it, of an algorithm with its first weights, which `change` may change."""
    config = compose(words)
    made = demand_fit(config.values)
    image = Image(1, made.data.get("size", 28), [0.3], [0.5], ink=True)
    made = made.having(choices=config.choices, image=image, train_classes=7)
    built = learner(made, image, train_classes=7)
    change(built.algorithm)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(made.plain()))
    (folder / "environment.json").write_text('{"fsl": "0.0.1"}')
    torch.save({"state_dict": built.state_dict(), "global_step": 0}, folder / "checkpoints" / "best.ckpt")
    return built.algorithm.eval()


@cache
def tiny_data(classes: int = 200, images: int = 8, turns: int = 1) -> DataSet:
    """16 x 16 images that a network must learn to see: a faint pattern of the class under a strong, shared one.

    Drawn once for all tests, which can read it only.
    """
    size, rng = 16, np.random.default_rng(0)

    def patterns(count: int) -> np.ndarray:
        return np.kron(rng.random((count, 1, 4, 4)) > 0.5, np.ones((4, 4)))

    own, shared = patterns(classes)[:, None], patterns(6)
    pixels = (
        60 * own + 140 * shared[rng.integers(6, size=(classes, images))] + 30 * rng.random((classes, images, 1, 1, 1))
    )
    pixels = pixels.astype(np.uint8).reshape(-1, 1, size, size)
    pixels.flags.writeable = False
    store = ImageStore(
        pixels,
        np.arange(classes + 1) * images,
        [f"class {i}" for i in range(classes)],
        "tiny",
    )
    edges = [0, classes // 2, 3 * classes // 4, classes]
    parts = zip(("train", "val", "test"), edges, edges[1:], strict=False)
    splits = {part: Split(np.arange(start, stop), turns) for part, start, stop in parts}
    rows = own.reshape(classes, size, size)[:, ::4, ::4].reshape(classes, -1).astype(np.float32) - 0.5
    data = DataSet("tiny", store, splits, {"split": "seeded", "split_hash": "0", "rotations": "none"})
    return data._replace(class_rows=rows)


def tiny_tasks(data: DataSet | None = None, channels: int = 1) -> ImageTasks:
    """3-way 1-shot tasks with two queries a class, of `tiny_data` where no other is given."""
    return ImageTasks(data or tiny_data(), dict.fromkeys(("train", "val", "test"), Shape(3, 1, 2)), channels)


RESULT = {
    "data": "omniglot", "images": "a", "split": "vinyals", "split_hash": "b", "rotations": "all", "part": "test",
    "way": 5, "shot": 1, "query": 15, "episode_seed": 0, "metric": "accuracy", "sampling": "uniform", "norm": "running",
    "inference": "inductive", "interval": 0.01, "seed": 0, "trained_on": "omniglot", "checkpoint": "best.ckpt",
    "image": {"channels": 1, "size": 28, "mean": [0.0], "std": [1.0]}, "step": 100, "loss": 0.1, "seconds": 1.0,
    "training_seconds": 60.0, "changes": [], "version": "0.1.0",
}  # fmt: skip


def a_test(folder: Path, values: dict[int, float], **changed: object) -> Path:
    """A test that was run, without running it: result.json and episodes.csv with these values of the metric."""
    folder.mkdir(parents=True)
    mean = sum(values.values()) / len(values)
    (folder / "result.json").write_text(
        json.dumps({"algorithm": folder.name, "mean": mean, "episodes": len(values), **RESULT, **changed})
    )
    with open(folder / "episodes.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [["index", changed.get("metric", "accuracy"), "loss"], *([i, value, 0] for i, value in values.items())]
        )
    return folder


@cache
def _composed() -> dict[str, Any]:
    return compose(["algo=maml", "data=omniglot", "norm=running", "steps=100", "train_query=15"]).values


def a_run(folder: Path, values: dict[int, float], algo: str = "maml", seed: int = 0, **changed: object) -> Path:
    """A finished run: `a_test` with its configuration and learning curve; dotted names are settings."""
    settings = copy.deepcopy(_composed())
    settings |= {"seed": seed, "out": str(folder.parent)}
    choices = {"algo": algo, "data": "omniglot", "backbone": "conv4", "optim": "adam", "recipe": "x"}
    for key, value in [(key, changed.pop(key)) for key in list(changed) if "." in key]:
        group, _, name = key.rpartition(".")
        settings[group][name] = value
    a_test(folder, values, algorithm=algo, seed=seed, **changed)
    (folder / "config.yaml").write_text(yaml.safe_dump({**settings, "choices": choices}))
    (folder / "overrides.txt").write_text(f"algo={algo}\nseed={seed}\n")
    (folder / "metrics.csv").write_text(
        "step,train_loss,val_accuracy,val_interval,val_loss,learning_rate\n50,1.5,0.6,0.01,1.2,0.1\n100,1.1,0.7,0.01,1.0,0.1\n"
    )
    return folder
