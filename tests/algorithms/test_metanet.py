"""Meta networks: augmented layers, fast weights read by attention, and gradients that count as numbers."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from conftest import Pixels
from test_algorithms import accuracy, episodes
from torch import Tensor, nn

from fsl_cli.algorithms.metanet import MetaNet, _gradients, _Net
from fsl_cli.algorithms.size_and_sign import size_and_sign
from fsl_cli.backbones import pixels
from fsl_cli.episodes import Examples, task_loss
from fsl_cli.errors import UserError

pytestmark = pytest.mark.usefixtures("float64")
WAY = 3


def built(**more: object) -> MetaNet:
    torch.manual_seed(0)
    sizes: dict[str, object] = {"filters": 4, "blocks": 2, "hidden": 5, "units": 3} | more
    return MetaNet(Pixels(1, 5, 5), WAY, **sizes)  # type: ignore[arg-type]


def task(shot: int = 2) -> tuple[Examples, Tensor]:
    torch.manual_seed(1)
    return Examples(torch.rand(1, WAY * shot, 1, 5, 5), torch.arange(WAY).repeat(1, shot)), torch.rand(1, 4, 1, 5, 5)


def augmented(net: _Net, x: Tensor, fast: dict[str, Tensor]) -> Tensor:
    """One image (1, C, H, W) by slow and fast weights, layer by layer; the last sums what is in front of activations.

    That is the layer of logits; where it has no fast weights, the hidden one, which then gives a key.
    """
    for number, (conv, norm) in enumerate(zip(net.convs, net.norms, strict=True)):
        slow = norm(F.conv2d(x, conv.weight, padding=1)[None], 0)[0].relu()
        quick = norm(F.conv2d(x, fast[f"convs.{number}.weight"], padding=1)[None], 0)[0].relu()
        x = F.max_pool2d(slow + quick, 2, ceil_mode=True)
    x = x.flatten(1)
    layer, quick = x @ net.hidden.weight.T, x @ fast["hidden.weight"].T
    if "head.weight" not in fast:
        return layer + quick
    return (layer.relu() + quick.relu()) @ (net.head.weight + fast["head.weight"]).T


def test_a_query_has_the_mean_of_the_examples_fast_weights_by_its_own_attention() -> None:
    model, (support, x) = built(), task()
    memory = model.net.learn(Examples(support.x[0], support.y[0]))
    keys = torch.cat([augmented(model.net.key, image[None], memory.task) for image in support.x[0]])
    for query in range(4):
        key = augmented(model.net.key, x[0, query : query + 1], memory.task)
        attention = F.cosine_similarity(key, keys).softmax(0)
        fast = {name: torch.tensordot(attention, value, 1) for name, value in memory.examples.items()}
        expected = augmented(model.net.base, x[0, query : query + 1], fast)[0]
        torch.testing.assert_close(model.adapt(support)(x)[0, query], expected)


def test_where_generators_say_nothing_the_slow_network_and_activations_of_nothing_are_left() -> None:
    model, (support, x) = built(norm="none"), task()
    for generators in (model.net.of_task, model.net.of_example):
        for name, parameter in generators.named_parameters():
            if ".leave." in name or ".4." in name:
                nn.init.zeros_(parameter)
    torch.testing.assert_close(model.adapt(support)(x)[0], model.net.base(x[0]))  # relu(0) is 0


def test_no_gradient_makes_no_fast_weight_at_first() -> None:
    net, nothing = built(chunks=4).net, torch.zeros(2)
    for kind in ("convs", "full"):
        assert net.of_task[kind]([nothing] * 4).abs().max() < 1e-12
        assert net.of_example[kind](size_and_sign(nothing, 7)).abs().max() < 1e-12


def test_gradients_of_one_layer_by_hand_and_without_a_graph() -> None:
    net, x, y = built().net.base, torch.rand(1, 1, 5, 5), torch.tensor([2])
    hidden = net.hidden(net._convolutions(x, None, None)).relu()
    error = net(x).softmax(1) - F.one_hot(y, WAY)
    found = _gradients(net, x, y)
    torch.testing.assert_close(found["head.weight"], error.T @ hidden)
    assert set(found) == {"convs.0.weight", "convs.1.weight", "hidden.weight", "head.weight"}
    assert not any(value.requires_grad for value in found.values())


def test_what_a_gradient_is_read_as() -> None:
    e = torch.e
    found = size_and_sign(torch.tensor([e**-3.5, -1.0, e**-7, -(e**-8), 0.0]), 7)
    expected = torch.tensor([[-0.5, 1], [0, -1], [-1, 1], [-1, -1 / e], [-1, 0]])
    torch.testing.assert_close(found, expected)


def test_order_matters_between_chunks_alone() -> None:
    model, (support, x) = built(chunks=2), task()
    before = model.adapt(support)(x)
    for order, same in (([2, 0, 1, 4, 5, 3], True), ([3, 1, 2, 0, 4, 5], False)):
        moved = Examples(support.x[:, order], support.y[:, order])
        assert torch.allclose(model.adapt(moved)(x), before, rtol=1e-10) == same


def test_the_outer_gradient_is_that_of_finite_differences_where_gradients_are_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, (support, x), y = built(), task(), torch.tensor([[0, 1, 2, 1]])
    with torch.no_grad():  # away from the start, where some fast weights are 0, at the kinks of ReLU
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    before = deepcopy(model.net)

    def as_before(net: _Net, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return _gradients(before.key if net is model.net.key else before.base, x, y)

    monkeypatch.setattr("fsl_cli.algorithms.metanet._gradients", as_before)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradient = torch.autograd.grad(task_loss(model.adapt(support)(x), y), parameters)
    directions, values = [torch.randn_like(parameter) for parameter in parameters], []
    for step in (1e-8, -2e-8):  # forth, and back beyond where it was
        torch._foreach_add_([parameter.data for parameter in parameters], directions, alpha=step)
        values.append(task_loss(model.adapt(support)(x), y).item())
    along = sum((g * d).sum().item() for g, d in zip(gradient, directions, strict=True))
    assert (values[0] - values[1]) / 2e-8 == pytest.approx(along, rel=1e-5)


def test_norms_over_several_images_are_refused() -> None:
    backbone = Pixels(1, 5, 5)
    backbone.norm = "support"
    with pytest.raises(UserError, match="each is read alone. Type norm=none"):
        MetaNet(backbone, WAY)


@pytest.mark.slow
def test_it_learns_from_images() -> None:
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    model = MetaNet(pixels.Pixels(1, 16), WAY, filters=16, blocks=4, hidden=32, units=10)
    before = accuracy(model)
    optimizer = torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad], 0.003)
    for step in range(300):
        optimizer.zero_grad()
        model.train().loss(episodes(4, first=4 * step)).backward()
        optimizer.step()
    assert before < 0.6
    assert accuracy(model) > 0.75
