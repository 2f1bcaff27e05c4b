"""backbone=openclip with a stand-in for the library: both towers, class rows of names, what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fsl_cli.backbones.openclip import openclip, spoken
from fsl_cli.cli import run
from fsl_cli.errors import UserError

WIDTH, SIZE = 6, 8


class Towers(nn.Module):
    """What OpenCLIP makes: an image tower, and a text tower over letters."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, WIDTH))
        self.letters = nn.EmbeddingBag(256, WIDTH)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.letters(tokens)


def tokenize(texts: list[str]) -> Tensor:
    return torch.tensor([[*text.encode()[:30].ljust(30)] for text in texts])


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in in the library's place, and a file of weights for it."""
    library = ModuleType("open_clip")

    def create_model(name: str, pretrained: str | None = None) -> Towers:
        if pretrained:
            raise RuntimeError("no network here")
        return Towers()

    library.create_model = create_model  # type: ignore[attr-defined]
    library.list_models = lambda: ["ViT-B-32", "RN50"]  # type: ignore[attr-defined]
    library.get_tokenizer = lambda name: tokenize  # type: ignore[attr-defined]
    library.get_model_preprocess_cfg = lambda model: {  # type: ignore[attr-defined]
        "size": (SIZE, SIZE), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25),
    }  # fmt: skip
    monkeypatch.setitem(sys.modules, "open_clip", library)
    torch.manual_seed(1)
    torch.save(Towers().state_dict(), tmp_path / "clip.pt")
    return tmp_path / "clip.pt"


def test_both_towers_and_the_scale_of_pixels(weights: Path) -> None:
    built = openclip(3, SIZE, "running", weights=str(weights)).eval()
    built.pixels = ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    towers = Towers()
    towers.load_state_dict(torch.load(weights, weights_only=True))
    x = torch.rand(1, 2, 3, SIZE, SIZE)
    torch.testing.assert_close(built(x)[0], towers.visual((x[0] - 0.5) / 0.25))
    assert built.out_features == WIDTH and built.origin == "clip.pt"
    several = openclip(3, SIZE, "running", weights=str(weights), templates="a {}. | the {}")
    assert several.of_names is not None
    unit = [
        torch.nn.functional.normalize(towers.encode_text(tokenize([t.format("red fox")])), dim=-1)
        for t in ("a {}.", "the {}")
    ]
    wanted = torch.nn.functional.normalize(sum(unit), dim=-1)  # type: ignore[arg-type]
    torch.testing.assert_close(several.of_names(["animals/012.red_fox"]), wanted.detach())


def test_names_are_spoken() -> None:
    names = {"a/001.Black_footed_Albatross": "Black footed Albatross", "T-shirt": "T shirt", "7": "7", "3_oaks": "oaks"}
    assert {name: spoken(name) for name in names} == names


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"name": "RN51"}, "OpenCLIP has no such model. Did you mean RN50"),
        ({"tag": "openai"}, "weights of OpenCLIP's ViT-B-32, backbone.tag=openai cannot be had: no network here"),
        ({"tag": "openai", "weights": "x"}, "choose one of the two"),
        ({"templates": "a photo"}, "each needs {} once"),
        ({"weights": "none.pt"}, "there is no such file"),
        ({"norm": "support"}, "keeps the normalisation it has"),
    ],
)
def test_what_cannot_be_is_refused(weights: Path, more: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        openclip(3, SIZE, **{"norm": "running", **more})  # type: ignore[arg-type]


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UserError, match=r'pip install "fsl-cli\[openclip\]"'):
        openclip(3, SIZE, "running")


