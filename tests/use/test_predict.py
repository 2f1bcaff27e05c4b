"""fsl predict, and the same from Python."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import CLASSIFIERS, untrained_run
from PIL import Image
from torch import nn

from fsl_cli import load_run
from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.simpleshot import SimpleShot
from fsl_cli.cli import run
from fsl_cli.data.sources.glyphs import draw
from fsl_cli.episodes import Examples
from fsl_cli.errors import UserError
from fsl_cli.runs.records import Calibration, write
from fsl_cli.use.from_support import HOW
from fsl_cli.use.known import learn, read_support

SMALL = ("backbone=conv4", "backbone.filters=8", "way=3")
CLASSES = ("ash", "beech", "oak")
SHOTS = (2, 1, 3)  # unequal
NEW = 2  # new pictures of each class


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """known/CLASS and new/CLASS: dark on light, of several sizes, modes and formats."""
    root = tmp_path_factory.mktemp("photos")
    for number, (name, shots) in enumerate(zip(CLASSES, SHOTS, strict=True)):
        for i, ink in enumerate(draw(0, number, shots + NEW, 60)):
            folder = root / ("known" if i < shots else "new") / name
            folder.mkdir(parents=True, exist_ok=True)
            mode, end = (("L", "png"), ("RGB", "jpg"), ("RGBA", "png"), ("P", "bmp"))[(i + number) % 4]
            Image.fromarray(255 - ink[0]).resize((60 + 9 * i, 50 + 7 * number)).convert(mode).save(
                folder / f"{i}.{end}"
            )
    return root


@pytest.fixture(scope="module")
def protonet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "protonet"
    untrained_run(folder, "algo=protonet", *SMALL)
    return folder


def known(photos: Path) -> tuple[list[Path], list[str]]:
    paths = sorted(path for path in (photos / "known").rglob("*.*"))
    return paths, [path.parent.name for path in paths]


def new(photos: Path) -> list[Path]:
    return sorted((photos / "new").rglob("*.*"))


def predict(capsys: pytest.CaptureFixture[str], folder: Path, support: object, query: object, *words: str) -> dict:
    out = folder.parent / "out"
    run(["predict", f"run={folder}", f"support={support}", f"query={query}", f"out={out}", "--json", *words])
    return json.loads(capsys.readouterr().out)


def test_the_command_and_python_say_the_same(
    protonet: Path, photos: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    classify = load_run(protonet).adapt(*known(photos))
    assert classify.classes == list(CLASSES)
    wanted = classify(new(photos))
    found = predict(capsys, protonet, photos / "known", photos / "new")
    assert [row["file"] for row in found["predictions"]] == list(map(str, new(photos)))
    shares = torch.tensor([[row["probabilities"][name] for name in CLASSES] for row in found["predictions"]])
    torch.testing.assert_close(shares, wanted)
    with open(protonet.parent / "out" / "predictions.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["file", "label", *CLASSES, "true", "doubt", "why"]
    torch.testing.assert_close(torch.tensor([[float(cell) for cell in row[2:5]] for row in rows]), wanted)
    assert [row[1] for row in rows] == [CLASSES[i] for i in wanted.argmax(1).tolist()]
    assert [row[5] for row in rows] == [path.parent.name for path in new(photos)]
    right = sum(row[1] == row[5] for row in rows)
    assert (found["accuracy"], found["labelled"]) == (right / len(rows), len(rows))
    assert {name: score["pictures"] for name, score in found["per_class"].items()} == dict.fromkeys(CLASSES, NEW)


def test_support_pictures_among_the_new_are_told(
    protonet: Path, photos: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = [f"run={protonet}", f"support={photos / 'known'}", f"query={photos / 'known'}", f"out={tmp_path / 'out'}"]
    run(["predict", *words])
    count = len(known(photos)[0])
    assert f"{count} of the {count} new pictures are of the support set, such as " in capsys.readouterr().err


def test_pictures_that_are_there_twice_are_told_before_any_is_decoded(
    protonet: Path, photos: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(photos / "known", tmp_path / "known")
    shutil.copytree(photos / "known" / "ash", tmp_path / "new")
    shutil.copyfile(next((photos / "known" / "ash").iterdir()), tmp_path / "known" / "oak" / "again.png")
    (tmp_path / "new" / "broken.png").write_bytes(b"no picture")
    words = [f"run={protonet}", f"support={tmp_path / 'known'}", f"query={tmp_path / 'new'}", f"out={tmp_path / 'out'}"]
    with pytest.raises(UserError, match="broken"):
        run(["predict", *words])
    said = capsys.readouterr().err
    assert "1 picture is in two classes" in said and "2 of the 3 new pictures are of the support set" in said


def test_for_another_task_the_support_set_tells_what_the_run_does_not(
    protonet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the run's data is gone: from three pictures of each class on."""
    monkeypatch.setattr("fsl_cli.use.known.fit", lambda *about: None)
    folder = tmp_path / "run"
    shutil.copytree(protonet, folder)
    write(folder, Calibration(0, 5, 1, "running", 10, 3.0, 1.0, 1.0, 0.1, 0.1))
    for number in range(3):
        for i, ink in enumerate(draw(0, number, 4, 40)):
            (tmp_path / "known" / str(number)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 - ink[0]).save(tmp_path / "known" / str(number) / f"{i}.png")
    run = load_run(folder)
    classify = learn(run, read_support(run, str(tmp_path / "known"), "stop", []))
    assert classify.calibrated == HOW and classify.tells_unknown
    for path in list((tmp_path / "known" / "0").iterdir())[2:]:
        path.unlink()
    classify = learn(run, read_support(run, str(tmp_path / "known"), "stop", []))
    assert (classify.calibrated, classify.temperature) == ("the run's own, 5w1s", 3.0)


