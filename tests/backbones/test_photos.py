"""Networks that come trained: backbone=photos, weights from files, ONNX graphs; and what is said of what they saw."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fsl_cli.backbones import onnx as onnx_room
from fsl_cli.backbones import photos as photos_room
from fsl_cli.backbones import timm as timm_room
from fsl_cli.backbones import torchvision as torchvision_room
from fsl_cli.backbones.base import Backbone
from fsl_cli.backbones.pretrained import Pretrained
from fsl_cli.cli import run
from fsl_cli.errors import UserError
from fsl_cli.report.gather import gather
from fsl_cli.report.rows import sections
from fsl_cli.settings.binding import build
from fsl_cli.settings.compose import compose
from fsl_cli.settings.registry import choices
from fsl_cli.settings.schema import part

OWN = ["conv4", "mlp", "r2d2", "resnet12", "resnet18", "wrn28_10"]
TINY = "shufflenet_v2_x0_5"
# the five largest features of `waves` and the sum of all, as efficientnet-lite-pytorch 0.1.0 has them, another code
LARGEST = {600: 5.39362, 61: 5.37724, 71: 5.21521, 462: 5.0541, 674: 4.99677}
SUM = 216.59359741210938


def waves() -> Tensor:
    """An image (1, 1, 3, 224, 224) of -1 to 1 that needs no file."""
    i = torch.arange(224.0)
    red, green, blue = torch.sin(i / 7)[:, None] * torch.cos(i / 11), torch.sin(i / 5)[:, None], (i[:, None] + i) / 13
    return torch.stack([red, green.expand(224, 224), torch.cos(blue)])[None, None]


def photos(size: int = 224, channels: int = 3, **more: int) -> Pretrained:
    pytest.importorskip("timm")
    pytest.importorskip(photos_room.PACKAGE)
    return photos_room.photos(channels, size, "running", **more)


def test_photos_has_the_features_of_the_authors_code() -> None:
    with torch.no_grad():
        features = photos().eval()(waves())[0, 0]
    assert features.shape == (1280,)
    order = features.argsort(descending=True)[: len(LARGEST)].tolist()
    assert order == list(LARGEST)
    torch.testing.assert_close(features[order], torch.tensor(list(LARGEST.values())), rtol=1e-4, atol=1e-4)
    assert float(features.sum()) == pytest.approx(SUM, rel=1e-4)


def test_photos_brings_images_of_any_size_and_grey_ones_to_its_own() -> None:
    built, seen = photos(size=28, channels=1, resize=64), []
    built.net.register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0]))
    assert built.eval()(torch.rand(2, 3, 1, 28, 28)).shape == (2, 3, 1280)
    assert seen[0].shape == (6, 3, 64, 64)
    assert torch.equal(seen[0][:, 0], seen[0][:, 2])


@pytest.mark.parametrize("missing", ["timm", photos_room.PACKAGE])
def test_what_photos_needs_is_told(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=r'is not installed. Type pip install "fsl-cli\[photos\]"'):
        photos_room.photos(3, 84, "running")


def test_photos_is_frozen_unless_told_otherwise() -> None:
    photos()
    for frozen in (True, False):
        node = compose(["backbone=photos", *([] if frozen else ["backbone.frozen=false"])]).values["backbone"]
        built = build(part(node), channels=3, size=84)
        assert frozen != any(parameter.requires_grad for parameter in built.parameters())


# weights from a file


def small(name: str, *words: str) -> Backbone:
    net: Backbone = build(part(compose([f"backbone={name}", *words]).values["backbone"]), channels=3, size=32)
    return net


SMALL = {
    "conv4": ["backbone.filters=[4,6,5,4]"],
    "causal_chars": ["norm=none", "backbone.width=16", "backbone.layers=1"],
    "chars": ["norm=none", "backbone.width=16", "backbone.layers=1"],
    "mlp": ["backbone.widths=[6,5]"],
    "r2d2": ["backbone.filters=[4,6,5,4]"],
    "resnet12": ["backbone.filters=[4,6,5,4]"],
    "resnet18": ["backbone.filters=[4,6,5]", "backbone.blocks=[1,2,1]", "backbone.stem=3x3"],
    "wrn28_10": ["backbone.filters=3", "backbone.widen=2", "backbone.depth=10"],
    "torchvision": [f"backbone.name={TINY}"],
    "timm": ["backbone.name=test_resnet"],
}


def saved(net: nn.Module, seed: int = 7) -> dict[str, Tensor]:
    dice = torch.Generator().manual_seed(seed)
    return {
        key: torch.rand(value.shape, generator=dice) if value.is_floating_point() else value.clone()
        for key, value in net.state_dict().items()
    }


def test_every_backbone_of_torch_takes_weights_from_a_file() -> None:
    assert set(SMALL) == set(choices("backbone")) - {"photos", "onnx", "pixels", "sentences", "identity", "openclip"}, (
        "these come with theirs, or have none"
    )


WRAPPED = ["as they are", "safetensors", "in a checkpoint", "with a classifier"]
WAYS = [  # each backbone in one of the ways, in turn, and one in each; the rest is slow
    pytest.param(name, wrapped, marks=() if name == "conv4" or i % len(WRAPPED) == j else pytest.mark.slow)
    for i, name in enumerate(SMALL)
    for j, wrapped in enumerate(WRAPPED)
]


@pytest.mark.parametrize(("name", "wrapped"), WAYS)
def test_weights_come_from_a_file_however_they_were_saved(name: str, wrapped: str, tmp_path: Path) -> None:
    if name == "timm":
        pytest.importorskip("timm")
    built = small(name, *SMALL[name])
    state = saved(getattr(built, "net", built))
    file = tmp_path / "net.pth"
    if wrapped == "safetensors":
        file = file.with_suffix(".safetensors")
        pytest.importorskip("safetensors.torch").save_file(state, file)
    elif wrapped == "in a checkpoint":
        inside = {f"module.encoder.{key}": value for key, value in state.items()} | {"module.head.bias": torch.ones(3)}
        torch.save({"epoch": 3, "state_dict": inside}, file)
    else:
        torch.save(state | ({"classifier9.bias": torch.ones(9)} if wrapped == "with a classifier" else {}), file)
    filled = small(name, *SMALL[name], f"backbone.weights={file}")
    for key, value in getattr(filled, "net", filled).state_dict().items():
        assert torch.equal(value, state[key]), key
    assert filled.origin == file.name
    assert built.origin == ""


@pytest.mark.parametrize("name", SMALL)
def test_weights_that_do_not_fit_name_the_layers(name: str, tmp_path: Path) -> None:
    if name == "timm":
        pytest.importorskip("timm")
    built = small(name, *SMALL[name])
    state = saved(getattr(built, "net", built))
    keys = [key for key, value in state.items() if value.dim() > 1]
    odd, lost = keys[0], keys[-1]
    del state[lost]
    state[odd] = state[odd][:1, :1]
    extra = f"{odd.partition('.')[0]}.of_another_network"
    state[extra] = torch.ones(1)
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(UserError) as error:
        small(name, *SMALL[name], f"backbone.weights={tmp_path / 'net.pth'}")
    says = str(error.value)
    assert f"{lost} is missing" in says
    assert f"{extra} has no place" in says
    assert f"{odd} is {tuple(state[odd].shape)}, here" in says
    assert "backbone.weights=" in says and "Choose the backbone" in says


class Evil:
    def __reduce__(self) -> Any:
        return print, ("this must never be printed",)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda file: None, "there is no such file"),
        (lambda file: file.write_text("<html>not found</html>"), "is refused: it is damaged, or holds more than data"),
        (lambda file: torch.save({"state_dict": Evil()}, file), "holds more than data and could run code"),
        (lambda file: torch.save({"epoch": 3}, file), "holds no weights, but epoch"),
        (lambda file: torch.save([1, 2], file), "holds no weights, but a list"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused(
    write: Callable[[Path], Any], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.pth"
    write(file)
    with pytest.raises(UserError, match=says):
        small("conv4", *SMALL["conv4"], f"backbone.weights={file}")
    assert "never" not in capsys.readouterr().out


def test_a_damaged_safetensors_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    (tmp_path / "net.safetensors").write_bytes(b"0123456789")
    with pytest.raises(UserError, match="net.safetensors is damaged"):
        small("conv4", *SMALL["conv4"], f"backbone.weights={tmp_path / 'net.safetensors'}")


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_weights_come_from_one_place(name: str) -> None:
    with pytest.raises(UserError, match="choose one of the two"):
        small(name, "backbone.pretrained=true", "backbone.weights=net.pth")


def test_a_file_of_the_whole_network_serves_without_its_classifier(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models")
    library = pytest.importorskip("timm")
    for whole, room, name in (
        (models.get_model("convnext_tiny"), torchvision_room.torchvision, "convnext_tiny"),
        (library.create_model("test_convnext"), timm_room.timm, "test_convnext"),
    ):
        torch.save(whole.state_dict(), tmp_path / f"{name}.pth")
        built = room(3, 64, "running", name, weights=str(tmp_path / f"{name}.pth"))
        assert all(torch.equal(value, whole.state_dict()[key]) for key, value in built.net.state_dict().items())


# transformers of timm, by their authors' names and at another image size


def theirs(state: dict[str, Tensor], author: str) -> dict[str, Tensor]:
    """timm's weights of a ViT, as the files of DINOv2's or CLIP's authors hold them."""
    if author == "dinov2":
        return {"mask_token": torch.zeros(1, 1), **state}
    swaps = [
        ("patch_embed.proj", "conv1"), ("norm_pre", "ln_pre"), ("blocks.", "transformer.resblocks."),
        ("norm1", "ln_1"), ("norm2", "ln_2"), ("attn.qkv.", "attn.in_proj_"), ("attn.proj", "attn.out_proj"),
        ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), ("pos_embed", "positional_embedding"),
        ("cls_token", "class_embedding"),
    ]  # fmt: skip
    found = {"logit_scale": torch.ones(()), "token_embedding.weight": torch.ones(3, 3)}
    for name, value in state.items():
        value = value[0, 0] if name == "cls_token" else value[0] if name == "pos_embed" else value
        name = "ln_post" + name.removeprefix("norm") if name.startswith("norm.") else name
        for own, other in swaps:
            name = name.replace(own, other)
        found[f"visual.{name}"] = value
    return found


