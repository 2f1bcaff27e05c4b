"""fsl export: graphs that say what the run says."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLASSIFIERS, made_by, untrained_run
from PIL import Image
from torch import Tensor

import fsl_cli.use.export
from fsl_cli import load_run
from fsl_cli.backbones.onnx import Graph as Opaque
from fsl_cli.cli import run
from fsl_cli.data.photos import from_image
from fsl_cli.errors import UserError
from fsl_cli.use import export_files
from fsl_cli.use.export import Exported, Graph, classifier, demand_layers, embedding, exported
from fsl_cli.use.export_check import Difference, answers, compared, disagreement
from fsl_cli.use.pictures_in_graph import Squared
from fsl_cli.use.predictor import FewShotClassifier

DOCS = Path(__file__).resolve().parents[2] / "docs"
SMALL = ("backbone=conv4", "backbone.filters=8", "way=3", "data.size=16")
LABELS = ["ash", "oak", "ash", "elm"]  # unequal shots
NEW = torch.randint(0, 256, (5, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def colours(pixels: Tensor) -> Tensor:
    """Grey images (n, 1, H, W) as pictures (n, H, W, 3), which are white where the run sees no ink."""
    return pixels.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous()


def onnx(content: bytes, pictures: Tensor) -> list[Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(each) for each in session.run(None, {"pictures": pictures.numpy()})]


def torch_export(content: bytes, pictures: Tensor) -> list[Tensor]:
    return [each.detach() for each in torch.export.load(io.BytesIO(content)).module()(pictures)]


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


def same(content: bytes, format: str, wanted: Tensor, which: int = 1) -> None:
    """Probabilities, or another output, for all images together and for one alone."""
    for count in (len(NEW), 1):
        found = CALLS[format](content, colours(NEW[:count]))[which]
        torch.testing.assert_close(found, wanted[:count], atol=1e-4, rtol=1e-3)


def export(graph: Graph, format: str = "torch", *others: Any) -> Exported:
    return exported(graph, format, "fp32", [Image.fromarray(image.numpy()) for image in colours(NEW)], *others)


TOGETHER = [name for name in CLASSIFIERS if made_by(name).sees_queries]


@pytest.mark.parametrize("name", TOGETHER)
def test_of_methods_that_see_all_queries_the_embedding_alone_is_exported(name: str, tmp_path: Path) -> None:
    classify = adapted(tmp_path / "run", f"algo={name}", *SMALL)
    with pytest.raises(UserError, match=r"at all queries together, .* Leave support= out"):
        classifier(classify)
    with pytest.raises(UserError, match=r"at all queries together"):  # before it reads the support set, and learns
        run(["export", f"run={tmp_path / 'run'}", "support=nowhere"])
    assert export(embedding(classify.predictor)).difference.relative < 1e-4


UNLEARNED = "algo.test_steps=0 algo.head_init=learned"  # what the start tells apart


def cases() -> list[Any]:
    words = dict.fromkeys(("protonet", "relation"), "norm=support") | {"snail": "train_shot=[1,5]", "l2l": UNLEARNED}
    each = [(name, words.get(name, "")) for name in CLASSIFIERS if name not in TOGETHER]
    more = [("protonet", ""), ("maml", "norm=group"), ("matching", "algo.context=true")]
    slow = pytest.mark.slow
    marks = {("maml", ""): []}
    return [pytest.param(case, marks=marks.get(case, slow), id="-".join(case)) for case in each + more]


@pytest.mark.parametrize("case", cases())
def test_the_classifier_of_every_algorithm(case: tuple[str, str], tmp_path: Path) -> None:
    name, *words = " ".join(case).split()
    classify = adapted(tmp_path / "run", f"algo={name}", *SMALL, *words)
    wanted = classify.of_pixels(NEW)
    assert (wanted - wanted.mean(0)).abs().max() > 1e-5  # it tells the images apart
    made = export(classifier(classify))
    assert made.difference.relative < 1e-4 and made.difference.real == len(NEW)
    same(made.content, "torch", wanted)


@pytest.mark.parametrize("case", [pytest.param(case.values[0], marks=pytest.mark.slow, id=case.id) for case in cases()])
def test_onnx_of_every_algorithm(case: tuple[str, str], tmp_path: Path) -> None:
    name, *words = " ".join(case).split()
    classify = adapted(tmp_path / "run", f"algo={name}", *SMALL, *words)
    wanted = classify.of_pixels(NEW)
    same(export(classifier(classify), "onnx").content, "onnx", wanted)


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
    made = export(classifier(classify), "onnx")
    torch.testing.assert_close(onnx(made.content, colours(images))[1], wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["protonet", "simpleshot", "rfs"])
def test_the_embedding_is_what_the_method_compares_by(name: str, tmp_path: Path) -> None:
    adapted(tmp_path / "run", f"algo={name}", *SMALL)
    loaded = load_run(tmp_path / "run", device="cpu")
    with torch.no_grad():
        wanted = loaded.algorithm.embed(loaded.scaled(NEW).unsqueeze(0)).squeeze(0)
    same(export(embedding(loaded)).content, "torch", wanted, 0)


def test_no_layer_may_differ_by_a_hundredth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer's weights in turn are perturbed after the export."""
    programs: list[Any] = []
    keep = export_files._torch
    monkeypatch.setattr(
        export_files, "_torch", lambda program, about: (programs.append(program), keep(program, about))[1]
    )
    pictures = [Image.fromarray(image.numpy()) for image in colours(NEW)]
    made = exported(classifier(adapted(tmp_path / "run", "algo=protonet", *SMALL)), "torch", "fp32", [], pictures)
    program = programs[0]

    def check() -> Difference:
        module = program.module()
        with torch.no_grad():
            return compared(made.wanted, answers(lambda batch: list(module(batch)), pictures), 0)

    assert check().relative < 1e-5
    layers = [value for value in program.state_dict.values() if value.ndim == 4]
    assert len(layers) == 4
    for weight in layers:
        right = weight.detach().clone()
        with torch.no_grad():
            weight *= 1 + 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        with pytest.raises(UserError, match="differs from the run"):
            check()
        with torch.no_grad():
            weight.copy_(right)


