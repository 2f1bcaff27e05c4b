"""CAVIA: its context alone adapts, from zero, and modulates as the paper says, in threads and side by side too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from conftest import settings
from test_algorithms import CPU, QUERY, SHOT, WAY, episodes, flat, shift
from torch import Tensor, nn

import fsl_cli.algorithms.over_tasks
from fsl_cli.algorithms.cavia import CAVIA
from fsl_cli.backbones.conv4 import Conv4
from fsl_cli.backbones.mlp import MLP
from fsl_cli.data.sampler import Shape
from fsl_cli.data.sources.sinusoid import sinusoid
from fsl_cli.data.tasks import Batch
from fsl_cli.episodes import Episodes, Examples, task_loss
from fsl_cli.errors import UserError
from fsl_cli.settings.binding import build

CONTEXT = 7


def images(norm: str = "support", inner_lr: float = 1.0, layer: int = 3, first_order: bool = False) -> CAVIA:
    torch.manual_seed(0)
    return CAVIA(Conv4(1, 16, norm, filters=8), WAY, inner_lr, 2, 2, CONTEXT, layer, first_order=first_order)


def curves(inner_steps: int = 1) -> CAVIA:
    torch.manual_seed(0)
    built = CAVIA(MLP(1, 1, "none", [6, 5]), 1, 1.0, inner_steps, inner_steps, 3, layer=1, film=False)
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.5)
    return built


def regression(count: int = 3) -> Episodes:
    [some] = sinusoid().tasks({"train": Shape(1, 4, 5)}).gather(Batch("train", 0, [*range(count)]), CPU)
    return some


def first(examples: Examples) -> Examples:
    return Examples(examples.x[0], examples.y[0])


def test_what_the_paper_sets_comes_without_being_asked_for() -> None:
    values = settings(["algo=cavia", "data=miniimagenet"])
    built = build(values.algo, backbone=build(values.backbone, channels=3, size=84))
    assert built.net.context.shape == (100,) and built.net.enter.weight.shape == (2 * 32, 100)
    assert (built.net.block, built.net.film, built.inner_lr, built.inner_steps, built.test_steps) == (
        2,
        True,
        1.0,
        2,
        2,
    )
    values = settings(["algo=cavia", "data=sinusoid"])
    built = build(values.algo, backbone=build(values.backbone, channels=1, size=1))
    assert built.net.context.shape == (5,) and built.net.enter.weight.shape == (40, 5) and built.net.enter.bias is None
    assert (built.net.block, built.net.film, built.inner_lr, built.inner_steps, built.test_steps) == (
        0,
        False,
        1.0,
        1,
        1,
    )


def test_the_context_alone_adapts_and_is_no_part_of_what_is_learned() -> None:
    built, support = images(), first(episodes().support)
    shared = dict(built.net.named_parameters())
    before = {name: value.clone() for name, value in shared.items()}
    learned = built._learned(built.net, shared, support)
    assert {name for name, value in learned.items() if value is not shared.get(name)} == {"context"}
    assert learned["context"].shape == (CONTEXT,) and learned["context"].abs().min() > 0
    assert all(torch.equal(value, before[name]) for name, value in built.net.named_parameters())
    assert not [name for name in (*shared, *built.state_dict()) if "context" in name]


def test_every_task_begins_at_zero(float64: None) -> None:
    built, some = images(), episodes()
    support = first(some.support)
    context = torch.zeros(CONTEXT, requires_grad=True)
    for _ in range(2):
        loss = F.cross_entropy(by_hand(built, support.x, context), support.y)
        context = context - torch.autograd.grad(loss, context)[0]
    expected = by_hand(built, torch.cat([support.x, some.query.x[0]]), context, len(support.x))
    for _ in range(2):  # nothing is left of the first time
        torch.testing.assert_close(built.adapt(some.support)(some.query.x)[0], expected[len(support.x) :])
        assert not built.net.context.any()


def by_hand(built: CAVIA, x: Tensor, context: Tensor, n_support: int = 0) -> Tensor:
    """conv, norm, pool, FiLM, ReLU: the authors' order, which pooling after FiLM differs from where gamma < 0."""
    net, backbone = built.net, built.net.network.backbone
    gamma, beta = (net.enter.weight @ context + net.enter.bias).view(2, 1, 8, 1, 1)
    assert gamma.min() < 0 < gamma.max()
    for number in range(4):
        x = F.max_pool2d(backbone.norms[number](backbone.convs[number](x)[None], n_support)[0], 2)
        x = (gamma * x + beta if number == net.block else x).relu()
    return net.network.head(x.flatten(1))