@pytest.mark.parametrize(("author", "name"), [("dinov2", "test_vit"), ("clip", "vit_xsmall_patch16_clip_224")])
def test_a_transformers_weights_come_under_their_authors_names(author: str, name: str, tmp_path: Path) -> None:
    library = pytest.importorskip("timm")
    torch.manual_seed(7)
    trained = library.create_model(name, num_classes=0)
    torch.save(theirs(trained.state_dict(), author), tmp_path / "tower.pth")
    size = trained.pretrained_cfg["input_size"][-1]
    built = timm_room.timm(3, size, "running", name, weights=str(tmp_path / "tower.pth"))
    for key, value in built.net.state_dict().items():
        assert torch.equal(value, trained.state_dict()[key]), key


def test_a_transformer_takes_images_that_its_patches_fill(tmp_path: Path) -> None:
    library = pytest.importorskip("timm")
    torch.manual_seed(7)
    trained = library.create_model("test_vit", num_classes=0)  # of images of 160, in patches of 16
    torch.save(trained.state_dict(), tmp_path / "vit.pth")
    built = timm_room.timm(3, 96, "running", "test_vit", weights=str(tmp_path / "vit.pth")).eval()
    x = torch.rand(1, 2, 3, 96, 96)
    trained.eval().set_input_size(img_size=(96, 96))
    torch.testing.assert_close(built(x)[0], trained(x[0]))
    assert built.net.pos_embed.shape[1] == 36 + 1


