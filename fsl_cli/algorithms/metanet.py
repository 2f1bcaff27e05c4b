"""Meta networks (Munkhdalai and Yu, ICML 2017), https://arxiv.org/abs/1703.00837

Two networks have fast weights beside their slow ones. Learned networks make these from a task's gradients. The network
that computes keys has one set of fast weights for the whole task. The classifier has one set for each support example,
kept in a memory, from which a query reads by its key (algorithm 1).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters
from fsl_cli.algorithms.network import demand_way
from fsl_cli.algorithms.over_tasks import for_each_task
from fsl_cli.algorithms.protonet import cosines
from fsl_cli.algorithms.size_and_sign import size_and_sign
from fsl_cli.backbones.base import Backbone
from fsl_cli.backbones.mode import Mode
from fsl_cli.backbones.norm import Norm
from fsl_cli.episodes import Classifier, Examples
from fsl_cli.errors import UserError
from fsl_cli.ranges import Count

P = 7.0  # of `size_and_sign`


class MetaNet(Algorithm):
    """Networks of `blocks` convolutions of `filters` channels and a layer of `hidden` units, on the backbone's maps.

    `backbone=pixels` hands on images as they are, as in the paper. The support set is read in `chunks`, whose gradients
    an LSTM of `units` units turns into the key network's fast weights, each weight for itself; a network of two layers
    turns an example's gradient into its fast weights. Gradients count as numbers, without derivatives of their own, so
    the key network's layer of logits stays as it was drawn: it is there for gradients alone. The loss of
    representations is the cross-entropy for any number of shots. `norm` is that of the convolutions, none in the stored
    copy of the code that we read. Ours is that no gradient at first makes no fast weight: else all those of a layer
    begin with the same number, larger than what gradients add to it, and where that is negative, their activations are
    zero for good.
    """

    ordered = True  # chunk after chunk

    def __init__(
        self,
        backbone: Backbone,
        way: Count,
        filters: Count = 64,
        blocks: Count = 5,
        hidden: Count = 64,
        units: Count = 20,
        chunks: Count = 5,
        norm: Literal["group", "none"] = "none",
    ) -> None:
        super().__init__()
        if backbone.norm not in ("group", "none"):
            raise UserError(
                f"norm={backbone.norm} takes statistics of several images, and here each is read alone. Type "
                "norm=none, or with another backbone than pixels norm=group."
            )
        self.backbone = backbone
        self.way = way
        self.net = _MetaNet(backbone.map_shape, norm, way, filters, blocks, hidden, units, chunks)

    def adapt(self, support: Examples) -> Classifier:
        demand_way(support, self.way)
        examples = Examples(self._maps(support.x), support.y)
        memory = for_each_task(self.net, lambda net, task: net.learn(task), examples)
        return lambda x: for_each_task(self.net, lambda net, *task: net.answer(*task), memory, self._maps(x))

    def _maps(self, x: Tensor) -> Tensor:
        return self.backbone(x).unflatten(-1, self.backbone.map_shape)  # (T, n, C, H, W)


class _Memory(NamedTuple):
    """What was learned from a task's support set."""

    task: Parameters  # fast weights of the key network
    examples: Parameters  # fast weights of the classifier, with an axis of the n examples in front
    keys: Tensor  # (n, hidden)


