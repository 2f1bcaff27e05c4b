"""Ridge regression in closed form, for T tasks at once and differentiable."""

from __future__ import annotations

import torch
from torch import Tensor


def ridge(x: Tensor, targets: Tensor, penalty: Tensor | float) -> Tensor:
    """The W that minimises |xW - targets|^2 + penalty |W|^2: (T, n, d), (T, n, k) -> (T, d, k).

    By the Woodbury identity, x'(xx' + penalty I)^-1 = (x'x + penalty I)^-1 x' (Bertinetto et al. 2019, equations 4
    and 6), the system solved is as large as the smaller of n and d. In float64, whatever comes in.
    """
    a, b = x.double(), targets.double()
    n, d = a.shape[-2:]
    identity = torch.eye(min(n, d), dtype=a.dtype, device=a.device)
    if n < d:
        return a.mT @ torch.linalg.solve(a @ a.mT + penalty * identity, b)
    return torch.linalg.solve(a.mT @ a + penalty * identity, a.mT @ b)