@pytest.mark.parametrize("size", [(40, 1), (84, 3)], ids=str)
def test_pictures_are_cut_and_resized_to_the_same_numbers(size: tuple[int, int]) -> None:
    dice = np.random.default_rng(0)
    for height, width in ((84, 84), (61, 97), (97, 61), (301, 200), (500, 60), (1, 1), (2, 90)):
        pixels = dice.integers(0, 256, (height, width, 3), dtype=np.uint8)
        found = Squared(*size)(torch.from_numpy(pixels)[None])[0] * 255
        assert np.array_equal(found.round().numpy(), from_image(Image.fromarray(pixels), *size))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_smaller_file_says_what_it_costs(precision: str, tmp_path: Path) -> None:
    classify = adapted(tmp_path / "run", "algo=protonet", "backbone=conv4", "way=3", "data.size=16")
    pictures = [Image.fromarray(image.numpy()) for image in colours(NEW)]
    made = exported(classifier(classify), "onnx", precision, pictures, pictures)
    told = disagreement(made.wanted, made.found, [0, 1, 2, None, None])
    assert 0 < told["log_probability_mean"] < (0.1 if precision == "fp16" else 1)
    assert told["same_label"] >= 4 and told["labelled"] == 3
    weights = sum(value.nbytes for value in classify.predictor.algorithm.state_dict().values())
    assert len(made.content) < weights * (0.5 if precision == "fp16" else 0.25) + 200_000  # of the graph itself


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """known/CLASS and new/CLASS, of several sides, modes and formats; one is turned, one is large."""
    rng = np.random.default_rng(0)
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in ("ash", "oak"):
        for folder, mode, end, sides in (
            ("known", "RGB", "png", (20, 30)), ("new", "RGB", "jpg", (150, 97)), ("new", "RGBA", "png", (31, 64)),
            ("new", "L", "jpg", (17, 16)), ("new", "P", "png", (40, 23)),
        ):  # fmt: skip
            spots = Image.fromarray(rng.integers(0, 256, (4, 5, 4), dtype=np.uint8), "RGBA").resize(sides)
            place = tmp_path / folder / name / f"{mode}.{end}"
            place.parent.mkdir(parents=True, exist_ok=True)
            spots.convert("RGB").convert(mode).save(place, **({"exif": turned} if sides == (150, 97) else {}))
            if mode == "RGBA":
                spots.save(place)
    return tmp_path / "known"


