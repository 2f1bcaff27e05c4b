"""A command that fsl shows works as it stands when it is pasted, from a folder whose name a shell would take apart."""

from __future__ import annotations

import ast
import csv
import os
import re
import shlex
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fsl_cli
from fsl_cli.cli import VERBS, run
from fsl_cli.errors import Interrupted, UserError
from fsl_cli.experiment.learner import Learner
from fsl_cli.settings.registry import conf_dir

SMALL = [
    "train_way=3", "way=2", "shot=1", "query=2", "train_query=2", "steps=4", "val_every=2", "val_episodes=3",
    "episodes=4", "backbone.filters=4", "trainer=cpu", "data.size=16",
]  # fmt: skip
ROOT = "my pictures, x=1 (ü)"
CONF = "my conf, 2"
COMMAND = re.compile(rf"\bfsl ({'|'.join(VERBS)}) ")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures of seven classes, and settings of the user's own."""
    place = tmp_path_factory.mktemp("x") / "it's [mine], a=b $(c)"
    dice = np.random.default_rng(0)
    for name in "abcdefg":
        (place / ROOT / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(dice.integers(0, 255, (20, 20), dtype=np.uint8)).save(place / ROOT / name / f"{i}.png")
    (place / CONF / "algo").mkdir(parents=True)
    (place / CONF / "algo" / "mine.yaml").write_text((conf_dir() / "algo" / "protonet.yaml").read_text())
    return place


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


class Shell:
    """Types a line, and reads the commands off what it says."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, words: Sequence[str]) -> list[list[str]]:
        said = ""
        try:
            run(list(words))
        except (UserError, Interrupted, SystemExit) as told:
            said = str(told)
        out, err = self.capsys.readouterr()
        return [line for text in (out, err, said) for line in commands(text)]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def commands(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if match := COMMAND.search(line):
            words = iter(shlex.split(line[match.start() :])[1:])
            verb = next(words)
            found = [verb, *((next(words), next(words)) if verb == "data" else ())]
            for word in words:
                if "=" not in word and word != "--config-dir" and found[-1] != "--config-dir":
                    break
                found.append(word)
            yield [*found[:-1], found[-1].rstrip(".,:")]


def good(words: Sequence[str]) -> None:
    """Run it; a refusal fails the test."""
    run(list(words))


@pytest.mark.slow
def test_each_command_that_leads_on_from_a_run(place: Path, typed: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--config-dir", CONF, "algo=mine", "data=folder", f"data.root={ROOT}", *SMALL, "out=o, 1"]
    why, following = typed(["train", *words])
    assert why[0] == "show" and following[0] == "test"
    assert following[-1].startswith("episodes="), "no class has the pictures for shot=5"
    good(why)
    first = following[1].removeprefix("run=")
    assert typed(following[:2]) == []

    with monkeypatch.context() as patch:  # Ctrl-C in the first step
        step = Learner.training_step

        def stopped(self: Learner, *given: object) -> object:
            os.kill(os.getpid(), signal.SIGINT)
            return step(self, *given)  # type: ignore[arg-type]

        patch.setattr(Learner, "training_step", stopped)
        [_, resume] = typed(["train", *words, "seed=1"])
    assert resume[:1] == ["train"] and resume[1].startswith("resume=o, 1/")
    second = resume[1].removeprefix("resume=")
    [untested] = typed(["report", second])
    assert untested == ["test", f"run={second}"]
    [finished] = [line for line in typed(resume) if "shot" not in line[-1]]
    assert finished[:2] == untested
    assert typed(resume) == [untested], "there is nothing to resume"

    assert typed(["test", f"run={second}", "query=1"]) == []
    [again] = typed(["compare", first, f"{second}/tests/{next((place / second / 'tests').iterdir()).name}"])
    assert again[0] == "test"
    good(again)


@pytest.mark.slow
def test_a_search_a_doctor_and_an_export(place: Path, typed: Shell) -> None:
    pytest.importorskip("optuna")
    words = ["algo=protonet", "data=folder", f"data.root={ROOT}", *SMALL, "optim.lr=interval(0.001,0.01)"]
    found = typed(["train", "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", *words, "out=s, (1)"])
    test = next(line for line in found if line[0] == "test")
    assert test[1].startswith("run=s, (1)/")
    for line in (test, next(line for line in found if line[0] == "show")):
        good(line)
    for words in (["doctor"], ["export", test[1], "format=torch", "out=o (2).pt2"]):
        assert typed(words) == [], "a new command: run it"
    assert (place / "o (2).pt2").exists()


def test_settings_written_into_a_file_of_any_name(place: Path, typed: Shell) -> None:
    [write] = typed(["train", "experiment=my settings, (1).yaml"])
    assert write == ["config", "to=my settings, (1).yaml"]
    [train] = typed([*write, "data=folder", f"data.root={ROOT}", *SMALL])
    good(["check", *train[1:]])


def test_a_column_of_any_name(place: Path, typed: Shell) -> None:
    with open(place / ROOT / "list.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["the file (raw)", "of (a), b=c", "x, y"])
        table.writerows([f"{name}/{i}.png", name, f"{name}{i % 2}"] for name in "abcdefg" for i in range(6))
    try:
        good(["check", "data=folder", f"data.root={ROOT}", "data.label_column=of (a), b=c", *SMALL])
        good(["check", "data=folder", f"data.root={ROOT}", "data.label_column=2", *SMALL])
    finally:
        (place / ROOT / "list.csv").unlink()


def test_commands_are_put_together_in_one_place() -> None:
    verb = re.compile(rf"\bfsl ({'|'.join(VERBS)}) [^.;\n]*=\0")
    found = []
    for file in Path(fsl_cli.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (str(each.value) if isinstance(each, ast.Constant) else "\0" for each in node.values)
                found += [f"{file.name}:{node.lineno}"] if verb.search("".join(parts)) else []
    assert not found, "text.command puts values into a command line that is shown"
