"""Networks of torchvision and timm: their features, what they see of an image, and weights that cannot be had."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from conftest import settings
from torch import Tensor
from torchvision import models

from fsl_cli.algorithms.protonet import ProtoNet
from fsl_cli.backbones import timm as timm_room
from fsl_cli.backbones import torchvision as torchvision_room
from fsl_cli.backbones.pretrained import Pretrained
from fsl_cli.errors import UserError
from fsl_cli.experiment.assemble import assemble
from fsl_cli.settings.schema import Image

pytestmark = pytest.mark.slow

FAMILIES = {  # features and size, for each way of ending in a classifier
    "alexnet": (4096, 64),
    "convnext_tiny": (768, 32),
    "densenet121": (1024, 32),
    "googlenet": (1024, 32),
    "inception_v3": (2048, 96),
    "mobilenet_v3_small": (1024, 32),
    "squeezenet1_1": (512, 32),
    "swin_t": (768, 32),
    "vgg11": (4096, 32),
    "vit_b_16": (768, 224),
}
TINY, FILE = "shufflenet_v2_x0_5", "shufflenetv2_x0.5-f707e7126e.pth"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


def torchvision(name: str = TINY, channels: int = 3, size: int = 32, pretrained: bool = False) -> Pretrained:
    torch.manual_seed(0)
    return torchvision_room.torchvision(channels, size, "running", name, pretrained)


def timm(name: str = "test_resnet", channels: int = 3, size: int = 32, pretrained: bool = False) -> Pretrained:
    pytest.importorskip("timm")
    torch.manual_seed(0)
    return timm_room.timm(channels, size, "running", name, pretrained)


def images(channels: int = 3, size: int = 32) -> Tensor:
    return torch.rand(2, 3, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_torchvision_gives_the_vectors_in_front_of_its_classifier(name: str) -> None:
    features, size = FAMILIES[name]
    with torch.device("meta"):
        built = torchvision(name, size=size)
        x = torch.zeros(2, 3, 3, size, size)
        assert built.eval()(x).shape == (2, 3, features)
        if name in ("googlenet", "inception_v3"):  # which have classifiers on the way, in training
            assert built.train()(x).shape == (2, 3, features)
    assert (built.out_features, built.map_shape) == (features, (features, 1, 1))


def test_its_features_are_those_that_torchvision_classifies_by() -> None:
    built, x = torchvision(), images()[:1]
    torch.manual_seed(0)
    whole = models.get_model(TINY, weights=None)
    logits = whole(x[0])  # in training, where norms keep an untrained network's features away from zero
    assert logits.std() > 0.1
    torch.testing.assert_close(whole.fc(built(x))[0], logits)


@pytest.mark.parametrize("channels", [1, 3])
def test_it_sees_colour_at_the_scale_of_its_own_training(channels: int) -> None:
    built, x, seen = torchvision(channels=channels).eval(), images(channels), []  # pixels of 0..1
    built.net.register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0]))
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.3, 0.25, 0.2)[:channels]
    built.pixels = (mean, std)
    built((x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1))
    rgb = x.expand(-1, -1, 3, -1, -1).flatten(0, 1)
    torch.testing.assert_close(seen, [(rgb - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)])


def test_a_run_tells_it_what_its_pixels_were_scaled_by() -> None:
    glyphs = ["data.train_classes=12", "data.val_classes=6", "data.test_classes=6", "train_way=5", "data.size=32"]
    values = settings(["backbone=torchvision", f"backbone.name={TINY}", *glyphs])
    values = values.having(image=Image(1, 32, [0.3], [0.7]))
    algorithm = assemble(values).learner.algorithm
    assert isinstance(algorithm, ProtoNet)
    assert algorithm.backbone.pixels == ([0.3], [0.7])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of torch's downloads, and no network."""

    def urlopen(*_: Any, **__: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", urlopen)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_trained_weights_are_taken_from_where_they_were_put(cache: Path) -> None:
    torch.manual_seed(7)
    trained = models.get_model(TINY, weights=None)
    torch.save(trained.state_dict(), cache / FILE)
    built = torchvision(pretrained=True)
    for name, value in built.net.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name]), name
    assert not torch.equal(torchvision().net.conv1[0].weight, trained.conv1[0].weight)


