"""What `data.photos.from_image` does to pictures, as operations of a graph: the same numbers from pixels as decoded.

Pillow sums pixels times weights, which are whole numbers of 1 / 2**22, and rounds. These sums are taken here in two
halves of 11 bits, each of them exact in float32: it takes but few pixels that are off by one of 255 to move an answer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BITS = 11  # of each half of a weight
HALF = 1 << BITS


class Squared(nn.Module):
    """Pictures (n, height, width, 3) uint8, RGB, of any size -> their middles (n, channels, size, size), 0..1."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.size, self.channels = size, channels

    def forward(self, pictures: Tensor) -> Tensor:
        _, height, width, _ = pictures.shape
        side = torch.sym_min(height, width)
        x = pictures.permute(0, 3, 1, 2).float()
        if self.channels == 1:
            red, green, blue = x.split(1, 1)
            x = ((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536).floor()
        high, low = (x @ self._halves(width, side).T).split(self.size, 3)
        x = _rounded(high, low)  # (n, channels, height, size)
        high, low = (self._halves(height, side) @ x).split(self.size, 2)
        return _rounded(high, low) / 255  # (n, channels, size, size)

    def _halves(self, length: int | torch.SymInt, side: int | torch.SymInt) -> Tensor:
        """How much each of `length` pixels is in each of the `size` that show the middle `side` of them.

        (2 * size, length): the higher halves of the weights, then the lower. They are triangles about the centres of
        the new pixels, as wide as two of these, or two of the old ones where those are wider; distances are counted in
        parts of a pixel, 2 * size of them, and so are whole numbers.
        """
        old, new = torch.arange(length), torch.arange(self.size)[:, None]
        off = self.size * (2 * old + 1 - (length - side)) - (2 * new + 1) * side
        parts = (-off.abs() + 2 * torch.sym_max(side, self.size)).clamp(min=0)
        whole = parts.sum(1, keepdim=True)
        weights = (2 * HALF * HALF * parts + whole) // (2 * whole)
        return torch.cat([weights // HALF, weights % HALF]).float()


def _rounded(high: Tensor, low: Tensor) -> Tensor:
    """Sums of pixels times the halves of weights, as whole pixels."""
    return ((high + (low / HALF).floor() + HALF // 2) / HALF).floor()
