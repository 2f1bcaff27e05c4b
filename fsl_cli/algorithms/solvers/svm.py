"""The multi-class support vector machine (Crammer and Singer, JMLR 2001), for T tasks at once and differentiable.

https://www.jmlr.org/papers/v2/crammer01a.html. Of n examples with labels y, scores x_i w_m without a bias:

    minimise over W   |W|^2 / 2 + C sum_i max_m (1 - [m = y_i] + x_i w_m - x_i w_{y_i})

Solved is its dual, in a (way, n), with W = C x'a and G = C xx':

    minimise   sum_m a_m' G a_m / 2 - sum_i a_{y_i, i}   where   a_{m, i} <= [m = y_i]   and   sum_m a_{m, i} = 0

by a primal-dual interior-point method (Mehrotra's predictor and corrector). Classes meet in the last condition alone,
so a Newton step takes `way` factorisations of n x n and one more, time way n^3 and memory way n^2, not (way n)^3 and
(way n)^2. The start is feasible and stays so, hence s z, summed, is the duality gap at every step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Done when gap <= TOLERANCE * a'Ga / 2. As a'Ga / 2 = |W|^2 / 2C, and the objective is strongly convex in W,
# |W - W*| is then at most the root of that, 1e-6, times |W|.
TOLERANCE = 1e-12
STEPS = 50  # at most; 11 to 23 were needed from 1 to 100 examples and a mean squared norm of 1e-6 to 1e6
NEARLY = 0.99  # of the way to the boundary is the longest step
# Times G's mean diagonal is added to it, as G is singular with more examples than features. It moves W by about 1e-9;
# less of it costs the gradient digits, about 1e-16 / JITTER of it.
JITTER = 1e-9

Factors = tuple[Tensor, Tensor]  # Cholesky factors of G + diag(z_m / s_m) (T, way, n, n), and of sum_m of the inverses


def crammer_singer(x: Tensor, y: Tensor, cost: float) -> Tensor:
    """The weights W of the machine with C = `cost`: (T, n, d), (T, n) -> (T, d, way) in float64.

    Differentiable in x: by the implicit function theorem on the optimality conditions (Lee et al. 2019, section 3.2).
    """
    examples = x.double()
    gram = cost * examples @ examples.mT  # (T, n, n)
    targets = F.one_hot(y).mT.double()  # (T, way, n)
    with torch.no_grad():
        a, factors = _solve(gram.detach(), targets)
    if gram.requires_grad:  # adds nothing, but has the derivative -(d conditions / d a)^-1 (d conditions / d gram)
        slope = a @ gram
        a = a - _newton(factors, slope - slope.detach())[0]
    return cost * (a @ examples).mT


def _solve(gram: Tensor, targets: Tensor) -> tuple[Tensor, Factors]:
    """The dual's a (T, way, n), and the factors of a Newton step from there."""
    way, n = targets.shape[1:]
    mean = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]  # (T, 1, 1), as all numbers of a task
    gram = gram + JITTER * mean * torch.eye(n, dtype=gram.dtype, device=gram.device)
    # strictly inside: each row of a sums to 0 and its bounds leave s > 0; v low enough to leave z > 0
    a = (way * targets - 1) / (2 * way * (1 + mean))
    s = targets - a  # slack
    z = targets - a @ gram
    v = z.amin(1, keepdim=True) - 1  # (T, 1, n) multipliers of the sums
    z = z - v  # multipliers of the bounds
    for _ in range(STEPS):
        slope = a @ gram
        gap = (s * z).sum((1, 2), keepdim=True)
        done = gap <= TOLERANCE * (a * slope).sum((1, 2), keepdim=True) / 2
        if done.all():
            break
        factors = _factorise(gram, z / s)
        residual = targets - slope - z - v  # zero, but for rounding

        def towards(product: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """The Newton step (da, dz, dv) to s z = product."""
            da, dv = _newton(factors, residual + z - product / s)  # noqa: B023
            return da, product / s - z + z / s * da, dv  # noqa: B023

        da, dz, _ = towards(torch.zeros_like(s))
        length = _longest(s, z, da, dz)
        after = ((s - length * da) * (z + length * dz)).sum((1, 2), keepdim=True)
        centre = (after / gap) ** 3 * gap / (way * n)
        da, dz, dv = towards(centre + da * dz)  # ds = -da
        length = torch.where(done, 0, NEARLY * _longest(s, z, da, dz))
        a, s, z, v = a + length * da, s - length * da, z + length * dz, v + length * dv
    return a, _factorise(gram, z / s)


def _factorise(gram: Tensor, weight: Tensor) -> Factors:
    lower = torch.linalg.cholesky_ex(gram.unsqueeze(1) + torch.diag_embed(weight))[0]  # (T, way, n, n)
    return lower, torch.linalg.cholesky_ex(torch.cholesky_inverse(lower).sum(1))[0]


def _newton(factors: Factors, r: Tensor) -> tuple[Tensor, Tensor]:
    """The d (T, way, n) and v (T, 1, n) with (G + diag(z_m / s_m)) d_m + v = r_m and sum_m d_m = 0."""
    lower, schur = factors
    alone = torch.cholesky_solve(r.unsqueeze(-1), lower)  # (T, way, n, 1)
    v = torch.cholesky_solve(alone.sum(1), schur).unsqueeze(1)  # (T, 1, n, 1)
    return (alone - torch.cholesky_solve(v.expand_as(alone), lower)).squeeze(-1), v.squeeze(-1)


def _longest(s: Tensor, z: Tensor, da: Tensor, dz: Tensor) -> Tensor:
    """The longest step of each task, 1 at most, on which s - da and z + dz stay positive: (T, 1, 1)."""
    both, change = torch.cat([s, z], 1), torch.cat([-da, dz], 1)
    return torch.where(change < 0, -both / change, 1.0).clamp(max=1.0).amin((1, 2), keepdim=True)
