"""Batch normalisation, scale, shift, ReLU and pooling in one step that keeps little and can be differentiated twice.

Autograd's own graph of the same has a node, and a pass over memory, for each of a dozen operations, and a
hundred in its second derivative. Here both derivatives are written out. Of n images (n, C, H, W) the first k
give the statistics, N = k H W numbers for each channel:

    y = relu(w u + b),   u = (x - mean) r,   r = 1 / sqrt(var + eps)

With h = dL/dy where y > 0, 0 elsewhere, and s = 1 for the first k images, 0 for the others:

    db = sum(h),   dw = sum(h u),   dx = w r (h - s (db + u dw) / N)

Max-pooling after it only says where h is not 0: at the greatest of its four pixels. The compiled kernel does it in the
same go, so that what is four times as large is neither written nor read.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_cli.backbones.compiled import kernel

EPS = 1e-5
AXES = (0, 2, 3)


def usable(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Whether `norm_relu` takes these: on a CPU, not inside `torch.func.vmap`, `grad` or an export, of one type.

    x may have an axis of episodes in front. Images in bfloat16 have weights in float32; those only the kernel takes.
    """
    here = not torch.compiler.is_compiling() and all(
        tensor.device.type == "cpu" and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        for tensor in (x, weight, bias)
    )
    if x.dtype == torch.bfloat16:
        return here and weight.dtype == bias.dtype == torch.float32 and kernel.fits(x.flatten(0, -4))
    return here and x.dtype == weight.dtype == bias.dtype


def norm_relu(
    x: Tensor, weight: Tensor, bias: Tensor, k: int, pool: bool = False, eps: float = EPS
) -> tuple[Tensor, Tensor, Tensor]:
    """relu(batch norm) of x (n, C, H, W) by the statistics of its first k images, their mean, and 1 / deviation.

    With `pool`, the greatest of each 2 x 2 pixels of it: (n, C, H // 2, W // 2).
    """
    if x[:k].numel() <= len(weight):
        raise ValueError(f"one number has no deviation: {tuple(x[:k].shape)} is one number for each channel")
    if pool and not kernel.fits(x):
        y, mean, r = _NormReLU.apply(x, weight, bias, k, False, eps)
        return F.max_pool2d(y, 2), mean, r
    return _NormReLU.apply(x, weight, bias, k, pool, eps)


class _NormReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, k: int, pool: bool, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.k, ctx.pool, ctx.compiled = k, pool, kernel.fits(x)
        if ctx.compiled:
            y, stats = kernel.forward(x, weight, bias, k, eps, pool)
        else:
            y, stats = _forward(x, weight, bias, k, eps)
        mean, r = stats[0], stats[1]
        ctx.save_for_backward(x, weight, y, stats)
        ctx.mark_non_differentiable(mean, r)
        return y, mean, r

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Any) -> Any:
        return *_Backward.apply(g, *ctx.saved_tensors, ctx.k, ctx.pool, ctx.compiled), None, None, None


class _Backward(torch.autograd.Function):
    """(g, x, w) -> dx, dw, db of the above; y and its statistics are known functions of x."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, w: Tensor, y: Tensor, stats: Tensor, k: int, pool: bool, compiled: bool
    ) -> Any:
        found = kernel.backward(g, x, stats, k, pool) if compiled else _backward(g, x, w, y, stats, k)
        ctx.save_for_backward(g, x, w, y, stats, *found[1:])
        ctx.k, ctx.pool, ctx.compiled = k, pool, compiled
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v: Tensor, a: Tensor, c: Tensor) -> Any:
        g, x, w, y, stats, dw, db = ctx.saved_tensors
        if ctx.compiled:
            found = kernel.second(v, a, c, g, x, w, stats, dw, db, ctx.k, ctx.pool)
        else:
            found = _second(v, a, c, g, x, w, y, stats, dw, db, ctx.k)
        return *found, None, None, None, None, None


def _forward(x: Tensor, w: Tensor, b: Tensor, k: int, eps: float) -> tuple[Tensor, Tensor]:
    """y, and statistics (4, C): mean, r, w r, b - mean w r."""
    if k == len(x):
        y, mean, r = torch.native_batch_norm(x, w, b, None, None, True, 0.0, eps)
        return y.relu_(), torch.stack([mean, r, w * r, b - mean * w * r])
    var, mean = torch.var_mean(x[:k], AXES, correction=0)
    r = (var + eps).rsqrt()
    stats = torch.stack([mean, r, w * r, b - mean * w * r])
    return torch.addcmul(_wide(stats[3]), x, _wide(stats[2])).relu_(), stats


def _backward(g: Tensor, x: Tensor, w: Tensor, y: Tensor, stats: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    mean, r, scale, _ = stats
    h = torch.ops.aten.threshold_backward(g, y, 0)
    if k == len(x):
        return torch.ops.aten.native_batch_norm_backward(h, x, w, None, None, mean, r, True, EPS, (True, True, True))
    n = x[:k].numel() / len(w)
    db, dw = h.sum(AXES), (h * _normal(x, mean, r)).sum(AXES)
    dx = h * _wide(scale)
    dx[:k].addcmul_(_normal(x[:k], mean, r), _wide(-scale * dw / n)).sub_(_wide(scale * db / n))
    return dx, dw, db


def _second(
    v: Tensor, a: Tensor, c: Tensor, g: Tensor, x: Tensor, w: Tensor, y: Tensor, stats: Tensor, dw: Tensor, db: Tensor,
    k: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The derivatives of L = sum(v dx) + sum(a dw) + sum(c db) with respect to g, x and w."""
    mean, r, scale, _ = stats
    n = x[:k].numel() / len(w)
    h, u = torch.ops.aten.threshold_backward(g, y, 0), _normal(x, mean, r)
    v0, v1 = v[:k].sum(AXES), (v[:k] * u[:k]).sum(AXES)
    q = (v * h).sum(AXES) - (db * v0 + dw * v1) / n  # dL/dw = r q
    alpha, beta = a - scale * v1 / n, -scale * dw / n  # dL/du = alpha h + s beta v
    dh = torch.addcmul(_wide(c - scale * v0 / n), u, _wide(alpha)).addcmul_(v, _wide(scale))
    dx = h * _wide(r * alpha)
    dx[:k].addcmul_(v[:k], _wide(r * beta)).sub_(_wide(r * (alpha * db + beta * v0) / n))
    dx[:k].addcmul_(u[:k], _wide(-(r * (alpha * dw + beta * v1) + scale * q * r) / n))
    return torch.ops.aten.threshold_backward(dh, y, 0), dx, r * q


def _normal(x: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    return (x - _wide(mean)).mul_(_wide(r))


def _wide(channels: Tensor) -> Tensor:
    return channels.view(-1, 1, 1)
