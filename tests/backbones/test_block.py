"""A compiled block against torch's own derivatives of the same operations, alone and where tasks go side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, vmap

from fsl_cli.algorithms import over_tasks
from fsl_cli.algorithms.imaml import IMAML
from fsl_cli.algorithms.maml import MAML
from fsl_cli.backbones import conv4, norm
from fsl_cli.backbones.compiled import block, kernel
from fsl_cli.backbones.compiled.block import Options
from fsl_cli.backbones.conv4 import Conv4
from fsl_cli.episodes import Episodes, Examples

CASES = {  # images a task, pixels, channels in and out, tasks with weights, with norms of their own; options
    "strides": ((3, 5, 2, 3), 2, 2, Options(3, 2, False)),
    "pools": ((3, 4, 2, 3), 2, 1, Options(2, 1, True)),
    "one network for all": ((2, 5, 5, 3), 1, 1, Options(2, 1, True)),
    "more channels than a vector": ((2, 4, 6, 19), 1, 2, Options(1, 2, False)),
}
SIZES = [
    (1, 28, 1, 64, 2),
    (5, 14, 64, 64, 2),
    (3, 7, 33, 40, 1),
    (14, 4, 64, 7, 2),
    (2, 2, 3, 48, 1),
    (70, 1, 5, 6, 1),
]


@pytest.fixture(autouse=True)
def _compiled() -> None:
    if kernel.library() is None:
        pytest.skip("no C compiler here")


def inputs(case: str) -> tuple[list[Tensor], Options]:
    (n, size, channels, out), networks, norms, options = CASES[case]
    shapes = (2, n, size, size, channels), (networks, out, 3, 3, channels), (norms, out), (norms, out)
    random = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_() for shape in shapes], options


def one(x: Tensor, w: Tensor, scale: Tensor, shift: Tensor, options: Options) -> Tensor:
    return block.blocks(x, [(w, scale, shift)], [options])[0]


def explicit(x: Tensor, w: Tensor, scale: Tensor, shift: Tensor, options: Options) -> Tensor:
    """The same in torch's operations, task after task."""

    def task(x: Tensor, w: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        z = F.conv2d(x.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2), stride=options.stride, padding=1)
        mean, var = z[: options.k].mean((0, 2, 3)), z[: options.k].var((0, 2, 3), correction=0)
        u = (z - mean.view(-1, 1, 1)) / (var + 1e-5).sqrt().view(-1, 1, 1)
        y = F.relu(u * scale.view(-1, 1, 1) + shift.view(-1, 1, 1))
        return (F.max_pool2d(y, 2) if options.pool else y).permute(0, 2, 3, 1)

    given = x, w.expand(len(x), *w.shape[1:]), scale.expand(len(x), -1), shift.expand(len(x), -1)
    return torch.stack([task(*each) for each in zip(*given, strict=True)])


@pytest.mark.parametrize(
    ("case", "images"),
    [
        pytest.param(case, images, marks=() if images and CASES[case][0][-1] < 19 else pytest.mark.slow)
        for case in CASES
        for images in (True, False)
    ],
)
def test_both_derivatives_pass_torchs_check(case: str, images: bool) -> None:
    given, options = inputs(case)
    given[0].requires_grad_(images)  # the first block's images have no gradient
    assert torch.autograd.gradcheck(lambda *each: one(*each, options), given)
    assert torch.autograd.gradgradcheck(lambda *each: one(*each, options), given)


def derivatives(function: Any, given: list[Tensor], options: Options) -> list[Tensor]:
    y = function(*given, options)
    random = torch.Generator().manual_seed(1)

    def weights(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=random, dtype=torch.float64).to(like.dtype)

    first = torch.autograd.grad(y, given, weights(y), create_graph=True)
    second = torch.autograd.grad(first, given[:3], [weights(each) for each in first])
    return [y, *first, *second]


ROW = [  # of blocks: channels, whether they pool; from images of 9 x 9
    (2, 3, Options(2, 2, False)),
    (3, 4, Options(3, 1, True)),
    (4, 2, Options(2, 1, False)),
]
WANTED = {  # which inputs have a gradient: images, then each block's weights, scales and shifts
    "all": range(10),
    "no images": range(1, 10),
    "the last block": (7, 8, 9),
    "the second block's weights": (4,),
    "scales and shifts": (2, 3, 5, 6, 8, 9),
    "images": (0,),
}


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize("wanted", WANTED.values(), ids=WANTED)
def test_blocks_in_one_go_are_one_after_the_other(wanted: Iterable[int], networks: int) -> None:
    random = torch.Generator().manual_seed(0)
    shapes: list[tuple[int, ...]] = [(3, 3, 9, 9, 2)]
    for channels, out, _ in ROW:
        shapes += [(networks, out, 3, 3, channels), (networks, out), (networks, out)]
    given = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]
    own = [given[number].requires_grad_() for number in wanted]
    first, *weights = given
    blocks = list(zip(weights[::3], weights[1::3], weights[2::3], strict=True))

    def derivatives(y: Tensor) -> list[Tensor]:
        random = torch.Generator().manual_seed(1)

        def weighted(values: Iterable[Tensor]) -> Tensor:
            return sum((value * torch.randn(value.shape, generator=random)).sum() for value in values)  # type: ignore[return-value]

        by_one = torch.autograd.grad(weighted([y]), own, create_graph=True)
        by_two = torch.autograd.grad(weighted(by_one), own, create_graph=True, materialize_grads=True)
        return [y, *by_one, *by_two]

    x = first
    for each, (*_, options) in zip(blocks, ROW, strict=True):
        x = explicit(x, *each, options)
    found = derivatives(block.blocks(first, blocks, [options for *_, options in ROW])[0])
    torch.testing.assert_close(found, derivatives(x))