def test_the_command_writes_one_file_that_stands_alone(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script of docs/export.md says what fsl predict says."""
    folder, new = tmp_path / "run", tmp_path / "new"
    adapted(folder, "algo=protonet", *SMALL)
    out = tmp_path / "made" / "trees.onnx"
    run(["export", f"run={folder}", f"support={photos}", f"out={out}", f"query={new}"])
    said = capsys.readouterr().out
    assert "pictures (n, height, width, 3) -> logits (n, 2), probabilities (n, 2)" in said
    assert "on 10 random and 2 support pictures" in said and "fp32: 8 of 8 pictures of the query keep" in said
    assert list(out.parent.iterdir()) == [out]

    run(["predict", f"run={folder}", f"support={photos}", f"query={new}", f"out={tmp_path / 'p'}", "--json"])
    wanted = {row["file"]: row["probabilities"] for row in json.loads(capsys.readouterr().out)["predictions"]}
    script = re.search(r"```python\n(.*?)```", (DOCS / "export.md").read_text(), re.DOTALL)
    assert script and len(script[1].splitlines()) <= 16
    monkeypatch.setattr("sys.argv", ["classify.py", str(out), *wanted])
    exec(compile(script[1], "classify.py", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    for line, (name, shares) in zip(lines, wanted.items(), strict=True):
        label, share = max(shares.items(), key=lambda item: item[1])
        assert line.startswith(f"{name} {label} ") and float(line.split()[-1]) == pytest.approx(share, rel=1e-3)

    about = json.loads(json.dumps(onnx_about(out)))
    assert json.loads(about["classes"]) == ["ash", "oak"]
    assert (about["size"], about["channels"], about["algorithm"]) == ("16", "1", "protonet")
    assert about["temperature"] == "1.0" and len(about["weights"]) == 16 and about["run"].endswith("/run")


def onnx_about(path: Path) -> dict[str, str]:
    import onnxruntime

    return dict(onnxruntime.InferenceSession(path.read_bytes()).get_modelmeta().custom_metadata_map)


def test_torch_export_tells_the_same_in_its_extra_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    untrained_run(tmp_path / "run", "algo=protonet", *SMALL)
    run(["export", f"run={tmp_path / 'run'}", "format=torch", f"out={tmp_path / 'e.pt2'}", "--json"])
    said = json.loads(capsys.readouterr().out)
    extra = {"fsl.json": ""}
    torch.export.load(tmp_path / "e.pt2", extra_files=extra)
    assert json.loads(extra["fsl.json"]).items() <= said.items()
    assert said["output"] == {"features": "(n, 8)"} and said["difference"]["random"] == 10


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untrained_run(tmp_path / "run", "algo=protonet", *SMALL)
    monkeypatch.setattr(fsl_cli.use.export, "exported", pytest.fail)  # found out before the work
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
        (["run=x", "format=torch", "precision=int8"], "is for format=onnx"),
        (["run=x", "algo=rfs"], "leave out algo=rfs"),
        (["run=x", "suport=y"], "Did you mean support"),
    ],
)
def test_words_that_make_no_sense(words: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        run(["export", *words])


def test_a_network_that_is_an_onnx_graph_itself_is_refused() -> None:
    network = Opaque.__new__(Opaque)
    torch.nn.Module.__init__(network)
    with pytest.raises(UserError, match=r"backbone=onnx runs outside torch.*fsl predict"):
        demand_layers(torch.nn.Sequential(network))
    demand_layers(torch.nn.Sequential(torch.nn.Linear(1, 1)))


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsl_cli.use.export, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(UserError, match=r'needs onnxruntime\. Type pip install "fsl-cli\[export\]"'):
        run(["export", "run=x"])