def test_a_download_that_fails_says_where_it_looked_and_what_to_do(cache: Path) -> None:
    with pytest.raises(UserError) as error:
        torchvision(pretrained=True)
    says = str(error.value)
    assert "weights of torchvision's shufflenet_v2_x0_5 cannot be had" in says
    assert "Name or service not known" in says
    assert str(cache / FILE) in says
    assert f"https://download.pytorch.org/models/{FILE}" in says
    assert "backbone.pretrained=false" in says


def test_a_damaged_file_is_named(cache: Path) -> None:
    (cache / FILE).write_text("<html>Service unavailable</html>")
    with pytest.raises(UserError, match=f"{FILE} is damaged. Delete it"):
        torchvision(pretrained=True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"name": "resnet81"}, "torchvision has no such model. Did you mean resnet18"),
        ({"name": "load_model"}, "no such model"),
        ({"name": "vit_b_16", "size": 28}, "cannot take images of 28 x 28 .* type data.size=224"),
        ({"name": "vgg11", "size": 28}, "type data.size=224"),
        ({"channels": 2}, "1 or 3 channels"),
    ],
)
def test_what_torchvision_cannot_do_is_refused(words: dict[str, Any], says: str) -> None:
    with torch.device("meta"), pytest.raises(UserError, match=says):
        torchvision(**words)


@pytest.mark.parametrize("room", [torchvision_room.torchvision, timm_room.timm])
def test_another_norm_is_refused_with_what_to_type(room: Any) -> None:
    with pytest.raises(
        UserError, match="norm=support: .* Type norm=running; or, for an inner loop, .*backbone=resnet18"
    ):
        room(3, 32, "support")


def test_timm_that_is_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r'timm is not installed. Type pip install "fsl-cli\[timm\]"'):
        timm_room.timm(3, 32, "running")


def test_timms_features_are_those_that_it_classifies_by() -> None:
    built, x = timm(), images()[:1]
    whole = pytest.importorskip("timm").create_model("test_resnet")
    whole.load_state_dict({**whole.state_dict(), **built.net.state_dict()})
    logits = whole(x[0])
    assert logits.std() > 0.01
    torch.testing.assert_close(whole.fc(built(x))[0], logits)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"name": "test_resnat"}, "timm has no such model. Did you mean test_resnet"),
        ({"name": "hf-hub:someone/model"}, "no such model"),
        ({"name": "test_resnet.no_such_tag"}, "timm cannot make it"),
        ({"name": "test_vit", "size": 28}, "cannot take images of 28 x 28 .* type data.size=160"),
    ],
)
def test_what_timm_cannot_do_is_refused(words: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        timm(**words)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of Hugging Face's downloads, and no network."""
    pytest.importorskip("timm")
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_timms_weights_that_cannot_be_had_say_where_it_looked(hub: Path) -> None:
    with pytest.raises(UserError) as error:
        timm(pretrained=True)
    says = str(error.value)
    assert "weights of timm's test_resnet cannot be had" in says
    assert f"Looked for in {hub}, then at the hub, timm/test_resnet.r160_in1k" in says
    assert "backbone.pretrained=false" in says


def test_timms_weights_are_taken_from_where_they_were_put(hub: Path) -> None:
    library, safetensors = pytest.importorskip("timm"), pytest.importorskip("safetensors.torch")
    torch.manual_seed(7)
    trained = library.create_model("test_resnet")
    folder = hub / "models--timm--test_resnet.r160_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    safetensors.save_file(trained.state_dict(), folder / "snapshots" / "abc" / "model.safetensors")
    built = timm(pretrained=True)
    for name, value in built.net.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name]), name


def test_batch_norms_move_as_on_one_episode_at_a_time(float64: None) -> None:
    """Against torch's own batch norm: one step of momentum 0.1 towards the mean of the episodes' statistics."""
    built, x = torchvision(), images().double()
    first = built.net.conv1
    maps = [F.conv2d(episode, first[0].weight, stride=2, padding=1) for episode in x]
    built(x)
    torch.testing.assert_close(first[1].running_mean, 0.1 * torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0))
    expected = 0.9 + 0.1 * torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0)
    torch.testing.assert_close(first[1].running_var, expected)
    assert int(first[1].num_batches_tracked) == 1
