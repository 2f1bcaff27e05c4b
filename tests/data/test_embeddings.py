"""Embeddings: the files that are read, what is refused, every head on them, and fsl embed, which writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import settings, untrained_run

from fsl_cli import load_run
from fsl_cli.cli import run
from fsl_cli.data.embeddings import as_items, features
from fsl_cli.data.sources.embeddings import embeddings
from fsl_cli.data.store import DataSet
from fsl_cli.data.tasks import Batch
from fsl_cli.errors import UserError
from fsl_cli.experiment.assemble import assemble
from fsl_cli.experiment.method import learner
from fsl_cli.runs.run import Run
from fsl_cli.settings.schema import Image
from fsl_cli.use.predictor import Predictor

WIDTH, EACH, NAMES = 7, 6, ("ash", "box", "elm", "fir", "oak", "yew")
LABELS = np.repeat(NAMES, EACH)
PARTS = np.repeat(["train", "train", "val", "dev", "test", "test"], EACH)
CLOUD = np.random.default_rng(0).normal(size=(len(LABELS), WIDTH)) + 4 * np.repeat(np.eye(6, WIDTH), EACH, 0)
VALUES = CLOUD.astype(np.float32)


def opened(tmp_path: Path, root: Path, **more: Any) -> DataSet:
    return embeddings(str(root), cache=str(tmp_path / "cache"), **more)


def kept(data: DataSet) -> dict[str, Any]:
    store = data.store
    every = features(torch.from_numpy(np.array(store.images)), torch.float32)[:, :, 0, 0].numpy()
    return {name: every[store.starts[c] : store.starts[c + 1]] for c, name in enumerate(store.names)}


def forms(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The same features in every form, with the settings that each needs."""
    order = np.random.default_rng(1).permutation(len(LABELS))
    order = order[np.argsort(LABELS[order], kind="stable")]  # classes stay together, as files of classes have them
    back = np.argsort(np.concatenate([np.flatnonzero(name == LABELS) for name in NAMES]))
    assert (LABELS[back] == LABELS).all() and len(order) == len(back)
    np.savez(folder / "a.npz", embeddings=CLOUD, y=np.repeat(np.arange(6), EACH), class_names=np.array(NAMES))
    np.save(folder / "b.npy", VALUES)
    (folder / "b.csv").write_text("\n".join(["species", *LABELS]))
    np.save(folder / "c.npy", VALUES)
    (folder / "other.tsv").write_text("\n".join(f"{i}\t{name}" for i, name in enumerate(LABELS)))
    for name in NAMES:
        (folder / "d").mkdir(exist_ok=True)
        np.save(folder / "d" / f"{name}.npy", VALUES[name == LABELS])
        (folder / "e" / name).mkdir(parents=True)
        for number, row in enumerate(VALUES[name == LABELS]):
            np.save(folder / "e" / name / f"{number}.npy", row)
    table = {"labels": str(folder / "other.tsv"), "label_column": 2}
    return [
        (folder / "a.npz", {}),
        (folder / "b.npy", {}),
        (folder / "c.npy", table),
        (folder / "d", {}),
        (folder / "e", {}),
    ]


def test_every_form_gives_the_same_features_to_the_bit(tmp_path: Path) -> None:
    for root, more in forms(tmp_path):
        data = opened(tmp_path, root, **more)
        found = kept(data)
        assert list(found) == list(NAMES) and data.items == "embeddings", root
        assert all((found[name] == VALUES[name == LABELS]).all() for name in NAMES), root
        assert [len(data.splits[part].classes) for part in ("train", "val", "test")] == [2, 2, 2]


