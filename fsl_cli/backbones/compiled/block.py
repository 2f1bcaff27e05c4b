"""A block of a network, convolution, batch norm, ReLU and pooling, for T tasks by weights of their own, in one node.

    z = conv(x, w),   y = pool(relu(norm(z)))

Where tasks adapt, images are few, and half the time went between operations. Both derivatives are written out: with
D the transpose of conv, E the gradient of its weights, and dz what the norm's first derivative gives (see fused.py),

    dx = D(dz, w),   dw = E(x, dz)

and of L = sum(vx dx) + sum(vw dw) + ..., dL/d(dz) goes on to the norm's second derivative:

    dL/d(dz) = conv(vx, w) + conv(x, vw),   dL/dx = D(dz, vw),   dL/dw = E(vx, dz)

z is a second output: what the norm's second derivative says of it meets what comes from y before either goes through
the convolution, which saves a D and an E.

Images are (T, n, H, W, C), weights (T, O, 3, 3, C), scale and shift (T, O); of these, (1, ...) serves all tasks. Tasks
of `torch.func.vmap` become T. The arithmetic is compiled (block.c); without it there are no blocks.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fsl_cli.backbones.compiled import kernel

_NAMES = {torch.float32: "float", torch.float64: "double"}


class Options(NamedTuple):
    k: int  # the first k images of a task give its statistics
    stride: int
    pool: bool
    eps: float = 1e-5
    images: bool = True  # whether the images' gradient is wanted
    each: bool = False  # whether the gradient of what all tasks share is that of each of them, not their sum


def usable(weight: Tensor) -> bool:
    """Whether a convolution with weights (O, C, 3, 3) like these can be part of a block here."""
    return (
        weight.device.type == "cpu"
        and weight.dtype in _NAMES
        and weight.shape[2:] == (3, 3)
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and kernel.preferred()
    )


def side_by_side() -> bool:
    """Whether tasks go side by side here. Else torch's own convolution of many images is faster: 0.10 s for a step of
    ProtoNet on 80 images of 28 x 28, where blocks take 0.13."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def block(x: Tensor, w: Tensor, scale: Tensor, shift: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    """y (T, n, h, w, O), and statistics (T, 4, O): each channel's mean, 1 / deviation, and two more."""
    if options.k * math.prod(output_size(x, options)) == 1:
        raise ValueError(f"one number has no deviation: {tuple(x.shape)} gives one number for each channel")
    if len(x) > 1 and side_by_side():  # what _as_tasks counts on
        w, scale, shift = w.expand(len(x), -1, -1, -1, -1), scale.expand(len(x), -1), shift.expand(len(x), -1)
    y, _, stats = _Block.apply(x, w, scale, shift, options)
    return y, stats


class _Block(torch.autograd.Function):
    """(x, w, scale, shift) -> y, z, statistics."""

    @staticmethod
    def forward(x: Tensor, w: Tensor, scale: Tensor, shift: Tensor, options: Options) -> tuple[Tensor, Tensor, Tensor]:
        sizes = _sizes(x, w, options)
        z = x.new_empty(*x.shape[:2], *output_size(x, options), w.shape[1])
        y = x.new_empty(_pooled(z, options))
        stats = x.new_empty(len(x), 4, w.shape[1])
        given = x.contiguous(), w.contiguous(), _wide(scale, x), _wide(shift, x)
        kernel.call(f"block_forward_{_NAMES[x.dtype]}", sizes, *given, z, y, stats, ctypes.c_double(options.eps))
        return y, z, stats

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        (x, w, scale, _, ctx.options), (_, z, stats) = inputs, output
        ctx.mark_non_differentiable(stats)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, w, scale, z, stats)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, gz: Tensor | None, _: Any) -> Any:
        x, w, scale, z, stats = ctx.saved_tensors
        options = ctx.options._replace(images=ctx.needs_input_grad[0])
        g = z.new_zeros(_pooled(z, options)) if g is None else g
        dx, dw, dscale, dshift, _ = _First.apply(g, gz, x, w, scale, z, stats, options)
        if len(scale) < len(dscale):  # one for all tasks
            dscale, dshift = dscale.sum(0, keepdim=True), dshift.sum(0, keepdim=True)
        return dx if options.images else None, dw, dscale, dshift, None

    @staticmethod
    def vmap(info: Any, dims: Any, *inputs: Any) -> Any:
        return _as_tasks(_Block, info.batch_size, dims, inputs, images=0, weights=(1, 2, 3))


