"""Every backbone in conf/backbone, one row each: the same tests for all of them."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import pytest
import torch
from conftest import settings
from test_algorithms import episodes, flat, shift
from torch import Tensor
from torch.func import functional_call, vmap

from fsl_cli.algorithms.inner_loop import Parameters, adapt, sgd
from fsl_cli.algorithms.network import Network
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Examples, task_loss
from fsl_cli.settings.binding import build, part_problems
from fsl_cli.settings.registry import choices
from fsl_cli.settings.schema import Settings

MODES = ("running", "support", "transductive", "group", "none")


class Row(NamedTuple):
    """What is special about a backbone."""

    parameters: int  # at full size, on colour images of 84: the published number, or counted by hand
    features: int  # likewise
    small: tuple[str, ...]  # overrides to make it tiny, and to draw no random numbers
    norms: tuple[str, ...] = MODES
    size: int = 16  # of the tiny one's images
    needs: str = "torch"  # a package
    texts: bool = False  # whether items are code points


ROWS = {
    "conv4": Row(112_832, 1600, ("backbone.filters=[4,6,5,4]",)),
    "mlp": Row((84 * 84 * 3 + 128 + 64) * 256 - 128 * 64 + 64 * 64 + 2 * 512, 64, ("backbone.widths=[6,5]",)),
    "resnet12": Row(12_424_320, 16000, ("backbone.filters=[4,6,5,4]", "backbone.drop_rate=0")),
    "resnet18": Row(11_176_512, 512, ("backbone.filters=[4,6,5]", "backbone.blocks=[1,2,1]", "backbone.stem=3x3")),
    "wrn28_10": Row(36_472_784, 640, ("backbone.filters=3", "backbone.widen=2", "backbone.depth=10")),
    "r2d2": Row(2_603_872, 72576, ("backbone.filters=[4,6,5,4]",)),
    "chars": Row(4093 * 64 + 2 * 33_736 + 128, 64, ("backbone.width=8", "backbone.heads=2"), ("none",), texts=True),
    "torchvision": Row(11_176_512, 512, ("backbone.name=shufflenet_v2_x0_5",), ("running",), 32),
    "timm": Row(11_176_512, 512, ("backbone.name=test_resnet",), ("running",), 32, "timm"),
}
OWN = [name for name, row in ROWS.items() if row.norms == MODES]  # whose blocks are ours
PAIRS = [(name, norm) for name, row in ROWS.items() for norm in row.norms]
every = pytest.mark.parametrize(("name", "norm"), PAIRS)


@cache
def composed(*words: str) -> Settings:
    return settings(words)


def backbone(name: str, norm: str = "running", *words: str, channels: int = 3) -> Backbone:
    pytest.importorskip(ROWS[name].needs)
    torch.manual_seed(0)
    config = composed(f"backbone={name}", *ROWS[name].small, *words)
    built = build(config.backbone.having(norm=norm), channels=1 if ROWS[name].texts else channels, size=ROWS[name].size)
    assert isinstance(built, Backbone)
    for key, value in built.named_buffers():
        if key.endswith("var"):  # of maps as small as an untrained network's, in which they would vanish
            value.fill_(0.3)
    return built


def images(name: str, count: int = 6, channels: int = 3) -> Tensor:
    random = torch.Generator().manual_seed(1)
    size = ROWS[name].size
    if ROWS[name].texts:
        points = torch.randint(1, 0x3000, (2, count, 1, 1, size), generator=random)
        points[:, ::2, ..., -5:] = 0  # some texts are shorter
        return points.to(torch.get_default_dtype())
    return torch.randn(2, count, channels, size, size, generator=random, dtype=torch.float64).to(
        torch.get_default_dtype()
    )


def buffers(built: Backbone) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in built.named_buffers()}


def test_every_backbone_has_a_row() -> None:
    assert set(choices("backbone")) == set(ROWS) | {
        "photos",
        "onnx",
        "pixels",
        "identity",
        "sentences",
        "openclip",
        "causal_chars",  # features of each character: tests/data/test_lm.py
    }  # which come trained: test_photos.py, test_sentences.py, test_openclip.py; and no network


@pytest.mark.parametrize("name", ROWS)
def test_at_full_size_it_has_the_published_number_of_parameters(name: str) -> None:
    pytest.importorskip(ROWS[name].needs)
    with torch.device("meta"):
        node = composed(f"backbone={name}").backbone.having(norm=ROWS[name].norms[0])
        built = build(node, channels=3, size=84)
        item = (1, 1, 84) if ROWS[name].texts else (3, 84, 84)
        assert built(torch.zeros(2, 3, *item)).shape == (2, 3, ROWS[name].features)
    assert sum(parameter.numel() for parameter in built.parameters()) == ROWS[name].parameters
    assert built.out_features == ROWS[name].features


@pytest.mark.parametrize("channels", [1, 3])
@every
def test_features_are_a_flat_view_of_the_map_that_it_names(name: str, norm: str, channels: int) -> None:
    built, x = backbone(name, norm, channels=channels), images(name, channels=channels)
    assert built(x).shape == (2, 6, built.out_features)
    assert math.prod(built.map_shape) == built.out_features


@every
def test_a_query_is_judged_alone_unless_transductive(name: str, norm: str, float64: None) -> None:
    built, x = backbone(name, norm).eval(), images(name, 9)
    support, query = x[:, :4], x[:, 4:]
    together, apart = built(query, support)[:, :2], built(query[:, :2], support)
    assert torch.allclose(together, apart, rtol=1e-9, atol=1e-12) == (norm != "transductive")


@every
def test_both_sets_in_one_pass_are_as_each_on_its_own(name: str, norm: str, float64: None) -> None:
    built, x = backbone(name, norm), images(name, 9)
    support, query = x[:, :4], x[:, 4:]
    built.train(norm != "running")  # whose statistics, in training, are of both sets together
    torch.testing.assert_close(built.joint(support, query), (built(support), built(query, support)))


@every
def test_an_episode_does_not_depend_on_its_neighbours(name: str, norm: str, float64: None) -> None:
    x = images(name)
    together = backbone(name, norm)
    both = together.joint(x[:, :4], x[:, 4:])
    moved = []
    for number in range(2):
        alone = backbone(name, norm)
        found = alone.joint(x[number : number + 1, :4], x[number : number + 1, 4:])
        for one, other in zip(found, both, strict=True):
            torch.testing.assert_close(one[0], other[number])
        moved.append(buffers(alone))
    for key, value in together.named_buffers():
        expected = torch.stack([each[key].double() for each in moved]).mean(0)
        torch.testing.assert_close(value.double(), expected)


@every
def test_training_moves_statistics_and_evaluation_leaves_them_alone(name: str, norm: str) -> None:
    built, x = backbone(name, norm), images(name)
    before = buffers(built)
    built.eval()(x)
    assert all(torch.equal(value, before[key]) for key, value in built.named_buffers())
    built.train()(x)
    assert (norm == "running") == any(not torch.equal(value, before[key]) for key, value in built.named_buffers())


@every
def test_the_gradient_reaches_every_parameter(name: str, norm: str) -> None:
    built, x = backbone(name, norm), images(name, 12)
    with torch.no_grad():
        for parameter in built.parameters():  # libraries begin with zeros here and there
            parameter += 0.1 * torch.randn_like(parameter)
    features = built(x[:, 4:], x[:, :4])
    (features * torch.randn_like(features)).sum().backward()
    for label, parameter in built.named_parameters():
        assert parameter.grad is not None, label
        assert bool(parameter.grad.any()), label


@every
def test_a_frozen_one_stays_as_it_is(name: str, norm: str) -> None:
    built, x = backbone(name, norm, "backbone.frozen=true"), images(name)
    state = {key: value.clone() for key, value in built.state_dict().items()}
    torch.nn.Sequential(built).train()(x)
    assert not any(module.training for module in built.modules())
    assert not any(parameter.requires_grad for parameter in built.parameters())
    assert all(torch.equal(value, state[key]) for key, value in built.state_dict().items())
    torch.testing.assert_close(built(x), backbone(name, norm).eval()(x))  # and as it would have been


def test_frozen_is_true_or_false() -> None:
    node = composed("backbone=conv4").backbone.having(frozen="norm").plain()
    assert list(part_problems("backbone", node, [])) == ["backbone.frozen=norm: must be true or false, not str 'norm'."]


@pytest.mark.parametrize("norm", MODES)
@pytest.mark.parametrize("name", OWN)
def test_an_algorithm_reaches_into_every_block(name: str, norm: str, float64: None) -> None:
    built, x = backbone(name, norm), images(name)
    plain = built.features(x, 4)
    for number, channels in enumerate(built.block_channels):
        seen = []

        def keep(maps: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(maps)
            return maps

        torch.testing.assert_close(built.features(x, 4, {number: keep}), plain)
        assert [maps.shape[:3] for maps in seen] == [(2, 6, channels)]
        scale, beta = torch.rand(channels, 1, 1) + 1, torch.rand(channels, 1, 1).requires_grad_()
        changed = built.features(x, 4, {number: lambda maps, s=scale, b=beta: s * maps + b})
        assert not torch.allclose(changed, plain, rtol=1e-3)
        (gradient,) = torch.autograd.grad(changed.square().sum(), beta)
        assert float(gradient.abs().max()) > 1e-3, "a norm behind it takes the shift back"


@pytest.mark.parametrize("name", [name for name in OWN if name != "mlp"])
def test_images_stay_in_the_memory_format_that_is_faster_on_a_cpu(name: str) -> None:
    built, x = backbone(name, "support"), images(name)
    formats = []

    def look(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        formats.extend(tensor.stride(1) == 1 for tensor in (inputs[0], output, module.weight))

    for module in built.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(look)
    built(x[:, 4:], x[:, :4])
    assert all(formats)


def meta_loss(net: Network, parameters: Parameters, support: Examples, query: Examples) -> Tensor:
    """The query loss of one task after two gradient steps of all parameters."""

    def loss(weights: Parameters, step: int) -> Tensor:
        return task_loss(functional_call(net, weights, (support.x,)), support.y)

    fast = adapt(loss, parameters, set(parameters), 2, sgd(0.1))
    return task_loss(functional_call(net, fast, (query.x, support.x)), query.y)


@pytest.mark.parametrize("norm", MODES[1:])
@pytest.mark.parametrize("name", OWN)
def test_a_meta_gradient_is_right_and_the_same_side_by_side(name: str, norm: str, float64: None) -> None:
    some = episodes()
    net = Network(backbone(name, norm, channels=1), way=3)
    parameters = dict(net.named_parameters())

    def one_by_one() -> Tensor:
        tasks = zip(*some.support, *some.query, strict=True)
        losses = [meta_loss(net, parameters, Examples(*task[:2]), Examples(*task[2:])) for task in tasks]
        return torch.stack(losses).mean()

    gradient = flat(torch.autograd.grad(one_by_one(), list(parameters.values())))
    together = vmap(lambda support, query: meta_loss(net, parameters, support, query))(some.support, some.query).mean()
    side_by_side = flat(torch.autograd.grad(together, list(parameters.values())))
    torch.testing.assert_close(side_by_side, gradient, rtol=1e-9, atol=1e-11)
    direction, values = torch.randn_like(gradient), []
    for sign in (1, -1):
        shift(net, sign * 1e-8 * direction)  # small enough not to step over the kinks of ReLU
        values.append(one_by_one().item())
        shift(net, -sign * 1e-8 * direction)
    measured = (values[0] - values[1]) / 2e-8
    assert measured == pytest.approx(float(gradient @ direction), abs=1e-6 * float(gradient.norm()))