@pytest.fixture
def animals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten folders of three pictures, in the folder where one is."""
    monkeypatch.chdir(tmp_path)
    dice = np.random.default_rng(0)
    for name in ("red_fox", "oak", "elm", "yew", "fir", "ash", "box", "bay", "fig", "gum"):
        Path("animals", name).mkdir(parents=True)
        for number in range(3):
            pixels = dice.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path("animals", name, f"{number}.png"))


def test_pictures_are_told_apart_by_names_alone_and_what_is_kept_knows_them(
    weights: Path, animals: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    words = ["backbone=openclip", f"backbone.weights={weights}", f"backbone.resize={SIZE}", "algo=tipadapter"]
    query = ["query=animals/red_fox", "--json"]
    run(["predict", *words, "classes=red_fox,oak,elm", "save=shop", *query])
    said = capsys.readouterr()
    assert "shop knows 3 classes by their rows." in said.err
    found = json.loads(said.out)["predictions"]
    towers = openclip(3, SIZE, "running", weights=str(weights)).eval()
    towers.pixels = ([0.5] * 3, [0.5] * 3)
    assert towers.of_names is not None
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(each["file"]))) for each in found]).movedim(3, 1) / 255
    with torch.no_grad():
        images = torch.nn.functional.normalize(towers(pixels[None] * 2 - 1)[0], dim=-1)
    wanted = (100 * images @ towers.of_names(["elm", "oak", "red_fox"]).mT).softmax(-1)
    shares = torch.tensor([[*each["probabilities"].values()] for each in found])
    torch.testing.assert_close(shares, wanted, atol=1e-4, rtol=1e-4)
    run(["predict", "run=shop", *query])
    assert json.loads(capsys.readouterr().out)["predictions"] == found
    run(["predict", *words, "support=animals", "query=animals/oak"])  # names of folders
    with pytest.raises(UserError, match="classes=a,b: with support=, the classes are those known there"):
        run(["predict", *words, "support=animals", "classes=a,b", "query=animals"])
    with pytest.raises(UserError, match="10 classes have no class row: .*class_rows=FILE"):
        run(["predict", "run=shop", "add=animals"])  # the text tower is not kept
    with pytest.raises(UserError, match="has no text tower that makes them of names. Type backbone=openclip"):
        run(["predict", "algo=tipadapter", "backbone=conv4", "classes=a,b", "query=animals"])
    with pytest.raises(UserError, match="algo=zeroshot: needs a run that was trained"):
        run(["predict", *words[:3], "algo=zeroshot", "classes=a,b", "query=animals"])


def test_fsl_embed_writes_class_rows_that_a_zero_shot_test_reads(
    weights: Path, animals: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["data=folder", "data.root=animals", f"data.size={SIZE}"]
    run(
        [
            "embed",
            "backbone=openclip",
            f"backbone.weights={weights}",
            "backbone.templates=one, a {}.|{}",
            *data,
            "out=clip.npz",
        ]
    )
    said = capsys.readouterr().out
    assert "of 10 classes, with class rows of 6 numbers" in said and "algo=tipadapter" in said
    file = np.load("clip.npz")
    assert file["class_rows"].shape == (10, WIDTH) and sorted(file["class_names"]) == sorted(set(file["labels"]))
    np.testing.assert_allclose(np.linalg.norm(file["class_rows"], axis=1), 1, rtol=1e-5)
    words = ["data=embeddings", "data.root=clip.npz", "way=2", "shot=0", "query=2", "episodes=4", "trainer=cpu"]
    run(["test", "algo=tipadapter", *words])
    assert "0-shot test accuracy" in capsys.readouterr().out
    with pytest.raises(UserError, match="its weights are random"):
        run(["embed", "backbone=openclip", *data, "out=none.npz"])


@pytest.mark.slow
def test_a_classifier_of_names_is_exported(
    weights: Path, animals: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    words = ["backbone=openclip", f"backbone.weights={weights}", f"backbone.resize={SIZE}", "algo=tipadapter"]
    run(["predict", *words, "classes=red_fox,oak,elm", "save=shop"])
    run(["export", "run=shop", "query=animals/oak"])
    assert "3 of 3 pictures of the query keep their label" in capsys.readouterr().out
    run(["export", *words, "support=animals"])
    assert "logits (n, 10)" in capsys.readouterr().out
