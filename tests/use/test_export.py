"""fsl export: graphs that say what the run says."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import untrained_run
from PIL import Image
from torch import Tensor

import fsl_cli.use.export
from fsl_cli import load_run
from fsl_cli.cli import run
from fsl_cli.errors import UserError
from fsl_cli.settings.registry import choices
from fsl_cli.use.export import classifier, embedding, exported
from fsl_cli.use.predictor import FewShotClassifier

SMALL = ("backbone=conv4", "backbone.filters=8", "way=3", "data.size=16")
LABELS = ["ash", "oak", "ash", "elm"]  # unequal shots
NEW = torch.randint(0, 256, (5, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def onnx(content: bytes, images: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


def torch_export(content: bytes, images: Tensor) -> Tensor:
    return torch.export.load(io.BytesIO(content)).module()(images).detach()


CALLS = {"onnx": onnx, "torch": torch_export}


def adapted(folder: Path, *words: str) -> FewShotClassifier:
    """Of a run whose norms have statistics and weights that matter."""

    def trained(algorithm: torch.nn.Module) -> None:
        for _ in range(40):  # running statistics: else the features of first weights vanish
            if hasattr(algorithm, "backbone"):
                algorithm.backbone(torch.rand(1, 16, 1, 16, 16))
        if hasattr(algorithm, "relation"):  # whose scores are nearly the same at first
            algorithm.relation.linear.requires_grad_(False)[0].weight *= 30
            algorithm.relation.linear[2].weight *= 30
            algorithm.relation.linear.requires_grad_(True)

    untrained_run(folder, *words, change=trained)
    support = torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return load_run(folder, device="cpu").adapt_pixels(support, LABELS)


def same(content: bytes, format: str, wanted: Tensor) -> None:
    """For all images together and for one alone; the graph takes what is in the file, over 255."""
    for count in (len(NEW), 1):
        torch.testing.assert_close(CALLS[format](content, NEW[:count] / 255), wanted[:count], atol=1e-4, rtol=1e-3)


def cases() -> list[Any]:
    each = [(name, "norm=support" if name in ("protonet", "relation") else "") for name in choices("algo")]
    more = [("protonet", ""), ("maml", "norm=group"), ("matching", "algo.context=true")]
    slow = pytest.mark.slow
    marks = {("maml", ""): []}
    return [pytest.param(case, marks=marks.get(case, slow), id="-".join(case)) for case in each + more]


@pytest.mark.parametrize("case", cases())
def test_the_classifier_of_every_algorithm(case: tuple[str, str], tmp_path: Path) -> None:
    name, *words = (word for word in case if word)
    classify = adapted(tmp_path / "run", f"algo={name}", *SMALL, *words)
    wanted = classify.of_pixels(NEW)
    assert (wanted - wanted.mean(0)).abs().max() > 1e-3  # it tells the images apart
    content, off = exported(classifier(classify), "torch")
    assert off < 1e-4
    same(content, "torch", wanted)


@pytest.mark.parametrize("case", [pytest.param(case.values[0], marks=pytest.mark.slow, id=case.id) for case in cases()])
def test_onnx_of_every_algorithm(case: tuple[str, str], tmp_path: Path) -> None:
    name, *words = (word for word in case if word)
    classify = adapted(tmp_path / "run", f"algo={name}", *SMALL, *words)
    wanted = classify.of_pixels(NEW)
    same(exported(classifier(classify), "onnx")[0], "onnx", wanted)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet12", "resnet18", "wrn28_10", "mlp", "r2d2", "torchvision", "timm"])
@pytest.mark.parametrize("algo", ["protonet", "maml"])
def test_every_backbone(backbone: str, algo: str, tmp_path: Path) -> None:
    if backbone in ("torchvision", "timm") and algo == "maml":
        pytest.skip("keeps running statistics")
    words = [f"algo={algo}", f"backbone={backbone}", "way=3", "data.size=32"]
    untrained_run(tmp_path / "run", *words)
    images = torch.nn.functional.interpolate(NEW, 32)
    classify = load_run(tmp_path / "run", device="cpu").adapt_pixels(images[:4], LABELS)
    wanted = classify.of_pixels(images)
    content, _ = exported(classifier(classify), "onnx")
    torch.testing.assert_close(onnx(content, images / 255), wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["protonet", "simpleshot", "rfs"])
def test_the_embedding_is_what_the_method_compares_by(name: str, tmp_path: Path) -> None:
    adapted(tmp_path / "run", f"algo={name}", *SMALL)
    loaded = load_run(tmp_path / "run", device="cpu")
    with torch.no_grad():
        wanted = loaded.algorithm.embed(loaded.scaled(NEW).unsqueeze(0)).squeeze(0)
    same(exported(embedding(loaded), "torch")[0], "torch", wanted)


def test_a_graph_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classify = adapted(tmp_path / "run", "algo=maml", *SMALL)
    monkeypatch.setattr(fsl_cli.use.export, "freeze_statistics", lambda net, call: call())

    def off(program: object, graph: object) -> tuple[bytes, object]:
        return b"", lambda x: torch.full((len(x), 3), 0.5)

    monkeypatch.setattr(fsl_cli.use.export, "_torch", off)
    with pytest.raises(UserError, match="differs from the run by"):
        exported(classifier(classify), "torch")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("ash", "oak"):
        (tmp_path / "known" / name).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "known" / name / "1.png")
    return tmp_path / "known"


def test_the_command_writes_one_file_that_says_what_it_takes(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    untrained_run(tmp_path / "run", "algo=protonet", *SMALL)
    out = tmp_path / "new" / "trees.onnx"
    run(["export", f"run={tmp_path / 'run'}", f"support={photos}", f"out={out}"])
    assert "images (n, 1, 16, 16) of 0 to 1 -> probabilities (n, 2)" in capsys.readouterr().out
    assert list(out.parent.iterdir()) == [out]
    about = onnxruntime.InferenceSession(out.read_bytes()).get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == ["ash", "oak"]
    assert (about["size"], about["channels"], about["algorithm"]) == ("16", "1", "protonet")
    assert "grey of 0 to 1" in about["input"]
    run(["export", f"run={tmp_path / 'run'}", "format=torch", f"out={tmp_path / 'e.pt2'}", "--json"])
    said = json.loads(capsys.readouterr().out)
    extra = {"fsl.json": ""}
    torch.export.load(tmp_path / "e.pt2", extra_files=extra)
    assert json.loads(extra["fsl.json"]).items() <= said.items()
    assert said["output"] == "features: (n, 8)"


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untrained_run(tmp_path / "run", "algo=protonet", *SMALL)
    monkeypatch.setattr(fsl_cli.use.export, "exported", lambda graph, format: (b"", 0.0))
    (tmp_path / "taken.onnx").mkdir()
    with pytest.raises(UserError, match=r"taken.onnx cannot be written: .*out=FILE"):
        run(["export", f"run={tmp_path / 'run'}", f"out={tmp_path / 'taken.onnx'}"])


@pytest.mark.parametrize(
    ("algo", "words", "says"),
    [
        ("maml", [], "adapts its network.*support=FOLDER"),
        ("protonet", ["norm=support"], "depends on the support set.*support=FOLDER"),
    ],
)
def test_no_embedding(algo: str, words: list[str], says: str, tmp_path: Path) -> None:
    untrained_run(tmp_path / "run", f"algo={algo}", *SMALL, *words)
    out = tmp_path / "out.onnx"
    with pytest.raises(UserError, match=says):
        run(["export", f"run={tmp_path / 'run'}", f"out={out}"])
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Which run"),
        (["run=x", "format=tflite"], "format=onnx or format=torch"),
        (["run=x", "out=model.pt"], "must end in .onnx"),
        (["run=x", "suport=y"], "Did you mean support"),
    ],
)
def test_words_that_make_no_sense(words: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        run(["export", *words])


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsl_cli.use.export, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(UserError, match=r'needs onnxruntime\. Type pip install "fsl-cli\[export\]"'):
        run(["export", "run=x"])