def test_safetensors_of_half_precision_and_splits_by_number(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    parts = np.repeat([0, 0, 1, 1, 2, 2], EACH)
    tensors = {"features": torch.from_numpy(VALUES).bfloat16(), "labels": torch.from_numpy(np.repeat(range(6), EACH))}
    safetensors.save_file({**tensors, "split": torch.from_numpy(parts)}, tmp_path / "a.safetensors")
    data = opened(tmp_path, tmp_path / "a.safetensors")
    assert (kept(data)["3"] == torch.from_numpy(VALUES[LABELS == "fir"]).bfloat16().float().numpy()).all()
    assert data.splits["test"].classes.tolist() == [4, 5] and data.protocol["split"] == "own"


def test_splits_of_the_file_and_of_a_folder(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", features=VALUES, labels=LABELS, split=PARTS)
    for part in ("train", "val", "test"):
        chosen = np.char.replace(PARTS, "dev", "val") == part
        (tmp_path / "b").mkdir(exist_ok=True)
        np.savez(tmp_path / "b" / f"{part}.npz", x=VALUES[chosen], label=LABELS[chosen])
    one, several = opened(tmp_path, tmp_path / "a.npz"), opened(tmp_path, tmp_path / "b")
    assert one.protocol["split_hash"] == several.protocol["split_hash"] and one.hash == several.hash
    assert [one.store.names[c] for c in one.splits["val"].classes] == ["elm", "fir"]


def test_numbers_come_back_as_they_were() -> None:
    odd = np.array([[1.5, -0.0, 1e-42], [3e38, np.pi, -7]], dtype=np.float64)
    raw = torch.from_numpy(as_items(odd))
    assert raw.shape == (2, 1, 1, 12) and features(raw, torch.float64).shape == (2, 3, 1, 1)
    assert (features(raw, torch.float64).numpy()[..., 0, 0] == odd.astype(np.float32)).all()


def wrong(**changed: Any) -> dict[str, Any]:
    return {"features": VALUES, "labels": LABELS, "split": PARTS, **changed}


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in wrong().items() if name != key}


NAN = np.where(np.arange(len(LABELS))[:, None] == 8, np.nan, VALUES)
HUGE = np.where(np.arange(len(LABELS))[:, None] == 9, 1e300, CLOUD)
ZERO = np.where(np.arange(len(LABELS))[:, None] == 8, 0, VALUES)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (wrong(features=NAN), r"on_error=skip leaves out such rows\):\n  row 8 of .*a.npz is not finite"),
        (wrong(features=HUGE), "row 9 of .* too large for float32"),
        (without("labels"), "has no labels: add an array labels, or a table a.csv"),
        (wrong(labels=LABELS[:-1]), "has no labels"),
        (wrong(labels=np.where(LABELS == "ash", "", LABELS)), "row 0 of .* has no label"),
        (wrong(labels=np.arange(len(LABELS)) / 2), "labels or splits of type float64"),
        (wrong(split=np.repeat(["here"], len(LABELS))), "row 0 of .*: split is 'here': write train, val or test"),
        (wrong(split=np.tile(["train", "test"], len(LABELS) // 2)), "train and test both have ash"),
        (wrong(features=VALUES[None]), r"features of shape \(1, 36, 7\)"),
        ({"one": VALUES, "two": VALUES, "labels": LABELS}, "which are the features"),
        ({"features": VALUES, "labels": LABELS.astype(object)}, "without Python objects"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message):
        opened(tmp_path, tmp_path / "a.npz")
    assert not (tmp_path / "cache").exists()


def test_files_of_several_widths_tables_of_another_length_and_no_file(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        np.save(tmp_path / f"{name}.npy", VALUES[:, : 3 + (number == 2)])
    with pytest.raises(UserError, match=r"elm.npy has features of 4 numbers, .*ash.npy of 3"):
        opened(tmp_path, tmp_path)
    (tmp_path / "ash.csv").write_text("label\n" + "\n".join(LABELS[1:]))
    with pytest.raises(UserError, match=r"ash.csv has 35 rows below its header, and .*ash.npy 36"):
        opened(tmp_path, tmp_path / "ash.npy")
    for root in (tmp_path / "none.npz", tmp_path / "ash.csv"):
        with pytest.raises(UserError, match="does not exist|is no .npz"):
            opened(tmp_path, root)


def test_zeros_are_told_and_left_out_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "a.npz", **wrong(features=ZERO))
    whole = opened(tmp_path, tmp_path / "a.npz")
    assert "1 row, row 8 of a.npz: all zeros: what compares by cosines" in capsys.readouterr().out
    fewer = opened(tmp_path, tmp_path / "a.npz", on_error="skip")
    assert len(whole.store.images) - len(fewer.store.images) == 1 and fewer.left_out == [
        "1 row, row 8 of a.npz: all zeros"
    ]


HEADS = ("protonet", "simpleshot", "rfs", "r2d2", "metaoptnet", "feat", "incontext", "baseline", "maml", "matching")


@pytest.mark.parametrize("algo", HEADS)
def test_every_head_tells_clouds_apart_without_a_network(tmp_path: Path, algo: str) -> None:
    np.savez(tmp_path / "a.npz", **wrong())
    shape = ("way=2", "shot=3", "query=3", "train_way=2", "train_shot=3", "train_query=3")
    words = (f"algo={algo}", "data=embeddings", f"data.root={tmp_path / 'a.npz'}", *shape, "steps=1", "trainer=cpu")
    heads = {"incontext": ("algo.width=16", "algo.code=8", "algo.heads=2", "algo.layers=1")}
    nothing = ("steps=0",) if algo in ("protonet", "simpleshot", "rfs", "metaoptnet", "matching") else ()
    built = assemble(settings([*words, *heads.get(algo, ()), *nothing]), ["train", "test"])
    assert (built.image.channels, built.image.size, built.image.items) == (WIDTH, 1, "embeddings")
    [episodes] = built.episodes.tasks.gather(Batch("test", 0, [0, 1]), torch.device("cpu"))
    assert episodes.query.x.shape == (2, 6, WIDTH, 1, 1)
    with torch.no_grad():
        logits = built.learner.eval().algorithm.adapt(episodes.support)(episodes.query.x)
    assert logits.shape[:2] == (2, 6) and logits.isfinite().all()
    if nothing:
        assert (logits.argmax(-1) == episodes.query.y).all()


def test_a_pair_that_does_not_fit_and_a_run_of_another_width(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **wrong())
    words = ["data=embeddings", f"data.root={tmp_path / 'a.npz'}", "way=2", "query=1", "algo=protonet"]
    with pytest.raises(UserError, match="takes images; .* has embeddings. Type backbone=identity"):
        assemble(settings([*words, "backbone=conv4", "norm=running", "train_way=2", "train_query=1"]))
    with pytest.raises(UserError, match="nothing to train.*backbone=mlp"):
        assemble(settings([*words, "train_way=2", "train_query=1"]))
    other = settings([*words, "steps=0"]).having(image=Image(5, 1, [0.0], [1.0], items="embeddings"))
    with pytest.raises(UserError, match="a has embeddings of 7 numbers, and this run sees 5"):
        assemble(other, ["test"])
    with pytest.raises(UserError, match="has embeddings, of which there is no picture"):
        run(["data", "show", "embeddings", f"root={tmp_path / 'a.npz'}", "way=2"])


def test_fsl_embed_writes_what_the_backbone_makes_and_a_test_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", **wrong())
    data = ["data=embeddings", "data.root=a.npz"]
    run(["embed", "backbone=identity", *data, "out=b.npz"])
    assert "b.npz   36 embeddings of 7 numbers, of 6 classes" in capsys.readouterr().out
    first, again = opened(tmp_path, Path("a.npz")), opened(tmp_path, Path("b.npz"))
    assert first.hash == again.hash and first.protocol == again.protocol
    run(
        ["test", "algo=protonet", "data=embeddings", "data.root=b.npz", "way=2", "query=2", "episodes=9", "trainer=cpu"]
    )
    run(["report", "outputs"])
    assert "2 queries a class, 7 numbers, inductive" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(UserError, match="its weights are random"):
        run(["embed", "backbone=mlp", *data, "out=c.npz"])
    with pytest.raises(UserError, match="Type out=c.npz"):
        run(["embed", "backbone=identity", *data, "out=c.npy"])
    assert not Path("c.npz").exists()


def test_a_runs_embeddings_and_a_run_of_embeddings_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    glyphs = [f"data.{part}_classes=3" for part in ("train", "val", "test")]
    net = ["data=glyphs", *glyphs, "data.drawings=3", "data.size=8", "backbone.filters=4", "backbone.halvings=3"]
    algorithm = untrained_run(tmp_path / "run", "algo=protonet", "norm=running", *net)
    run(["embed", "run=run", "out=made/g.npz"])
    file = np.load("made/g.npz")
    assert file["features"].shape == (27, 4) and str(file["about"]).startswith("run run on glyphs")
    tasks = assemble(load_run("run").run.settings.having(way=2, shot=1, query=1), ["test"]).episodes.tasks
    with torch.no_grad():
        first = algorithm.embed(next(iter(tasks.images("test", torch.device("cpu"))))[None])[0]
    assert np.allclose(file["features"][file["split"] == "test"][:3], first.numpy(), atol=1e-5)

    with pytest.raises(UserError, match="norm=transductive: what is made of an item depends"):
        run(["embed", "run=run", "norm=transductive", "out=no.npz"])
    classify = frozen().adapt(VALUES[LABELS != "yew"], LABELS[LABELS != "yew"].tolist())
    assert classify(VALUES[:3]).argmax(-1).tolist() == [0, 0, 0]
    with pytest.raises(UserError, match="embedding 1 has 6 numbers: give 7"):
        classify(VALUES[:3, :6])


def frozen() -> Predictor:
    """A head on embeddings, as `load_run` has it."""
    words = ["algo=simpleshot", "data=embeddings", "steps=0", "trainer=cpu"]
    seen = Image(WIDTH, 1, [0.0], [1.0], items="embeddings")
    made = settings(words).having(image=seen)
    return Predictor(Run.unwritten(made), learner(made, seen).algorithm.eval(), seen, torch.device("cpu"), False)
