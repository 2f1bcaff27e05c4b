"""Bad input of every kind: one clear message, exit code 2, no traceback, and nothing half-written left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from http.client import IncompleteRead
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import fsl_cli.data.download
import fsl_cli.data.store
import fsl_cli.experiment.callbacks
import fsl_cli.runs.environment
from fsl_cli.cli import main
from fsl_cli.data.sources import omniglot
from fsl_cli.settings.changed import changed

GLYPHS = ("data.train_classes=30", "data.val_classes=16", "data.test_classes=16", "data.size=16")
EPISODES = ("steps=2", "val_every=1", "val_episodes=2", "episodes=3", "train_query=2", "query=2", "meta_batch=1")
PARTS = ("images_background", "images_evaluation")
SMALL = (*GLYPHS, *EPISODES, "backbone.filters=4", "trainer=cpu")


class Ran(NamedTuple):
    """What a command line came to."""

    code: int
    out: str
    err: str


Fsl = Callable[..., Ran]
Refused = Callable[..., None]


@pytest.fixture
def fsl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fsl:
    """Run a command line in an empty folder with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["fsl", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(fsl: Fsl, tmp_path: Path) -> Refused:
    """Run a command line that must be refused in `lines` lines with each of `says`, leaving nothing."""

    def check(*words: object, says: list[str], lines: int = 1) -> None:
        ran = fsl(*words)
        assert ran.code == 2, ran
        assert "Traceback" not in ran.err, ran.err
        assert ran.err.startswith("fsl: "), ran.err
        assert len(ran.err.splitlines()) == lines, ran.err
        assert not [text for text in says if text not in ran.err], ran.err
        assert not [path for path in tmp_path.glob("outputs/*/*") if path.is_dir()], "a run's folder is left"
        assert not list(tmp_path.glob("cache/fsl/.*")), "a temporary cache folder is left"

    return check


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two real runs of two steps; tests that harm one do so to a copy."""
    base = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        for algo in ("protonet", "maml"):
            patch.setattr(sys, "argv", ["fsl", "train", *SMALL, f"algo={algo}", "data.cache=cache", f"out={base}"])
            main()
    return {algo: next(base.glob(f"{algo}-*/*")) for algo in ("protonet", "maml")}


@pytest.fixture
def copied(trained: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda algo: shutil.copytree(trained[algo], tmp_path / algo)


# ---- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], ["no verb 'trian'", "Did you mean train?"]),
        (["ls", "algos"], ["no group 'algos'", "Did you mean algo?"]),
        (["train", "wya=3"], ["'wya'", "Did you mean way?"]),
        (["check", "wya=3"], ["'wya'", "Did you mean way?"]),
        (["train", "algo=maml", "algo.inner_lrr=1"], ["'algo.inner_lrr'", "Did you mean algo.inner_lr?"]),
        (["train", "algo=mamll"], ["algo=mamll", "Did you mean maml?", "protonet"]),
        (["train", "data=omniglott"], ["data=omniglott", "Did you mean omniglot?", "glyphs"]),
        (["train", "--foo"], ["there is no option --foo"]),
        (["train", "backbone=mlp", "backbone.filters=8"], ["'backbone.filters' is not a setting of backbone=mlp"]),
        (["check", "data=omniglot", "data.root=nowhere"], ["data.root=nowhere: there is no such file"]),
        (["data", "info", "omniglot", "root=nowhere"], ["data.root=nowhere: there is no such file"]),
        (["data", "prepare", "sinusoid"], ["sinusoid is drawn as it is needed"]),
        (["data", "show", "sinusoid"], ["sinusoid is drawn as it is needed"]),
        (["data", "show", "pixels", "of=cub"], ["items of data.of=cub. Type fsl data info cub to"]),
        (["test", "rn=x"], ["Which run?", "Did you mean run?"]),
        (["report", ".", "to=t.csv", "html=true"], ["the page's name must end in .html"]),
        (["train", "data=null"], ["data=null: there is no such data.", "cifar_fs, cub,"]),
        (["train", "-m", "algo=maml,null"], ["algo=null: there is no such algo."]),
        (["check", "optim=3"], ["optim=3: there is no such optim.", "adam"]),
        (["show", "backbone=null"], ["backbone=null: there is no such backbone.", "conv4"]),
        (["train", "protonet"], ["'protonet' is not of the form key=value", "way=5"]),
        (["train", "way=five"], ["way=five", "a whole number", "'five'"]),
        (["train", "way=2.5"], ["way=2.5", "a whole number"]),
        (["train", "algo=maml", "algo.inner_lr=fast"], ["algo.inner_lr=fast", "a number", "'fast'"]),
        (["train", "optim.lr=fast"], ["optim.lr=fast"]),
        (["train", "optim.lr=-1"], ["optim.lr=-1: must be above 0"]),
        (["train", "way=["], ["way=["]),
        (["train", "+trainer.foo=1"], ["trainer.foo", "no such setting"]),
        (["train", "trainer.precision=33"], ["precision", "33"]),
        (["train", "trainer.strategy=foo"], ["strategy", "foo"]),
        (["train", "trainer.accelerator=abacus"], ["accelerator", "abacus"]),
        (["train", "backbone.filters=0"], ["backbone.filters=0"]),
        (["train", "data.size=2"], ["size=2"]),
        (["train", "schedule.kind=step", "schedule.every=0"], ["schedule.every=0"]),
        (["train", "algo=maml", "algo.inner_steps=-1"], ["algo.inner_steps=-1"]),
        (["train", "algo=maml", "algo.frozen='('"], ["MAML", "'frozen': '('"]),
        (["train", "way=1"], ["way=1: with fewer than 2 classes there is nothing to tell apart"]),
        (["train", "algo=maml", "algo.inner_lr=-1"], ["algo.inner_lr=-1: must be above 0"]),
        (["train", "algo=maml", "algo.inner_lr=inf"], ["algo.inner_lr=inf: must be above 0"]),
        (["train", "algo=reptile", "algo.inner_steps=0"], ["algo.inner_steps=0: must be at least 1"]),
        (["train", "algo=metasgd", "algo.inner_lr=[0.1,0]"], ["algo.inner_lr=[0.1, 0]: must be above 0"]),
        (["train", "trainer.gradient_clip_val=-1"], ["trainer.gradient_clip_val=-1: must be above 0"]),
        (["train", "trainer.accelerator=tpu"], ["trainer.accelerator=tpu: must be auto | cpu"]),
        (["train", "trainer.strategy=ddp_spawn"], ["trainer.strategy=ddp_spawn: must be auto | ddp"]),
        (["train", "+trainer.fast_dev_run=true"], ["trainer.fast_dev_run", "no such setting"]),
        (["train", "+trainer.limit_train_batches=0"], ["trainer.limit_train_batches", "no such setting"]),
        (["train", "schedule.kind=step", "schedule.factor=nan"], ["schedule.factor=nan: must be above 0 up to 1"]),
        (["train", *SMALL, "augment.padding=1000"], ["augment.padding=1000", "16 pixels a side"]),
        (["train", "augment.jitter=2"], ["augment.jitter=2: must be from 0 to 1"]),
        (["check", "optim.lr=nan"], ["optim.lr=nan: must be above 0"]),
        (["check", "+optim.betas=[0.9,1.5]"], ["optim.betas=[0.9, 1.5]: must be from 0 and below 1"]),
        (["check", "optim.weight_decay=-0.1"], ["optim.weight_decay=-0.1: must be at least 0"]),
        (["check", f"seed={10**22}"], ["seed=", "at most 19 digits"]),
        (["check", f"seed={2**64}"], ["seed=", "at most 19 digits"]),
        (["check", "backbone=resnet12", "backbone.drop_rate=1"], ["backbone.drop_rate=1: must be from 0 and below 1"]),
        (["check", "data=folder", "data.val_fraction=1.2"], ["data.val_fraction=1.2: must be from 0 and below 1"]),
        (["check", "trust=[1,2]"], ["trust=[1, 2]: must be a list of texts, not"]),
        (["check", "schedule=cosine"], ["Type schedule.kind=cosine."]),
        (["check", "schedule=LinearLR"], ["Type schedule.kind=linear."]),
        (["check", "schedule={a:1}"], ["schedule.NAME=VALUE"]),
        (["check", "augment=flip"], ["Type augment.flip=true"]),
        (["check", "algo=maml", "data=sinusoid", "shot=[1,10]"], ["shot=[1, 10]: ", "Type shot=10"]),
        (["check", "algo=maml", "data=quadratic2d", "train_shot=[1,10]"], ["train_shot=[1, 10]: ", "=10, or data=gp"]),
        (["check", "algo=cnp", "data=gp", "shot=1000000"], ["1,000,0", "5,000 at most", "Type shot=10 query=10"]),
        (["check", "algo=maml", "data=sinusoid", "train_query=all"], ["Type train_query=10"]),
        (["check", "algo=cnp", "data=gp", "data.noise=1e-9"], ["type data.noise=1e-05 or more"]),
        (["train", "trainer.devices=1000", "meta_batch=1000"], ["trainer.devices=1000: this machine has"]),
        (["train", "trainer.accelerator=cpu", "trainer.precision=16-mixed"], ["needs a GPU", "precision=bf16-mixed"]),
        (["train", "hydra.run.dir=/proc/x"], ["hydra.run.dir=/proc/x", "Type out=FOLDER"]),
        (["train", "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=x"], ["n_trials=x: must be a whole number"]),
        (["train", "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=0"], ["n_trials=0: must be a whole number"]),
        (["train", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], ["n_jobs=0: must be a whole number"]),
        (["train", "way=0"], ["way=0: must be at least 1"]),
        (["train", "way=-3"], ["way=-3: must be at least 1"]),
        (["train", "shot=0", "train_shot=1"], ["shot=0: must be at least 1"]),
        (["train", "shot=-1", "train_shot=1"], ["shot=-1: must be at least 0"]),
        (["train", "episodes=0"], ["episodes=0: must be at least 2"]),
        (["train", "algo=maml", "norm=running"], ["norm=running", "norm=support"]),
        (["train", "trainer.devices=2", "meta_batch=3"], ["meta_batch=3", "2 processes", "meta_batch=2"]),
        (["train", "trainer.devices=0"], ["trainer.devices=0", "at least 1"]),
        (["train", "train_way=31"], ["train_way=31 needs 31 classes", "train split of glyphs has 30", "train_way=30"]),
        (["train", "train_shot=19"], ["train_shot=19", "21 images", "has 20", "Try train_query=1"]),
        (["train", "resume=nowhere"], ["nowhere: there is no such folder"]),
        (["train", "resume=nowhere", "way=3"], ["leave out way=3"]),
        (["check", "data=folder", f"data.root={'x' * 300}"], ["xxx…: File name too long. Type another path."]),
        (["check", "data=glyphs", "data.cache=~nobody-of-this-name/x"], ["begins with ~NAME, and there is no such"]),
        (["test", f"run={'x' * 300}"], ["xxx"]),
        (["test"], ["run=FOLDER"]),
        (["test", "outputs/RUN"], ["'outputs/RUN' is not of the form key=value"]),
        (["test", "run=nowhere"], ["nowhere: there is no such folder", "outputs/"]),
        (["test", "run=."], [". holds no run", "config.yaml"]),
    ],
    ids=" ".join,
)
def test_words_that_cannot_be(refused: Refused, words: list[str], says: list[str]) -> None:
    fresh = words[0] == "train" and not any(word.startswith("resume") for word in words)
    refused(words[0], *(SMALL if fresh else ()), *words[1:], says=says)


@pytest.mark.parametrize("words", [["-m", *SMALL], [*SMALL, "-m"]], ids=["first", "last"])
def test_one_wrong_choice_of_a_sweep(refused: Refused, words: list[str]) -> None:
    refused("train", *words, "algo=protonet,mamll", says=["algo=mamll", "Did you mean maml?"])


def test_all_problems_at_once(refused: Refused) -> None:
    says = ["way=five", "shot=0", "episodes=-1", "norm=runing", "algo.inner_lr=fast", "meta_batch=0"]
    refused(
        "train", *SMALL, "algo=maml", "backbone.norm=none", "train_way=5", "train_shot=1", *says, says=says, lines=7
    )
    refused("train", *SMALL, "agol=maml", "wya=3", "backbone=conv5", says=["algo?", "way?", "conv4?"], lines=3)


def test_what_a_part_has_from_the_root_is_told_once(refused: Refused) -> None:
    refused("check", "norm=batch", "steps=-1", says=["norm=batch: must be", "steps=-1: must be"], lines=2)


def test_more_classes_or_images_than_there_are(refused: Refused) -> None:
    says = ["way=20 needs 20 classes", "the val split of glyphs has 16. Try way=16.", "the test split"]
    refused("train", *SMALL, "way=20", says=says, lines=2)
    says = ["shot=10 and query=15 need 25 images", "has 20", "Try query=10."]
    refused("train", *SMALL, "train_shot=1", "shot=10", "query=15", says=says, lines=2)
    refused("train", *SMALL, "way=20", "shot=30", says=["needs 20 classes", "need 32 images"], lines=5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_where_there_is_none(refused: Refused) -> None:
    refused("train", *SMALL, "trainer=gpu", says=["no GPU", "Type trainer=cpu"])


@pytest.mark.parametrize(
    "words", [["trian"], pytest.param(["check", "way=five"], marks=pytest.mark.slow)], ids=" ".join
)
def test_a_real_process(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "fsl_cli", *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("fsl: ")


# ---- data -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Omniglot has two characters of two drawings."""
    monkeypatch.setattr(omniglot, "CHARACTERS", dict.fromkeys(PARTS, 1))
    monkeypatch.setattr(omniglot, "DRAWINGS", 2)


def unpacked(root: Path) -> Path:
    """A tiny Omniglot in the published structure."""
    for part in PARTS:
        folder = root / part / "Greek" / "character01"
        folder.mkdir(parents=True)
        for number in range(2):
            noise = np.random.default_rng(number).integers(0, 2, (105, 105)) > 0
            Image.fromarray(noise).save(folder / f"0001_0{number}.png")
    return root


def zipped(root: Path) -> Path:
    """The same as archives."""
    for part in PARTS:
        shutil.make_archive(str(root / part), "zip", unpacked(root / ".tmp" / part), part)
    shutil.rmtree(root / ".tmp")
    return root


@pytest.mark.parametrize("make", [unpacked, zipped])
def test_the_tiny_omniglot_is_one(few: None, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    found = omniglot._find(make(tmp_path), PARTS)
    assert [omniglot._decode(drawings, 28).shape for drawings in found.values()] == [(2, 1, 28, 28)] * 2


def test_the_tiny_omniglot_is_read_drawing_by_drawing(
    few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} is read too early"))
    omniglot._find(unpacked(tmp_path), PARTS)


def harm(root: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    path = root / name
    path.write_bytes(change(path.read_bytes()))


def flip_in_a_member(archive: bytes) -> bytes:
    """Another byte in the middle of the last member's data; names and directory stay."""
    at = archive.rfind(b"PK\x03\x04") + 120
    return archive[:at] + bytes([archive[at] ^ 0xFF]) + archive[at + 1 :]


ZIP, PNG = "images_evaluation.zip", "images_evaluation/Greek/character01/0001_01.png"


@pytest.mark.parametrize(
    ("make", "name", "change", "says"),
    [
        (zipped, ZIP, lambda whole: whole[: len(whole) // 2], [ZIP, "cannot be read as a zip", "Copy it again"]),
        (zipped, ZIP, lambda whole: b"", [ZIP, "cannot be read as a zip"]),
        (zipped, ZIP, flip_in_a_member, [ZIP, "0001_01.png cannot be read", "download Omniglot again"]),
        (unpacked, PNG, lambda whole: b"hello", [PNG, "not a readable PNG", "download Omniglot again"]),
        (unpacked, PNG, lambda whole: b"", [PNG, "not a readable PNG"]),
        (unpacked, PNG, lambda whole: whole[: len(whole) // 2], [PNG, "not a readable PNG"]),
    ],
    ids=["cut zip", "empty zip", "damaged member", "text", "empty", "cut png"],
)
def test_damaged_omniglot(
    few: None, refused: Refused, tmp_path: Path, make: Any, name: str, change: Callable[[bytes], bytes], says: list[str]
) -> None:
    harm(make(tmp_path / "data"), name, change)
    refused("train", "data=omniglot", f"data.root={tmp_path / 'data'}", says=says)


def test_omniglot_of_another_size(few: None, refused: Refused, tmp_path: Path) -> None:
    Image.new("1", (28, 30)).save(unpacked(tmp_path / "data") / PNG)
    refused("train", "data=omniglot", "data.root=data", says=[PNG, "28 x 30", "105 x 105"])


def test_omniglot_that_is_not_all_there(few: None, refused: Refused, tmp_path: Path) -> None:
    (unpacked(tmp_path / "data") / PNG).unlink()
    refused("train", "data=omniglot", "data.root=data", says=["images_evaluation/Greek/character01 has 1", "data"])
    shutil.rmtree(tmp_path / "data" / "images_evaluation")
    refused("train", "data=omniglot", "data.root=data", says=["Needed are images_background.zip and images_evaluation"])


@pytest.mark.parametrize("data", ["omniglot", "folder"])
def test_a_root_that_is_missing_empty_or_a_file(refused: Refused, tmp_path: Path, data: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for root in ("missing", "empty", "file"):
        lines = 2 if data == "folder" and root == "empty" else 1
        refused(
            "train",
            f"data={data}",
            f"data.root={root}",
            says=[root, "Needed are" if (data, root) == ("omniglot", "empty") else "data.root"],
            lines=lines,
        )
    if data == "folder":
        refused("train", "data=folder", says=["data.root=ROOT"])


def zoo(root: Path) -> Path:
    for name in "abc":
        (root / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(root / name / "1.png")
    return root


def test_a_folder_with_text_for_an_image_or_none(refused: Refused, tmp_path: Path) -> None:
    root = zoo(tmp_path / "zoo")
    (root / "b" / "2.png").write_text("hello")
    refused("train", "data=folder", "data.root=zoo", says=["zoo/b/2.png: it is no image", "Delete"], lines=2)
    (root / "d").mkdir()  # which is left out, and told where it is read
    refused("train", "data=folder", "data.root=zoo", says=["1 of 4 images cannot be read"], lines=2)


@pytest.mark.parametrize("error", [URLError("no route to host"), IncompleteRead(b"")], ids=["none", "cut off"])
def test_no_network_and_no_data(refused: Refused, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def no_network(*words: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(fsl_cli.data.download, "urlopen", no_network)
    says = ["images_background.zip", "https://", str(error), "data.root=FOLDER"]
    refused("train", "data=omniglot", says=says)
    refused(
        "train", "data=omniglot", "data.download=false", says=["data.download=false", "https://", "data.root=FOLDER"]
    )


@pytest.mark.parametrize("content", [b"<html>Please log in</html>", b"PK\x03\x04 cut"])
def test_a_download_that_is_not_the_archive(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(fsl_cli.data.download, "_fetch", lambda url, part: part.write_bytes(content))
    says = ["images_background.zip", "https://", "MD5", "data.root=FOLDER"]
    refused("train", "data=omniglot", says=says)
    assert not list(tmp_path.glob("cache/fsl/downloads/*")), "the wrong file is left"


def change_version(store: Path) -> None:
    about = json.loads((store / "store.json").read_text())
    about["recipe"]["version"] = 0
    (store / "store.json").write_text(json.dumps(about))


def cut(name: str) -> Callable[[Path], None]:
    return lambda store: harm(store, name, lambda whole: whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (change_version, "it has version 0"),
        (cut("images.bin"), "images.bin has"),
        (cut("store.json"), ""),
        (lambda store: (store / "store.json").write_text("[]"), ""),
        (lambda store: (store / "images.bin").unlink(), "images.bin"),
    ],
    ids=["version", "images cut", "json cut", "json of something else", "images gone"],
)
@pytest.mark.parametrize(
    "words",
    [
        ["data", "prepare", "glyphs", *(word.removeprefix("data.") for word in GLYPHS)],
        pytest.param(["train", *SMALL, "test=false", "steps=1"], marks=pytest.mark.slow),
    ],
    ids=["prepare", "train"],
)
def test_an_unusable_cache_is_built_again(
    fsl: Fsl, tmp_path: Path, damage: Callable[[Path], None], reason: str, words: list[str]
) -> None:
    assert fsl(*words).code == 0
    [store] = tmp_path.glob("cache/fsl/glyphs-*")
    damage(store)
    again, then = fsl(*words), fsl(*words)
    assert (again.code, then.code) == (0, 0)
    assert f"{store} cannot be used (" in again.out
    assert reason in again.out
    assert "cannot be used" not in then.out
    assert list(tmp_path.glob("cache/fsl/glyphs-*")) == [store]


# ---- places that cannot be written ----------------------------------------------------------------------------------


def full(*words: object, **more: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("words", [[], ["-m", "seed=0,1"]], ids=["run", "sweep"])
def test_an_output_folder_that_cannot_be_made(refused: Refused, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "file").touch()
    refused("train", *SMALL, *words, "out=file/out", says=["file/out", "cannot be written", "out=FOLDER"])


def test_a_cache_folder_that_cannot_be_made(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for cache in ("file", "file/cache"):
        says = [f"cache folder {cache} cannot be written", "data.cache=FOLDER"]
        refused("train", *SMALL, f"data.cache={cache}", says=says)


def test_a_full_disk_under_the_cache(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsl_cli.data.store, "_write", full)
    refused("train", *SMALL, says=["cache folder", "No space left on device", "data.cache=FOLDER"])


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (os, "replace"),
        (torch, "save"),
        (fsl_cli.experiment.callbacks, "write_table"),
    ],
    ids=["first file", "checkpoint", "table"],
)
def test_a_full_disk_under_the_run(
    fsl: Fsl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    monkeypatch.setattr(module, name, full)
    ran = fsl("train", *SMALL)
    assert ran.code == 2, ran
    assert "Traceback" not in ran.err, ran.err
    assert "No space left on device" in ran.err
    kept = [path for path in tmp_path.glob("outputs/*/*") if path.is_dir()]
    assert all(list(path.glob("checkpoints/*.ckpt")) for path in kept), "a run without a checkpoint is left"
    assert not list(tmp_path.glob("outputs/*/*/**/.*")), "half a file is left"


def test_a_full_disk_when_a_run_is_tested_again(
    refused: Refused, copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied("protonet")
    monkeypatch.setattr(os, "replace", full)
    refused("test", f"run={run}", says=[str(run / "tests"), "No space left on device"])
    assert not [path for path in run.glob("tests/**/*") if path.is_file()], "half a test is left"


def test_a_full_disk_when_a_classifier_is_kept(
    refused: Refused, copied: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left, but for what was there before."""
    run = copied("protonet")
    for number, name in enumerate(("ant", "bee")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("L", (8, 8), number).save(tmp_path / "photos" / name / "1.png")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").touch()
    monkeypatch.setattr(np, "savez", full)
    for place, left in (("shop", None), ("mine", ["letter"])):
        refused("predict", f"run={run}", "support=photos", f"save={place}", says=[place, "No space left on device"])
        found = tmp_path / place
        assert (sorted(path.name for path in found.rglob("*")) if found.exists() else None) == left


def test_a_full_disk_when_a_run_is_resumed(
    refused: Refused, copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied("protonet")
    (run / "result.json").unlink()
    (run / "training.json").unlink()
    (run / "checkpoints" / "last.ckpt").unlink()  # from the beginning
    monkeypatch.setattr(torch, "save", full)
    refused("train", f"resume={run}", says=[str(run), "No space left on device"])


# ---- runs and checkpoints -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["wya=3"], ["'wya' is not a setting of this run", "Did you mean way?"]),
        (["way"], ["'way' is not of the form key=value"]),
        (["way=["], ["way=["]),
        (["way=five"], ["way=five", "a whole number"]),
        (["shot=0"], ["shot=0: must be at least 1"]),
        (["way=20"], ["way=20 needs 20 classes", "the test split of glyphs has 16"]),
        (["shot=19"], ["need 21 images", "has 20"]),
        (["data=omniglott"], ["Did you mean omniglot?"]),
        (["algo=maml"], ["algo=maml: a run keeps its algo", "fsl train algo=maml"]),
        (["choices.algo=maml"], ["'choices.algo' is not a setting"]),
        (["norm=group"], ["trained with norm=running", "norm=running or support or transductive", "train norm=group"]),
        (["backbone.norm=none"], ["norm=none: this run was trained with norm=running"]),
        (
            ["backbone.filters=8"],
            ["best.ckpt does not fit", "convs.0.weight is (4, 1, 3, 3), here (8, 1, 3, 3)", "Leave out what"],
        ),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_a_run_tested_with_what_cannot_be(
    refused: Refused, trained: dict[str, Path], words: list[str], says: list[str]
) -> None:
    run = trained["protonet"]
    refused("test", f"run={run}", *words, says=says)
    assert not (run / "tests").exists()


@pytest.mark.parametrize("way", [3, 7])
def test_maml_tested_with_another_way(refused: Refused, copied: Callable[[str], Path], way: int) -> None:
    run = copied("maml")
    refused("test", f"run={run}", f"way={way}", says=["5 outputs", f"{way} classes", "Type way=5"])
    assert not (run / "tests").exists()


def test_numbers_are_read_as_by_train(fsl: Fsl, copied: Callable[[str], Path]) -> None:
    assert fsl("test", f"run={copied('maml')}", "algo.inner_lr=1e-3").code == 0


def test_a_run_whose_norm_kept_averages_is_tested_without_them(fsl: Fsl, copied: Callable[[str], Path]) -> None:
    """Recipes of RelationNet train with averages, and are tested as the paper too, with the queries' own statistics."""
    run = copied("protonet")
    assert fsl("test", f"run={run}", "norm=transductive").code == 0
    (result,) = run.glob("tests/*/result.json")
    assert json.loads(result.read_text())["inference"] == "transductive"


@pytest.mark.parametrize("key", ["norm", "backbone.norm"])
def test_the_norm_that_is_reported_is_the_one_used(key: str) -> None:
    saved = {"norm": "support", "backbone": {"norm": "support"}}
    assert changed(saved, {key: "transductive"}) == {"norm": "transductive", "backbone": {"norm": "transductive"}}


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def cut_checkpoint(path: Path) -> None:
    harm(path.parent, path.name, lambda whole: whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (Path.unlink, "missing"),
        (cut_checkpoint, "damaged"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_text("hello"), "damaged"),
        (lambda path: torch.save([1, 2], path), "not a checkpoint"),
        (
            lambda path: torch.save({"state_dict": torch.load(path, weights_only=True)["state_dict"]}, path),
            "not a checkpoint",
        ),
        (lambda path: torch.save(Trap(path.parent / "trap"), path), "refused"),
        (lambda path: torch.save({"state_dict": Trap(path.parent / "trap")}, path), "refused"),
    ],
    ids=["missing", "cut", "empty", "text", "a list", "no step", "code", "code inside"],
)
def test_a_bad_checkpoint(
    refused: Refused, copied: Callable[[str], Path], damage: Callable[[Path], None], says: str
) -> None:
    run = copied("protonet")
    damage(run / "checkpoints" / "best.ckpt")
    refused("test", f"run={run}", says=["best.ckpt", says])
    assert not (run / "tests").exists()
    assert not (run / "checkpoints" / "trap").exists()


@pytest.mark.parametrize(
    "damage",
    [cut_checkpoint, lambda path: torch.save([1, 2], path), lambda path: torch.save(Trap(path.parent / "trap"), path)],
    ids=["cut", "a list", "code"],
)
def test_a_bad_checkpoint_to_resume_from(
    refused: Refused, copied: Callable[[str], Path], damage: Callable[[Path], None]
) -> None:
    run = copied("protonet")
    (run / "training.json").unlink()
    damage(run / "checkpoints" / "last.ckpt")
    refused("train", f"resume={run}", says=["last.ckpt"])
    assert not (run / "checkpoints" / "trap").exists()


def test_a_checkpoint_of_another_algorithm(refused: Refused, copied: Callable[[str], Path]) -> None:
    run, other = copied("maml"), copied("protonet")
    shutil.copy(other / "checkpoints" / "best.ckpt", run / "checkpoints" / "best.ckpt")
    refused("test", f"run={run}", says=["best.ckpt does not fit this algorithm", "algorithm.net"])


def test_a_picture_of_an_attack(refused: Refused, copied: Callable[[str], Path]) -> None:
    run = copied("protonet")
    refused("show", "episode", f"run={run}", "attack=fgsm", says=["attack", f"fsl test run={run} attack=fgsm"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "config.yaml cannot be read"),
        ("\0", "config.yaml cannot be read"),
        ("", "not the configuration of a run"),
        ("way: 5", "not the configuration of a run"),
        ("choices: {}", "not the configuration of a run"),
    ],
    ids=["no YAML", "binary", "empty", "other keys", "no choices"],
)
@pytest.mark.parametrize("words", ["test run", "train resume"])
def test_a_folder_that_is_no_run(refused: Refused, tmp_path: Path, words: str, content: str, says: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    verb, key = words.split()
    refused(verb, f"{key}={tmp_path}", says=[says])


TRAPS: dict[str, dict[str, Any]] = {
    "outside": {"_target_": "os.system", "command": "touch trap"},
    "through fsl": {
        "_target_": "fsl_cli.settings.binding.build",
        "node": {"_target_": "os.system", "command": "touch trap"},
    },
    "imported": {"_target_": "fsl_cli.runs.environment.subprocess.run", "args": ["touch", "trap"]},
    "imported there": {
        "_target_": "fsl_cli.data.sources.omniglot.fetch",
        "url": "file:///dev/null",
        "root": "trap",
    },
    "a module": {"_target_": "fsl_cli.runs.environment.subprocess"},
}


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("part", ["data", "algo", "optim"])
@pytest.mark.parametrize("words", ["test run", "train resume"])
def test_the_configuration_of_a_stranger(
    refused: Refused, copied: Callable[[str], Path], tmp_path: Path, words: str, part: str, trap: str
) -> None:
    run = copied("protonet")
    (run / "training.json").unlink()
    values = yaml.safe_load((run / "config.yaml").read_text())
    values |= {part: TRAPS[trap], "trust": ["os", "fsl_cli", "subprocess"]}
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    verb, key = words.split()
    refused(verb, f"{key}={run}", says=[f"{part}: {TRAPS[trap]['_target_']}"])
    assert not (tmp_path / "trap").exists()


def test_resuming_a_finished_run_says_so(fsl: Fsl, trained: dict[str, Path]) -> None:
    run = trained["protonet"]
    ran = fsl("train", f"resume={run}")
    assert ran == (0, f"{run} is finished: nothing to resume. To test it again: fsl test run={run}\n", "")