def test_images_may_be_open_already(protonet: Path, photos: Path) -> None:
    paths, labels = known(photos)
    classify = load_run(protonet).adapt(paths, labels)
    images = [Image.open(path).convert("RGB") for path in new(photos)]
    arrays = [np.asarray(image) for image in images]
    floats = [torch.from_numpy(array.copy()).permute(2, 0, 1) / 255 for array in arrays]
    for others in (images, arrays, floats):
        torch.testing.assert_close(classify(others), classify(images), atol=1e-3, rtol=0)
    assert classify([]).shape == (0, 3)


def centred(algorithm: Algorithm) -> None:
    if isinstance(algorithm, SimpleShot):
        algorithm.centre += 1.0  # what training found


FAST = ("protonet", "matching", "maml", "simpleshot")  # the others take seconds together


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in CLASSIFIERS]
)
def test_every_algorithm_needs_nothing_but_its_run(name: str, photos: Path, tmp_path: Path) -> None:
    more = {"matching": "algo.context=true", "snail": "train_shot=[1,5]", "l2l": "data.size=28 algo.test_steps=2"}
    words = more.get(name, "").split()
    algorithm = untrained_run(tmp_path / "run", f"algo={name}", *SMALL, *words, change=centred)
    for module in algorithm.modules():  # a transductive run is used with norm=support
        if getattr(module, "norm", getattr(module, "mode", None)) == "transductive":
            setattr(module, "norm" if hasattr(module, "norm") else "mode", "support")
    loaded = load_run(tmp_path / "run")
    paths, labels = known(photos)
    y = torch.tensor([CLASSES.index(label) for label in labels])

    def seen(paths: list[Path]) -> torch.Tensor:
        return ((1 - loaded.pixels(paths) / 255) - 0.3).unsqueeze(0) / 0.5  # ink, mean and std of the run

    with torch.no_grad():
        logits = algorithm.adapt(Examples(seen(paths), y.unsqueeze(0)))(seen(new(photos))).squeeze(0)
    classify = loaded.adapt(paths, labels)
    found = classify(new(photos))
    torch.testing.assert_close(found, logits.softmax(-1), atol=1e-4, rtol=1e-4)
    alone = torch.allclose(classify(new(photos)[:1]), found[:1], atol=1e-4, rtol=1e-4)  # whatever is beside it
    assert alone == (not algorithm.sees_queries)
    again = classify.nearest(loaded.pixels(paths), y.tolist())
    assert again == [(i, i) for i in range(len(paths))]
    assert all(y[own] == 1 for _, own in classify.nearest(loaded.pixels(paths), [1] * len(paths)))