class _MetaNet(nn.Module):
    """Both networks, and what generates their fast weights: one for convolutions, one for the other layers."""

    def __init__(
        self, shape: tuple[int, int, int], norm: Mode, way: int, filters: int, blocks: int, hidden: int, units: int,
        chunks: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.chunks = chunks
        self.base, self.key = (_Net(shape, norm, way, filters, blocks, hidden) for _ in range(2))
        self.key.head.requires_grad_(False)
        self.of_task = nn.ModuleDict({kind: _Recurrent(units, chunks) for kind in ("convs", "full")})
        self.of_example = nn.ModuleDict({kind: _feed_forward(units) for kind in ("convs", "full")})

    def learn(self, support: Examples) -> _Memory:
        size = -(-len(support.y) // self.chunks)
        parts = zip(support.x.split(size), support.y.split(size), strict=True)
        steps = [_gradients(self.key, *part) for part in parts]
        task = {
            name: self.of_task[_kind(name)]([step[name] for step in steps])
            for name in steps[0]
            if name != "head.weight"
        }  # logits are not asked of it again
        each = vmap(lambda x, y: _gradients(self.base, x[None], y[None]))(*support)
        examples = {
            name: self.of_example[_kind(name)](size_and_sign(value, P)).squeeze(-1) for name, value in each.items()
        }
        return _Memory(task, examples, self.key.keys(support.x, task))

    def answer(self, memory: _Memory, x: Tensor) -> Tensor:
        """Logits (m, way) of images (m, C, H, W)."""
        attention = cosines(self.key.keys(x, memory.task), memory.keys).softmax(-1)  # (m, n)
        return self.base(x, memory.examples, attention)


class _Net(nn.Module):
    """Convolutions, each halving the map, rounded up; a hidden layer, and one of logits: (n, C, H, W) -> (n, way)."""

    def __init__(
        self, shape: tuple[int, int, int], norm: Mode, way: int, filters: int, blocks: int, hidden: int
    ) -> None:
        super().__init__()
        widths = [shape[0], *[filters] * blocks]
        self.convs = nn.ModuleList(nn.Conv2d(before, filters, 3, padding=1, bias=False) for before in widths[:-1])
        self.norms = nn.ModuleList(Norm(norm, filters) for _ in range(blocks))
        height, wide = (-(-side // 2**blocks) for side in shape[1:])
        self.hidden = nn.Linear(filters * height * wide, hidden, bias=False)
        self.head = nn.Linear(hidden, way, bias=False)
        self.fast = [f"convs.{number}.weight" for number in range(blocks)] + ["hidden.weight", "head.weight"]
        _start(self)

    def forward(self, x: Tensor, fast: Parameters | None = None, attention: Tensor | None = None) -> Tensor:
        """Logits. With `fast` weights each layer is augmented: the activations by both weights are added (section 3.2).

        `fast` is one set of weights; or, with `attention` (m, n), n sets, whose weighted mean each image gets.
        """
        x = self._convolutions(x, fast, attention)
        hidden = F.relu(self.hidden(x))
        if fast is None:
            return self.head(hidden)
        hidden = hidden + F.relu(_through(x, fast["hidden.weight"], attention))
        return self.head(hidden) + _through(hidden, fast["head.weight"], attention)

    def keys(self, x: Tensor, fast: Parameters) -> Tensor:
        """What the hidden layer makes of both weights, (n, hidden): the last layer, so without ReLU.

        Positive numbers alone would have almost one direction, and no example would be nearer than another.
        """
        x = self._convolutions(x, fast, None)
        return self.hidden(x) + _through(x, fast["hidden.weight"], None)

    def _convolutions(self, x: Tensor, fast: Parameters | None, attention: Tensor | None) -> Tensor:
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            maps = F.relu(norm(conv(x)[None], 0)[0])
            if fast is not None:
                maps = maps + F.relu(norm(_convolved(x, fast[f"convs.{number}.weight"], attention)[None], 0)[0])
            x = F.max_pool2d(maps, 2, ceil_mode=True)
        return x.flatten(1)


def _convolved(x: Tensor, weight: Tensor, attention: Tensor | None) -> Tensor:
    if attention is None:
        return F.conv2d(x, weight, padding=1)
    # a convolution is linear in its weights: the mean of n outcomes is the outcome of the mean of n weights
    maps = F.conv2d(x, weight.flatten(0, 1), padding=1).unflatten(1, weight.shape[:2])  # (m, n, filters, H, W)
    return torch.einsum("mn,mnfhw->mfhw", attention, maps)


def _through(x: Tensor, weight: Tensor, attention: Tensor | None) -> Tensor:
    return F.linear(x, weight) if attention is None else torch.einsum("mn,noi,mi->mo", attention, weight, x)


class _Recurrent(nn.Module):
    """An LSTM that reads a weight's gradients, and a linear layer on its last state; the same for all weights."""

    def __init__(self, units: int, chunks: int) -> None:
        super().__init__()
        inputs, states = torch.randn(4 * units, 2) / 2**0.5, torch.randn(4 * units, units) / units**0.5
        self.gates = nn.Parameter(torch.cat([inputs, states], 1))
        self.bias = nn.Parameter(torch.zeros(4 * units, 1))
        nn.init.ones_(self.bias.data[units : 2 * units])  # of what keeps the cell
        self.leave = nn.Linear(units, 1)
        _start(self.leave)
        self.leave.bias.data -= self([torch.zeros(1)] * chunks).detach()

    def forward(self, gradients: list[Tensor]) -> Tensor:
        # weights along the last axis: each gate of all of them lies in one piece, which saves a fifth of a step
        hidden = cell = gradients[0].new_zeros(self.leave.in_features, gradients[0].numel())
        for step in gradients:
            read = torch.cat([size_and_sign(step.flatten(), P).T, hidden])
            gates = torch.addmm(self.bias, self.gates, read)
            take, keep, new, out = gates.chunk(4)
            cell = keep.sigmoid() * cell + take.sigmoid() * new.tanh()
            hidden = out.sigmoid() * cell.tanh()
        return torch.addmm(self.leave.bias[:, None], self.leave.weight, hidden).view_as(gradients[0])


def _feed_forward(units: int) -> nn.Sequential:
    """What turns an example's gradient, by size and sign, into its fast weight."""
    last = nn.Linear(units, 1)
    made = nn.Sequential(nn.Linear(2, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU(), last)
    _start(made)
    last.bias.data -= made(size_and_sign(torch.zeros(()), P)).detach()
    return made


def _start(net: nn.Module) -> None:
    """Layers start as in Chainer, in which the authors' code is written: biases at 0, weights of unit gain."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _kind(name: str) -> str:
    return "convs" if name.startswith("convs") else "full"


def _gradients(net: _Net, x: Tensor, y: Tensor) -> Parameters:
    """Of the cross-entropy by the slow weights that have fast ones beside them; numbers, without a graph."""
    fixed = {name: value.detach() for name, value in net.named_parameters()}
    moving = {name: fixed[name] for name in net.fast}

    def loss(weights: Parameters) -> Tensor:
        return F.cross_entropy(functional_call(net, {**fixed, **weights}, (x.detach(),)), y)

    return grad(loss)(moving)