class _First(torch.autograd.Function):
    """g = dL/dy and what else dL/dz is, or None -> dx, dw, dscale and dshift of each task, dz."""

    @staticmethod
    def forward(
        g: Tensor, gz: Tensor | None, x: Tensor, w: Tensor, scale: Tensor, z: Tensor, stats: Tensor, options: Options
    ) -> tuple[Tensor, ...]:
        sizes, summed = _sizes(x, w, options), _summed(x, w, options)
        dz, dx = torch.empty_like(z), x.new_empty(x.shape) if options.images else None
        dw = w.new_zeros(kernel.PARTS if summed else len(x), *w.shape[1:])
        dscale, dshift = stats.new_empty(2, *stats[:, 0].shape)
        given = g.contiguous(), None if gz is None else gz.contiguous(), x.contiguous(), w.contiguous(), z, stats
        kernel.call(f"block_backward_{_NAMES[x.dtype]}", sizes, *given, dz, dx, dw, dscale, dshift)
        return x.new_empty(0) if dx is None else dx, dw.sum(0, keepdim=True) if summed else dw, dscale, dshift, dz

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        g, gz, x, w, scale, z, stats, ctx.options = inputs
        _, _, dscale, dshift, dz = output
        ctx.more = gz is not None
        ctx.mark_non_differentiable(dz)
        ctx.save_for_backward(g, x, w, scale, z, stats, dz, dscale, dshift)

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> Any:
        images = ctx.options.images
        dg, d2z, dgz, dx, dw, dscale = _Second.apply(
            v[0] if images else None, *v[1:4], *ctx.saved_tensors, ctx.options, ctx.more
        )
        scale = ctx.saved_tensors[3]
        if len(scale) < len(dscale):
            dscale = dscale.sum(0, keepdim=True)
        return dg, dgz if ctx.more else None, dx if images else None, dw if images else None, dscale, d2z, None, None

    @staticmethod
    def vmap(info: Any, dims: Any, *inputs: Any) -> Any:
        return _as_tasks(_First, info.batch_size, dims, inputs, images=2, weights=(3, 4))


class _Second(torch.autograd.Function):
    """vx, vw, a, b, of L = sum(vx dx) + sum(vw dw) + sum(a dscale) + sum(b dshift), and what _First had and gave
    -> dL/dg, dL/dz, dL/dgz, dL/dx, dL/dw, and dL/dscale of each task."""

    @staticmethod
    def forward(
        vx: Tensor | None, vw: Tensor, a: Tensor, b: Tensor, g: Tensor, x: Tensor, w: Tensor, scale: Tensor, z: Tensor,
        stats: Tensor, dz: Tensor, dscale: Tensor, dshift: Tensor, options: Options, more: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        sizes, summed = _sizes(x, w, options), _summed(x, w, options)
        dg, d2z, dgz = g.new_empty(g.shape), torch.empty_like(z), torch.empty_like(z) if more else None
        dx, dw = x.new_empty(x.shape), w.new_zeros(kernel.PARTS if summed else len(x), *w.shape[1:])
        d2scale = torch.empty_like(dscale)
        given = None if vx is None else vx.contiguous(), vw.contiguous(), a.contiguous(), b.contiguous()
        had = g.contiguous(), x.contiguous(), w.contiguous(), _wide(scale, x), z, stats, dz, dscale, dshift
        kernel.call(f"block_second_{_NAMES[x.dtype]}", sizes, *given, *had, dg, d2z, dgz, dx, dw, d2scale)
        none = x.new_empty(0)
        if vx is None:
            return dg, d2z, none if dgz is None else dgz, none, none, d2scale
        return dg, d2z, none if dgz is None else dgz, dx, dw.sum(0, keepdim=True) if summed else dw, d2scale

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> Any:
        raise NotImplementedError

    @staticmethod
    def vmap(info: Any, dims: Any, *inputs: Any) -> Any:
        return _as_tasks(_Second, info.batch_size, dims, inputs, images=5, weights=(6, 7))


def _as_tasks(
    function: type[torch.autograd.Function], batch: int, dims: Any, inputs: Any, images: int, weights: tuple[int, ...]
) -> Any:
    """`function` under vmap: its axis and that of tasks become one. `images` and `weights`: which inputs those are."""
    episodes = inputs[images].shape[0 if dims[images] is None else 0 if dims[images] else 1]
    given: list[Any] = []
    for number, (value, dim) in enumerate(zip(inputs, dims, strict=True)):
        if isinstance(value, Options):
            given.append(value._replace(each=True))
        elif not isinstance(value, Tensor) or (dim is None and number in weights and len(value) == 1):
            given.append(value)
        else:
            value = value.expand(batch, *value.shape) if dim is None else value.movedim(dim, 0)
            given.append(value.expand(-1, episodes, *value.shape[2:]).flatten(0, 1))
    found = tuple(
        value if value.shape == (0,) else value.unflatten(0, (batch, episodes)) for value in function.apply(*given)
    )
    return found, tuple(None if value.shape == (0,) else 0 for value in found)


def output_size(x: Tensor, options: Options) -> tuple[int, int]:
    """Height and width of what the convolution gives of x."""
    return (x.shape[2] - 1) // options.stride + 1, (x.shape[3] - 1) // options.stride + 1


def _pooled(z: Tensor, options: Options) -> tuple[int, ...]:
    side = 2 if options.pool else 1
    return *z.shape[:2], z.shape[2] // side, z.shape[3] // side, z.shape[4]


def _summed(x: Tensor, w: Tensor, options: Options) -> bool:
    return len(w) < len(x) and not options.each


def _wide(channels: Tensor, x: Tensor) -> Tensor:
    return channels.expand(len(x), -1).contiguous()


def _sizes(x: Tensor, w: Tensor, options: Options) -> Tensor:
    """The sizes, as block.c's struct Block has them."""
    k, stride, pool, *_ = options
    shared = len(w) < len(x)
    threads = min(torch.get_num_threads(), len(x))
    return torch.tensor(
        [*x.shape[:2], k, *x.shape[2:], *output_size(x, options), w.shape[1], stride, pool, shared,
         _summed(x, w, options), threads]
    )  # fmt: skip
