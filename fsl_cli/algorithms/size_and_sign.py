"""How a network reads gradients, whose sizes differ by orders of magnitude (Andrychowicz et al. 2016, appendix A)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def size_and_sign(x: Tensor, p: float) -> Tensor:
    """Numbers x (...) -> (..., 2): ln|x| / p and the sign, or -1 and e^p x where |x| is below e^-p."""
    return torch.stack([(x.abs().log() / p).clamp(min=-1), (x * math.exp(p)).clamp(-1, 1)], -1)
