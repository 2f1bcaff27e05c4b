"""fsl predict on vectors: known items, class rows, or rows alone; what is refused; and rows that a text tower makes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fsl_cli import load_run
from fsl_cli.cli import run
from fsl_cli.errors import UserError

WIDTH, CLASSES, EACH = 6, 12, 6
NAMES = np.array([f"class {i:02}" for i in range(CLASSES)])
DICE = np.random.default_rng(0)
ROWS = DICE.normal(size=(CLASSES, WIDTH)).astype(np.float32)
CLEAN = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
VALUES = (np.repeat(CLEAN, EACH, 0) + 0.03 * DICE.normal(size=(CLASSES * EACH, WIDTH))).astype(np.float32)
LABELS = np.repeat(NAMES, EACH)
NEW = np.repeat(np.arange(CLASSES) >= 9, EACH)  # items of the classes that no run has seen
FIRST = np.tile(np.arange(EACH) < 2, CLASSES)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features near class rows, known and new ones of three classes, and three runs: by rows, by both, by items."""
    room = tmp_path_factory.mktemp("vectors")
    split = np.repeat(["train", "val", "test"], [6 * EACH, 3 * EACH, 3 * EACH])
    np.savez(room / "all.npz", features=VALUES, labels=LABELS, split=split, class_rows=ROWS, class_names=NAMES)
    np.savez(room / "known.npz", features=VALUES[NEW & FIRST], labels=LABELS[NEW & FIRST])
    np.savez(room / "new.npz", features=VALUES[NEW & ~FIRST], labels=LABELS[NEW & ~FIRST])
    np.savez(room / "rows.npz", class_rows=ROWS[9:], class_names=NAMES[9:])
    data = ["data=embeddings", f"data.root={room / 'all.npz'}", "trainer=cpu", "way=3", "query=3", "episodes=2"]
    small = ["val_episodes=2", "train_way=6", "train_query=3"]
    run(["train", "algo=zeroshot", *data, *small, "steps=60", "val_every=60", "optim.lr=0.1", f"out={room / 'rows'}"])
    run(["test", "algo=tipadapter", *data, *small, f"out={room / 'both'}"])
    run(["test", "algo=simpleshot", *data, *small, f"out={room / 'items'}"])
    return room


def of(room: Path, name: str) -> Path:
    return next((room / name).glob("*/*"))