def test_blocks_in_one_go_pass_torchs_check() -> None:
    random = torch.Generator().manual_seed(0)
    shapes = (1, 2, 5, 5, 1), (1, 2, 3, 3, 1), (1, 2), (1, 2), (1, 2, 3, 3, 2), (1, 2), (1, 2)
    given = [torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_() for shape in shapes]
    options = [Options(2, 2, False), Options(1, 1, False)]

    def both(x: Tensor, *weights: Tensor) -> Tensor:
        return block.blocks(x, [weights[:3], weights[3:]], options)[0]  # type: ignore[list-item]

    assert torch.autograd.gradcheck(both, given)
    assert torch.autograd.gradgradcheck(both, given)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shared", [True, False])
def test_a_block_is_torchs_operations_at_every_size(size: tuple[int, ...], shared: bool) -> None:
    n, side, channels, out, stride = size
    random, networks = torch.Generator().manual_seed(0), 1 if shared else 3
    shapes = (3, n, side, side + 1, channels), (networks, out, 3, 3, channels), (networks, out), (networks, out)
    given = [torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_() for shape in shapes]
    options = Options(max(1, n // 2), stride, side > 3)
    expected = derivatives(explicit, given, options)
    for dtype, near in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        own = [each.detach().to(dtype).requires_grad_() for each in given]
        for found, other in zip(derivatives(one, own, options), expected, strict=True):
            assert (found.double() - other).norm() <= near * other.norm()


def twice_derived(
    given: list[Tensor], options: Options, own: Callable[[Tensor], Tensor] = Tensor.clone
) -> list[Tensor]:
    """y, its derivatives, and theirs; `own` makes of the weights those of each task."""
    x, w, *others = given
    y = one(x, own(w), *others, options)
    first = torch.autograd.grad(y.square().sum(), given, create_graph=True)
    return [y, *first, *torch.autograd.grad(sum(each.square().sum() for each in first), given)]


def test_a_z_that_is_not_kept_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given, options = inputs("strides")
    again = twice_derived(given, options)
    monkeypatch.setattr(block, "FITS", 0)
    for found, wanted in zip(again, twice_derived(given, options), strict=True):
        assert torch.equal(found, wanted)


def test_views_of_one_network_are_each_tasks_own() -> None:
    (x, w, *others), options = inputs("strides")
    given = [x, w[:1].detach().requires_grad_(), *others]
    views, copies = (
        twice_derived(given, options, own)
        for own in (lambda each: each.expand_as(w), lambda each: each.expand_as(w).contiguous())
    )
    for found, wanted in zip(views, copies, strict=True):
        torch.testing.assert_close(found, wanted)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    given, options = inputs("pools")
    before, results = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(derivatives(one, given, options))
    torch.set_num_threads(before)
    assert all(torch.equal(own, other) for own, other in zip(*results, strict=True))


@pytest.mark.parametrize("episodes", [1, 2])
@pytest.mark.parametrize("batched", [(0, 0, None), (0, None, 0), (None, 1, None)])
def test_tasks_of_vmap_come_to_what_each_comes_to(episodes: int, batched: tuple[int | None, ...]) -> None:
    """Gradients within it, and those of its result."""
    random = torch.Generator().manual_seed(0)
    options = Options(3, 2, False)
    shapes = (episodes, 3, 5, 5, 4), (1, 6, 3, 3, 4), (1, 6)
    given = []
    for shape, dim in zip(shapes, batched, strict=True):
        whole = shape if dim is None else (*shape[:dim], 3, *shape[dim:])
        given.append(torch.randn(whole, generator=random, dtype=torch.float64).requires_grad_())

    above = torch.randn(1, 2, 3, 3, 6, generator=random, dtype=torch.float64), *torch.ones(2, 1, 2).double()

    def inner(x: Tensor, w: Tensor, scale: Tensor) -> Tensor:
        def loss(w: Tensor, x: Tensor) -> Tensor:
            return block.blocks(x, [(w, scale, scale), above], [options, Options(2, 1, False)])[0].square().sum()

        by_w, by_x = grad(loss, (0, 1))(w, x)
        return by_w.pow(3).sum() + loss(w - 0.01 * by_w, x - 0.01 * by_x)

    found = vmap(inner, batched)(*given)
    apart = [
        inner(*(each if dim is None else each.select(dim, i) for each, dim in zip(given, batched, strict=True)))
        for i in range(3)
    ]
    torch.testing.assert_close(found, torch.stack(apart))
    gradients = [torch.autograd.grad(value, given) for value in (found.sum(), sum(apart))]
    torch.testing.assert_close(*gradients)


def test_conv4_goes_in_blocks_under_vmap_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that never uses them would not be noticed otherwise."""
    calls = []
    real = conv4.blocks
    monkeypatch.setattr(conv4, "blocks", lambda *each: calls.append(len(each[1])) or real(*each))
    backbone = Conv4(1, 16, "support", filters=8)
    backbone(torch.randn(2, 3, 1, 16, 16))
    assert not calls
    vmap(lambda x: backbone(x.unsqueeze(0)))(torch.randn(2, 3, 1, 16, 16))
    assert calls == [4]


@pytest.mark.parametrize("mode", ["support", "transductive", "running"])
@pytest.mark.parametrize("halve", ["stride", "pool"])
@pytest.mark.parametrize("n_support", [0, 2])
def test_conv4_is_the_same_in_blocks_and_without(
    mode: Any, halve: Any, n_support: int, float64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 5, 1, 18, 18, generator=torch.Generator().manual_seed(0))
    results = []
    monkeypatch.setattr(conv4, "side_by_side", lambda: True)
    for blocks in (True, False):
        torch.manual_seed(0)
        net = Conv4(1, 18, mode, 5, halve)
        if not blocks:
            monkeypatch.setattr(norm, "usable", lambda *_: False)
        assert net.compiled == blocks
        y = net.features(x, n_support)
        first = torch.autograd.grad(y.square().sum(), list(net.parameters()), create_graph=True)
        second = torch.autograd.grad(sum(each.square().sum() for each in first), list(net.parameters()))  # type: ignore[arg-type]
        results.append([y, *first, *second, *net.buffers()])
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-9)


def test_as_many_tasks_go_side_by_side_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one where there are no blocks."""
    net, tasks = Conv4(1, 28, "support"), (torch.zeros(12, 5, 1, 28, 28),)
    monkeypatch.setattr(over_tasks, "ROOM_OF_ONE_CORE", 8 * 5 * 784)
    assert over_tasks._at_once(net, tasks) == 8
    assert over_tasks._at_once(Conv4(1, 28, "group"), tasks) == 0


def test_groups_come_to_what_single_tasks_come_to(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(5, 3, 1, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    net = Conv4(1, 16, "support", 4).double()

    def loss(own: torch.nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(own, parameters, (x.unsqueeze(0),)).square().mean()

    results = []
    for size in (0, 2, 5):
        monkeypatch.setattr(over_tasks, "_at_once", lambda *_, size=size: size)
        value = over_tasks.mean_loss(net, loss, dict(net.named_parameters()), x)
        results.append([value, *torch.autograd.grad(value, list(net.parameters()))])
    torch.testing.assert_close(results[1:], [results[0]] * 2)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("frozen", ["$^", "norm", "norm.*weight", "norm.*bias", r"norm|convs.[01]", "convs.0"])
@pytest.mark.parametrize("algo", ["first order", "second order", "implicit"])
def test_any_part_of_a_network_adapts_side_by_side_as_one_by_one(
    algo: str, frozen: str, scaled: bool, float64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What adapts, what does not and what is no parameter have an axis of tasks, or none, in every combination."""
    random = torch.Generator().manual_seed(0)
    support, query = (
        Examples(torch.randn(3, 10, 1, 16, 16, generator=random), torch.arange(5).repeat(3, 2)) for _ in range(2)
    )
    episodes = Episodes(support, query, query.y[:, :5], torch.arange(3))
    found = []
    for size in (3, 0):
        monkeypatch.setattr(over_tasks, "_at_once", lambda *_, size=size: size)
        torch.manual_seed(1)
        backbone = Conv4(1, 16, "transductive", filters=8, norm_scale=scaled)
        learner = (
            IMAML(backbone, 5, inner_lr=0.01, inner_steps=2, test_steps=2, penalty=2.0, frozen=frozen)
            if algo == "implicit"
            else MAML(backbone, 5, 0.1, 2, 2, first_order=algo == "first order", frozen=frozen)
        )
        learner.loss(episodes).backward()
        found.append([each.grad for each in learner.parameters()])
    for together, apart in zip(*found, strict=True):
        torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-9)


def test_one_number_a_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="deviation"):
        one(torch.ones(1, 1, 1, 1, 2), torch.ones(1, 3, 3, 3, 2), *torch.ones(2, 1, 3), Options(1, 1, False))
