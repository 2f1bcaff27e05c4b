"""An LSTM that moves each number of a network's weights by itself, and how its own weights are trained.

Two layers and a linear output, shared by all numbers, each of which has a state of its own (Andrychowicz et al. 2016,
section 2.1, figure 3). The gradients that come in count as constants, so what a step adds to a loss is gradient times
step, and the way back through time is written out here: a few operations a step in place of autograd's dozens, which
take most of the time where numbers are few. Numbers stand along the last axis, so each gate is one piece of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fsl_cli.algorithms.size_and_sign import size_and_sign

LAYERS = 2
State = tuple[tuple[Tensor, Tensor], ...]  # h and c (hidden, B) of each layer


class Kept(NamedTuple):
    """What the way back needs of one layer at one step."""

    seen: Tensor  # (inputs + hidden, B)
    gates: Tensor  # (4, hidden, B): input, forget, output, new, behind their sigmoid or tanh
    before: Tensor  # (hidden, B) the cell
    shown: Tensor  # (hidden, B) tanh of the cell after it
    h: Tensor  # (hidden, B)


class CoordinateLSTM(nn.Module):
    """Gradients of B numbers -> steps of them. `smallest`: p of size and sign; 0: gradients come in as they are."""

    def __init__(self, hidden: int, smallest: float, scale: float) -> None:
        super().__init__()
        self.hidden, self.smallest, self.scale = hidden, smallest, scale
        inputs = [2 if smallest else 1, *[hidden] * (LAYERS - 1)]
        self.weights = nn.ParameterList(torch.empty(4 * hidden, each + hidden) for each in inputs)
        self.biases = nn.ParameterList(torch.empty(4 * hidden, 1) for _ in inputs)
        self.out = nn.Parameter(torch.empty(1, hidden))
        self.out_bias = nn.Parameter(torch.empty(1, 1))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)  # torch's start of an LSTM

    def start(self, theta: Tensor) -> State:
        """The state of numbers that have not moved."""
        nothing = theta.new_zeros(self.hidden, theta.numel())
        return ((nothing, nothing),) * LAYERS

    @torch.no_grad()
    def forward(self, gradient: Tensor, state: State) -> tuple[Tensor, State, list[Kept]]:
        """By how much numbers of these gradients move, in their shape; the states after it; what the way back needs."""
        flat = gradient.reshape(-1)
        x = size_and_sign(flat, self.smallest).T if self.smallest else flat.unsqueeze(0)
        after, kept = [], []
        for (h, c), weight, bias in zip(state, self.weights, self.biases, strict=True):
            seen = torch.cat([x, h])
            gates = torch.addmm(bias, weight, seen).view(4, self.hidden, -1)
            gates[:3].sigmoid_()
            gates[3].tanh_()
            enter, forget, out, new = gates
            cell = torch.addcmul(forget * c, enter, new)
            shown = cell.tanh()
            x = out * shown
            after.append((x, cell))
            kept.append(Kept(seen, gates, c, shown, x))
        moved = self.scale * torch.addmm(self.out_bias, self.out, x).view_as(gradient)
        return moved, tuple(after), kept

    @torch.no_grad()
    def gradients(self, steps: Sequence[list[Kept]], upstream: Sequence[Tensor]) -> dict[str, Tensor]:
        """Those of the parameters, by the gradient of a loss in what each step moved; the first state is a constant."""
        found = {name: torch.zeros_like(value) for name, value in self.named_parameters()}
        nothing = torch.zeros_like(steps[0][0].h)
        dh, dc = [nothing] * LAYERS, [nothing] * LAYERS
        back = torch.empty_like(steps[0][0].gates)  # the gradient in front of each gate
        flat = back.flatten(0, 1)
        for kept, gradient in zip(reversed(steps), reversed(upstream), strict=True):
            up = self.scale * gradient.reshape(1, -1)
            found["out"].addmm_(up, kept[-1].h.T)
            found["out_bias"] += up.sum()
            down = self.out.T * up  # (hidden, B)
            for layer in reversed(range(LAYERS)):
                seen, gates, before, shown, h = kept[layer]
                enter, forget, out, new = gates
                upon = dh[layer] + down
                c = torch.addcmul(dc[layer], upon, torch.addcmul(out, h, shown, value=-1))  # out (1 - tanh^2)
                torch.sub(1, gates[:3], out=back[:3])
                back[:3] *= gates[:3]
                back[0] *= new * c
                back[1] *= before * c
                back[2] *= shown * upon
                torch.mul(enter, c, out=back[3])
                back[3].addcmul_(back[3] * new, new, value=-1)
                found[f"weights.{layer}"].addmm_(flat, seen.T)
                found[f"biases.{layer}"] += flat.sum(1, keepdim=True)
                both = self.weights[layer].T @ flat
                down, dh[layer] = both[: -self.hidden], both[-self.hidden :]
                dc[layer] = c * forget
        return found