def predict(capsys: pytest.CaptureFixture[str], out: Path, *words: object) -> dict[str, Any]:
    capsys.readouterr()
    run(["predict", *map(str, words), f"out={out}", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def shares(found: dict[str, Any]) -> torch.Tensor:
    return torch.tensor([[each["probabilities"][name] for name in NAMES[9:]] for each in found["predictions"]])


@pytest.mark.parametrize(("name", "support", "rows"), [
    ("rows", False, True), ("both", False, True), ("both", True, True), ("items", True, False),
])  # fmt: skip
def test_the_command_and_python_say_the_same_of_vectors(
    room: Path, name: str, support: bool, rows: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"support={room / 'known.npz'}"] * support + [f"class_rows={room / 'rows.npz'}"] * rows
    found = predict(capsys, tmp_path / "out", f"run={of(room, name)}", *words, f"query={room / 'new.npz'}")
    assert found["labelled"] == 12 and found["accuracy"] == 1 and found["classes"] == NAMES[9:].tolist()
    assert found["support"] == 6 * support and found["predictions"][1]["file"] == f"{room / 'new.npz'} row 1"
    known = (VALUES[NEW & FIRST], LABELS[NEW & FIRST].tolist()) if support else ([], [])
    given = dict(zip(NAMES[9:].tolist(), ROWS[9:], strict=True)) if rows else None
    classify = load_run(of(room, name)).adapt(*known, given)
    classify.temperature = found["temperature"]  # of a run that nobody trained, the support set tells it
    torch.testing.assert_close(shares(found), classify(VALUES[NEW & ~FIRST]))
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        assert [row["true"] for row in csv.DictReader(file)] == LABELS[NEW & ~FIRST].tolist()


def test_what_is_kept_takes_its_rows_along(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, known in (("rows", "class_rows=rows.npz"), ("both", "support=with.npz")):
        key, _, file = known.partition("=")
        with_rows = {"class_rows": ROWS[9:], "class_names": NAMES[9:]}
        np.savez(room / "with.npz", features=VALUES[NEW & FIRST], labels=LABELS[NEW & FIRST], **with_rows)
        words = (f"run={of(room, name)}", f"{key}={room / file}", f"save={tmp_path / name}")
        first = predict(capsys, tmp_path / "out", *words, f"query={room / 'new.npz'}")
        again = predict(capsys, tmp_path / "out", f"run={tmp_path / name}", f"query={room / 'new.npz'}")
        assert torch.equal(shares(first), shares(again))
    np.savez(tmp_path / "more.npz", features=VALUES[: 3 * EACH], labels=LABELS[: 3 * EACH])
    with pytest.raises(UserError, match="3 of the 6 classes have no class row: class 00"):
        run(["predict", f"run={tmp_path / 'both'}", f"add={tmp_path / 'more.npz'}"])


def test_without_a_run_vectors_are_taken_as_they_are(
    room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(room)
    np.savez("text.npz", features=CLEAN[9:], labels=NAMES[9:])  # a row a class, as features
    ways = [["support=known.npz"], ["support=known.npz", "algo=rfs", f"save={tmp_path / 'shop'}"]]
    ways += [
        ["class_rows=text.npz", "algo=tipadapter"],
        ["support=known.npz", "class_rows=text.npz", "algo=tipadapter"],
    ]
    for words in ways:
        found = predict(capsys, tmp_path / "out", *words, "query=new.npz")
        assert found["accuracy"] == 1 and found["run"] == "", words
    kept = predict(capsys, tmp_path / "out", f"run={tmp_path / 'shop'}", "query=new.npz")
    assert kept["accuracy"] == 1
    np.savez("narrow.npz", features=np.array([[1, 2], [2, 1]]), labels=np.array(list("ab")))
    with pytest.raises(UserError, match="vectors of 6 numbers are needed"):
        run(["predict", "support=known.npz", "query=narrow.npz"])
    with pytest.raises(UserError, match="algo=maml: needs a run that was trained"):
        run(["predict", "support=known.npz", "query=new.npz", "algo=maml"])


def test_new_vectors_in_every_form(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of classes, of which a file is a vector; a table of labels; several files; one that is broken."""
    for name in NAMES[9:]:
        (tmp_path / "new" / name).mkdir(parents=True)
        for i, vector in enumerate(VALUES[name == LABELS]):
            np.save(tmp_path / "new" / name / f"{i}.npy", vector)
    words = (f"run={of(room, 'items')}", f"support={room / 'known.npz'}")
    found = predict(capsys, tmp_path / "out", *words, f"query={tmp_path / 'new'}")
    assert found["labelled"] == 18 and found["accuracy"] == 1
    assert found["predictions"][0]["file"] == str(tmp_path / "new" / NAMES[9] / "0.npy")
    broken = np.where(np.arange(3)[:, None] == 1, np.nan, VALUES[-3:])
    np.save(tmp_path / "some.npy", broken)
    with pytest.raises(UserError, match=r"on_error=skip leaves out such rows.*\n.*some.npy row 1 is not finite"):
        predict(capsys, tmp_path / "out", *words, f"query={tmp_path / 'some.npy'}")
    found = predict(
        capsys, tmp_path / "out", *words, "on_error=skip", f"query={room / 'new.npz'},{tmp_path / 'some.npy'}"
    )
    assert [len(found["predictions"]), found["labelled"]] == [14, 12]


ROWS_OF = "class_rows=rows.npz"
KNOWN, ASKED = "support=known.npz", "query=new.npz"


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("rows", [ASKED], "knows classes by their rows.*Type class_rows=FILE.npz"),
        ("rows", [KNOWN, ASKED], "support=.*looks at no known items.*Type class_rows=FILE"),
        ("rows", ["class_rows=narrow.npz", ASKED], "The class row of a has 2 numbers, and 6 are needed"),
        ("rows", ["class_rows=none.npz", ASKED], "class_rows=none.npz does not exist. It needs a file of vectors"),
        (
            "rows",
            ["class_rows=empty.npz", ASKED],
            "class_rows=empty.npz: its class rows.*the class row of b.*all zeros",
        ),
        ("rows", [ROWS_OF, "query=narrow.npz"], "vectors of 6 numbers are needed.*narrow.npz has vectors of 2"),
        ("rows", [ROWS_OF, "query=none.npz"], "query=none.npz does not exist.*Type query="),
        ("rows", [ROWS_OF, ASKED, "html=true"], "nothing to see of vectors"),
        (
            "rows",
            ["classes=oak,elm", ASKED],
            "algo=zeroshot backbone=identity makes no class rows of names. Type class_rows=FILE",
        ),
        ("both", [KNOWN, ASKED], "3 of the 3 classes have no class row: class 09, .*class_rows=FILE"),
        ("both", ["support=narrow.npz", ASKED], "support=narrow.npz has embeddings of 2 numbers, and 6 are"),
        ("items", [KNOWN, ROWS_OF, ASKED], "algo=simpleshot does not look at class rows"),
        ("items", [ASKED], "Known embeddings are needed: type support=FILE.npz"),
        ("items", ["support=nothing.npz", ASKED], "support=nothing.npz does not exist"),
        ("items", ["correct=new.csv", KNOWN], "Type add=FILE.npz with right labels"),
    ],
)
def test_what_cannot_be_is_refused(
    room: Path, name: str, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(room)
    np.savez(room / "empty.npz", class_rows=np.eye(3)[[0, 0, 1]] * [[1], [0], [1]], class_names=np.array(list("abc")))
    np.savez(room / "narrow.npz", features=np.array([[1, 2], [2, 1]]), labels=np.array(list("ab")))
    with pytest.raises(UserError, match=f"(?s){message}"):
        run(["predict", f"run={of(room, name)}", *words])
    assert not (room / "predictions").exists()


def test_runs_on_vectors_are_not_exported_and_say_what_to_type(room: Path) -> None:
    pytest.importorskip("onnxscript")
    with pytest.raises(
        UserError, match="sees embeddings: graphs are made for pictures. Type fsl predict .*class_rows="
    ):
        run(["export", f"run={of(room, 'rows')}"])