def test_a_zip_a_csv_and_files_say_the_same_as_a_folder(
    protonet: Path, photos: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def table(name: str, rows: list[tuple[str, ...]]) -> Path:
        path = photos / f"{name}.csv"
        path.write_text("\n".join([",".join(("file", "label")[: len(rows[0])]), *map(",".join, rows)]))
        return path

    paths, labels = known(photos)
    support = table("known", [(str(p.relative_to(photos)), name) for p, name in zip(paths, labels, strict=True)])
    query = table("new", [(str(path.relative_to(photos)),) for path in new(photos)])
    archive = tmp_path / "new.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in new(photos):
            packed.write(path, path.relative_to(photos / "new"))
    whole = predict(capsys, protonet, photos / "known", photos / "new")["predictions"]
    for source in (archive, query, photos / "new" / "*" / "*", ",".join(map(str, new(photos)))):
        found = predict(capsys, protonet, support, source)["predictions"]
        for own, other in zip(found, whole, strict=True):
            assert own["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)  # of groups of another size
        assert [row["true"] for row in found] == [row["true"] if source == archive else None for row in whole]


def test_the_page_holds_all_that_it_shows(protonet: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = protonet.parent / "out"
    run(
        [
            "predict",
            f"run={protonet}",
            f"support={photos / 'known'}",
            f"query={photos / 'new'}",
            f"out={out}",
            "html=true",
        ]
    )
    shown = capsys.readouterr().out
    assert "accuracy" in shown and str(out / "predictions.csv") in shown
    page = (out / "predictions.html").read_text()
    assert not re.search(r"https?://|<script", page)
    assert page.count('class="card') == len(new(photos))
    assert set(re.findall(r'src="(.{10})', page)) == {"data:image"}
    assert (out / "confusion.png").read_bytes().startswith(b"\x89PNG")
    predict(capsys, protonet, photos / "known", new(photos)[0])  # whose class nobody says
    assert {path.name for path in out.iterdir()} == {"predictions.csv"}


def test_a_run_may_come_from_a_machine_with_a_gpu_and_data_of_its_own(
    protonet: Path, photos: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(protonet, copy)
    values = yaml.safe_load((copy / "config.yaml").read_text())
    values["trainer"] |= {"accelerator": "gpu", "devices": 8}
    values["data"] = {"_target_": "gone.data", "root": "/gone"}
    (copy / "config.yaml").write_text(yaml.safe_dump(values))
    adapted = (load_run(folder).adapt(*known(photos)) for folder in (copy, protonet))
    one, other = (classify(new(photos)) for classify in adapted)
    assert torch.equal(one, other)


def test_importing_fsl_cli_is_light() -> None:
    code = "import sys, fsl_cli; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Bad:
    """What must be refused in one message, with nothing written."""

    def one_class(self, folder: Path) -> tuple[str, ...]:
        shutil.rmtree(folder / "known" / "ash")
        shutil.rmtree(folder / "known" / "oak")
        return ("1 class", "2 or more")

    def broken_support(self, folder: Path) -> tuple[str, ...]:
        (folder / "known" / "ash" / "x.png").write_text("no picture")
        return (str(folder / "known" / "ash" / "x.png"), "on_error=skip")

    def broken_query(self, folder: Path) -> tuple[str, ...]:
        (folder / "new" / "ash" / "x.png").write_text("no picture")
        return (str(folder / "new" / "ash" / "x.png"), "on_error=skip")

    def no_pictures(self, folder: Path) -> tuple[str, ...]:
        shutil.rmtree(folder / "new")
        (folder / "new").mkdir()
        return (f"query={folder / 'new'} has no pictures",)

    def no_checkpoint(self, folder: Path) -> tuple[str, ...]:
        (folder / "run" / "checkpoints" / "best.ckpt").unlink()
        return ("best.ckpt is missing",)

    def other_checkpoint(self, folder: Path) -> tuple[str, ...]:
        path = folder / "run" / "checkpoints" / "best.ckpt"
        torch.save({"state_dict": nn.Linear(2, 2).state_dict(), "global_step": 1}, path)
        return ("does not fit", "made by fsl 0.0.1")

    def other_settings(self, folder: Path) -> tuple[str, ...]:
        config = folder / "run" / "config.yaml"
        config.write_text(config.read_text() + "new_setting: 1\n")
        return ("new_setting: nothing reads it", "made by fsl 0.0.1")

    def no_room(self, folder: Path) -> tuple[str, ...]:
        (folder / "out").write_text("mine")
        return (f"{folder / 'out'} is no folder that can be written to. Choose another folder with out=FOLDER.",)

    def regression(self, folder: Path) -> tuple[str, ...]:
        config = folder / "run" / "config.yaml"
        point = {"channels": 1, "size": 1, "mean": [0.0], "std": [1.0]}
        config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "image": point}))
        return ("regression",)


def test_what_is_left_out_is_told(
    protonet: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, tmp_path, dirs_exist_ok=True)
    (tmp_path / "known" / "elm").mkdir()
    (tmp_path / "known" / "ash" / "notes.txt").write_text("mine")
    (tmp_path / "new" / "oak" / "raw.heic").write_text("none that can be decoded")
    gif = tmp_path / "new" / "oak" / "moving.gif"
    Image.new("RGB", (8, 8)).save(gif)
    words = {"run": protonet, "support": tmp_path / "known", "query": tmp_path / "new", "out": tmp_path / "out"}
    run(["predict", *(f"{key}={value}" for key, value in words.items()), "--json"])
    out, told = capsys.readouterr()
    assert str(gif) in {row["file"] for row in json.loads(out)["predictions"]}
    for line in (
        f"support: left out: 1 folder, {tmp_path}/known/elm: without pictures.",
        f"support: left out: 1 .txt file, {tmp_path}/known/ash/notes.txt: no pictures.",
        f"query: left out: 1 .heic file, {tmp_path}/new/oak/raw.heic: ",
    ):
        assert line in told


@pytest.mark.parametrize("case", [name for name in vars(Bad) if not name.startswith("_")])
def test_bad_input_is_one_message_and_writes_nothing(case: str, protonet: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path, dirs_exist_ok=True)
    shutil.copytree(protonet, tmp_path / "run")
    says = getattr(Bad(), case)(tmp_path)
    words = {"run": tmp_path / "run", "support": tmp_path / "known", "query": tmp_path / "new", "out": tmp_path / "out"}
    with pytest.raises(UserError) as caught:
        run(["predict", *(f"{key}={value}" for key, value in words.items())])
    for text in says:
        assert text in str(caught.value)
    assert not (tmp_path / "out").is_dir()


def test_a_learned_head_says_how_many_classes_it_takes(photos: Path, tmp_path: Path) -> None:
    untrained_run(tmp_path / "run", "algo=maml", "way=5", "backbone.filters=8")
    with pytest.raises(UserError, match="5 outputs, the episodes have 3 classes.*support set of 5 classes"):
        load_run(tmp_path / "run").adapt(*known(photos))


def test_unreadable_pictures_are_left_out_where_asked(
    protonet: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, tmp_path, dirs_exist_ok=True)
    for place in ("known/ash", "new/ash", "new/oak"):
        (tmp_path / place / "0.jpg").write_text("no picture")
    whole = predict(capsys, protonet, photos / "known", photos / "new")
    found = predict(capsys, protonet, tmp_path / "known", tmp_path / "new", "on_error=skip")
    assert [line.split(": ")[0] for line in found["skipped"]] == [
        str(tmp_path / place / "0.jpg") for place in ("known/ash", "new/ash", "new/oak")
    ]
    for own, other in zip(found["predictions"], whole["predictions"], strict=True):
        assert Path(own["file"]).name == Path(other["file"]).name
        assert own["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)  # of groups of another size


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "support=FOLDER"),
        (["run=x", "support=y"], "query=FOLDER"),
        (["run=x", "suport=y"], "Did you mean support"),
        (["run=x", "support=y", "query=z", "html=yes"], "html=true"),
        (["run=x", "support=y", "query=z", "on_error=ignore"], "stop or on_error=skip"),
        (["run=nowhere", "support=y", "query=z"], "there is no such folder"),
    ],
)
def test_words_that_make_no_sense(words: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        run(["predict", *words])
