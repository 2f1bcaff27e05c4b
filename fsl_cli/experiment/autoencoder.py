"""A small convolutional auto-encoder of images without labels, whose codes CACTUs clusters where no run has features.

Hsu et al. (ICLR 2019) cluster the codes of ACAI, which has an adversary too; this one has the squared error alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CODE, FILTERS = 64, 32  # numbers of a code; of the first layer, twice as many in the others
SMALLEST = 4  # pixels of a side, at which halving ends
BATCH, RATE = 128, 0.001  # images of a step; of Adam
TOLD = 10  # times that the error is told


class AutoEncoder(nn.Module):
    """Images (n, C, S, S) to codes, and back."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        sides = [size]
        while sides[-1] > SMALLEST:
            sides.append((sides[-1] + 1) // 2)
        widths = [channels, FILTERS, *[2 * FILTERS] * len(sides)][: len(sides)]
        self.sides, self.deep = sides, (widths[-1], sides[-1], sides[-1])
        flat = widths[-1] * sides[-1] ** 2
        pairs = list(zip(widths, widths[1:], strict=False))
        self.down = nn.ModuleList(nn.Conv2d(shallow, deep, 3, 2, 1) for shallow, deep in pairs)
        self.code, self.back = nn.Linear(flat, CODE), nn.Linear(CODE, flat)
        self.up = nn.ModuleList(nn.Conv2d(deep, shallow, 3, 1, 1) for shallow, deep in reversed(pairs))

    def forward(self, x: Tensor) -> Tensor:
        """The codes (n, CODE) of images."""
        for layer in self.down:
            x = F.relu(layer(x))
        return self.code(x.flatten(1))

    def images(self, codes: Tensor) -> Tensor:
        """The images (n, C, S, S) that codes stand for."""
        x = self.back(codes).view(-1, *self.deep)
        for side, layer in zip(self.sides[-2::-1], self.up, strict=True):
            x = layer(F.interpolate(F.relu(x), size=side))
        return x


def autoencoder(images: Tensor, steps: int) -> AutoEncoder:
    """An auto-encoder after `steps` of Adam on these images (N, C, S, S), on the CPU.

    On one thread and from one seed, so that it is the same whenever it is made. Its error is told as it falls, as a
    share of what the mean image leaves.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            return _fitted(AutoEncoder(images.shape[1], images.shape[-1]), images, steps)
    finally:
        torch.set_num_threads(threads)


def _fitted(net: AutoEncoder, images: Tensor, steps: int) -> AutoEncoder:
    spread = (images - images.mean(0)).square().mean().item()
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    every, errors = max(1, steps // TOLD), list[float]()
    for step in range(1, steps + 1):
        batch = images[torch.randint(len(images), (BATCH,))]
        error = F.mse_loss(net.images(net(batch)), batch)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
        if step % every == 0:
            share = sum(errors) / len(errors) / spread if spread else 0.0
            print(f"auto-encoder, step {step:,} of {steps:,}: error {share:.1%} of the variance", flush=True)
            errors.clear()
    return net.eval()