@pytest.mark.parametrize("layer", [1, 3, 4])
@pytest.mark.parametrize("norm", ["support", "transductive", "group", "none"])
def test_film_scales_and_shifts_the_channels_of_its_layer(norm: str, layer: int, float64: None) -> None:
    built, x = images(norm, layer=layer), episodes().query.x[0]
    context = torch.randn(CONTEXT)
    modulated = torch.func.functional_call(built.net, {"context": context}, (x,))
    torch.testing.assert_close(modulated, by_hand(built, x, context))


def test_without_film_the_context_is_appended_to_the_input(float64: None) -> None:
    """One step from zero in the authors' network: a first layer on x and context beside each other."""
    built, some = curves(), regression()
    backbone = built.net.network.backbone
    first_weight = torch.cat([backbone.layers[0].weight, built.net.enter.weight], 1)  # (6, 1 + 3)

    def network(x: Tensor, context: Tensor) -> Tensor:
        x = F.linear(torch.cat([x, context.expand(len(x), -1)], 1), first_weight, backbone.layers[0].bias).relu()
        return built.net.network.head(backbone.layers[1](x).relu())

    predicted = built.adapt(some.support)(some.query.x)
    for x, y, query, found in zip(*some.support, some.query.x, predicted, strict=True):
        context = torch.zeros(3, requires_grad=True)
        (gradient,) = torch.autograd.grad(F.mse_loss(network(x, context), y), context)
        torch.testing.assert_close(found, network(query, context - gradient))
        assert not torch.allclose(found, network(query, context))


@pytest.mark.parametrize("norm", ["support", "transductive", "group", "none"])
def test_without_a_step_the_classifier_is_the_network_as_it_is(norm: str) -> None:
    built, some = images(norm, inner_lr=0.0), episodes()
    together = zip(some.query.x, some.support.x, strict=True)
    expected = torch.stack([built.net(x, support) for x, support in together])
    torch.testing.assert_close(built.adapt(some.support)(some.query.x), expected)


def test_regressions_gradient_is_right_and_the_same_side_by_side(
    float64: None, one_by_one: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, some = curves(inner_steps=2), regression()
    parameters = list(built.parameters())
    gradient = flat(torch.autograd.grad(built.loss(some), parameters))
    direction, values = torch.randn_like(gradient), []
    for sign in (1, -1):
        shift(built, sign * 1e-7 * direction)
        values.append(built.loss(some).item())
        shift(built, -sign * 1e-7 * direction)
    assert (values[0] - values[1]) / 2e-7 == pytest.approx(float(gradient @ direction), rel=1e-5)
    monkeypatch.setattr(fsl_cli.algorithms.over_tasks, "_at_once", lambda net, tasks, *_: len(tasks[0][0]))
    torch.testing.assert_close(flat(torch.autograd.grad(built.loss(some), parameters)), gradient, rtol=1e-9, atol=1e-12)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_do_not_see_each_others_context(float64: None, two_threads: None, one_by_one: None) -> None:
    built, some = images(), episodes(6)
    loss = built.loss(some)
    found = flat(torch.autograd.grad(loss, list(built.parameters()))), built.adapt(some.support)(some.query.x)
    torch.set_num_threads(1)
    alone = built.loss(some)
    expected = flat(torch.autograd.grad(alone, list(built.parameters()))), built.adapt(some.support)(some.query.x)
    assert torch.equal(loss, alone)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_first_order_leaves_second_derivatives_out(float64: None) -> None:
    some, gradients = episodes(), []
    for first_order in (True, False):
        built = images(first_order=first_order)
        gradients.append(flat(torch.autograd.grad(built.loss(some), list(built.parameters()))))
    assert (gradients[0] - gradients[1]).norm() > 0.01 * gradients[1].norm()
    support, query = first(some.support), first(some.query)
    built = images(first_order=True)
    shared = dict(built.net.named_parameters())
    context = built._learned(built.net, shared, support)["context"].detach()  # a constant in the outer loss
    loss = task_loss(torch.func.functional_call(built.net, {"context": context}, (query.x, support.x)), query.y)
    alone = episodes(1)
    torch.testing.assert_close(
        flat(torch.autograd.grad(built.loss(alone), list(built.parameters()))),
        flat(torch.autograd.grad(loss, list(built.parameters()))),
    )


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match=r"4 blocks. Type algo.layer=4"):
        images(layer=5)
    with pytest.raises(UserError, match="Type norm=support"):
        images("running")
    wide = Examples(torch.zeros(1, 4 * SHOT, 1, 16, 16), torch.arange(4).repeat(QUERY)[None, : 4 * SHOT])
    with pytest.raises(UserError, match=f"has {WAY} outputs, the episodes have 4 classes"):
        images().adapt(wide)