def test_what_a_translation_cannot_read_is_told(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    torch.save({"patch_embed.proj.weight": torch.ones(3), "cls_token": torch.ones(1)}, tmp_path / "vit.pth")
    with pytest.raises(UserError, match="vit.pth: does not fit timm's network"):
        timm_room.timm(3, 160, "running", "test_vit", weights=str(tmp_path / "vit.pth"))


# graphs


class Mean(nn.Module):
    """The mean of each channel, and twice that."""

    def forward(self, x: Tensor) -> Tensor:
        channels = x.mean((2, 3))
        return torch.cat([channels, 2 * channels], 1)


def graph(file: Path, net: nn.Module | None = None, alone: bool = False, size: int = 32) -> str:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    import warnings

    x = torch.rand(1 if alone else 3, 3, size, size)
    shapes = None if alone else ({0: torch.export.Dim("n")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export((net or Mean()).eval(), (x,), str(file), dynamic_shapes=shapes, verbose=False, dynamo=True)
    return str(file)


@pytest.mark.parametrize("alone", [False, True])
def test_a_graph_gives_the_features_that_it_computes(alone: bool, tmp_path: Path) -> None:
    built = onnx_room.onnx(3, 32, "running", graph(tmp_path / "net.onnx", alone=alone), mean=[0.5], std=[0.25])
    built.pixels = ((0.1,), (0.5,))
    x = torch.rand(2, 4, 3, 32, 32)
    seen = (x * 0.5 + 0.1 - 0.5) / 0.25
    means = seen.mean((3, 4))
    torch.testing.assert_close(built(x), torch.cat([means, 2 * means], -1))
    assert built.out_features == 6
    assert built.origin == "net.onnx"
    assert not built.train().training


def test_a_graph_of_one_size_gets_images_of_it(tmp_path: Path) -> None:
    built = onnx_room.onnx(1, 20, "running", graph(tmp_path / "net.onnx", size=32))
    assert built.resize == 32
    assert built(torch.rand(1, 2, 1, 20, 20)).shape == (1, 2, 6)


def test_a_run_keeps_to_its_graph(tmp_path: Path) -> None:
    first = onnx_room.onnx(3, 32, "running", graph(tmp_path / "a.onnx"))
    other = onnx_room.onnx(
        3, 32, "running", graph(tmp_path / "b.onnx", nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)))
    )
    first.load_state_dict(first.state_dict())
    with pytest.raises(UserError, match=r"b.onnx: is another file than that of the run"):
        other.load_state_dict(first.state_dict())


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (None, "type backbone.file=FILE"),
        (lambda file: None, "cannot be read: No such file"),
        (lambda file: file.write_text("no graph"), "is no ONNX graph"),
        (lambda file: graph(file, nn.Conv2d(3, 4, 3)), "gives maps of shape"),
    ],
)
def test_a_file_that_is_no_graph_of_features_is_refused(write: Any, says: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = tmp_path / "net.onnx"
    if write:
        write(file)
    with pytest.raises(UserError, match=says):
        onnx_room.onnx(3, 32, "running", str(file) if write else None)


# what is said of what they saw

FEW = [
    "algo=protonet", "data.train_classes=12", "data.val_classes=6", "data.test_classes=6", "data.size=32",
    "train_way=5", "query=3", "episodes=4", "val_episodes=2", "trainer=cpu", "backbone=torchvision",
    f"backbone.name={TINY}",
]  # fmt: skip


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


@pytest.fixture
def of_imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Glyphs are classes of ImageNet."""
    from fsl_cli.data.sources import glyphs

    divided = glyphs.divided
    monkeypatch.setattr(glyphs, "divided", lambda *words: divided(*words)._replace(part_of="ImageNet"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's downloads, with the tiny network's weights of ImageNet, so to say."""
    from torchvision import models

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "shufflenetv2_x0.5-f707e7126e.pth"
    file.parent.mkdir(parents=True)
    torch.save(models.get_model(TINY, weights=None).state_dict(), file)
    return file


@pytest.mark.usefixtures("of_imagenet")
def test_every_number_says_that_the_network_has_seen_the_classes(
    hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the result, on the screen, in a later test of the run, with its backbone in another run, and in reports."""
    run(["test", *FEW, "backbone.pretrained=true", f"out={tmp_path / 'out'}"])
    said = capsys.readouterr().out.replace("│", " ").split()
    assert "on weights from ImageNet, which HAS SEEN these classes" in " ".join(said)
    (first,) = (tmp_path / "out").glob("*/*")
    hub.unlink()
    run(["test", f"run={first}", "shot=2"])
    assert "HAS SEEN" in capsys.readouterr().out
    run(["test", *FEW, f"init={first}", f"out={tmp_path / 'next'}"])
    (second,) = (tmp_path / "next").glob("*/*")
    (again,) = (first / "tests").glob("*")
    for folder in (first, again, second):
        assert (result(folder)["pretrained"], result(folder)["seen"]) == ("ImageNet", "yes")
    assert all("HAS SEEN" in section.protocol for section in sections(gather([tmp_path]).tests))


@pytest.mark.usefixtures("of_imagenet")
def test_a_file_may_have_seen_them_and_first_weights_have_not(hub: Path, tmp_path: Path) -> None:
    run(["test", *FEW, f"backbone.weights={hub}", f"out={tmp_path / 'a'}"])
    run(["test", *FEW, f"out={tmp_path / 'b'}"])
    (filled,), (plain,) = (tmp_path / "a").glob("*/*"), (tmp_path / "b").glob("*/*")
    assert (result(filled)["pretrained"], result(filled)["seen"]) == (hub.name, "maybe")
    assert (result(plain)["pretrained"], result(plain)["seen"]) == ("", "")
    found = sections(gather([tmp_path]).tests)
    assert len(found) == 2, "numbers with and without such weights stand in sections of their own"
