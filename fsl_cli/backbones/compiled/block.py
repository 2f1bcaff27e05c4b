"""A network's blocks, each convolution, batch norm, ReLU and pooling, of T tasks by weights of their own, in one node.

    z = conv(x, w),   y = pool(relu(norm(z))),   which is the x of the next block

Where tasks adapt, images are few, and half the time went between operations: with `torch.func`, a node costs a
millisecond. Both derivatives are written out: with D the transpose of conv, E the gradient of its weights, and dz what
the norm's first derivative gives (see fused.py),

    dx = D(dz, w),   dw = E(x, dz)

and of L = sum(vx dx) + sum(vw dw) + ..., dL/d(dz) goes on to the norm's second derivative:

    dL/d(dz) = conv(vx, w) + conv(x, vw),   dL/dx = D(dz, vw),   dL/dw = E(vx, dz)

The first derivative goes from the last block to the first, the second back again: what a block says of the g that it
was given is the vx of the next. Each z and y is an output: what the second derivative says of them meets what comes
from above before either goes through the convolution, which saves a D and an E.

Images of few channels are convolved faster than a z is read from memory: their z is not kept but computed again, and
in its place stands a tensor of its shape with no memory of its own.

Images are (T, n, H, W, C), weights (T, O, 3, 3, C), scale and shift (T, O); of these, (1, ...) serves all tasks. Tasks
of `torch.func.vmap` become T. The arithmetic is compiled (block.c); without it there are no blocks.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fsl_cli.backbones.compiled import kernel

EACH, BUT_LAST, ONE = 0, 1, None
FEW = 4  # channels of images whose z is not kept,
FITS = 1 << 20  # if a task's has no more numbers, which find room in a cache
_NAMES = {torch.float32: "float", torch.float64: "double"}


class Options(NamedTuple):
    """Of one block."""

    k: int  # the first k images of a task give its statistics
    stride: int
    pool: bool
    eps: float = 1e-5


@dataclass(frozen=True)  # which torch takes for one value, and does not look into
class _Pass:
    """Of a pass through the blocks."""

    blocks: tuple[Options, ...]
    each: bool = False  # whether the gradient of what all tasks share is that of each of them, not their sum
    lowest: int = 0  # the first block of which a gradient is wanted
    images: bool = True  # whether that of its images is, too
    more: tuple[bool, ...] = ()  # of each block, whether there was more to say of its z

    def groups(self, values: Sequence[Any], *kinds: int | None) -> list[Any]:
        """`values` taken apart: of each kind a list, of one for EACH block or all BUT_LAST, or ONE value alone."""
        found: list[Any] = []
        for kind in kinds:
            count = 1 if kind is ONE else len(self.blocks) - kind
            found.append(values[0] if kind is ONE else values[:count])
            values = values[count:]
        return found

    def upwards(self) -> range:
        """The numbers of the blocks that have a gradient."""
        return range(self.lowest, len(self.blocks))

    def has_images(self, number: int) -> bool:
        """Whether the gradient of a block's images is wanted."""
        return self.images or number > self.lowest


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


def blocks(
    x: Tensor, weights: Sequence[tuple[Tensor, Tensor, Tensor]], options: Sequence[Options]
) -> tuple[Tensor, Sequence[Tensor]]:
    """y of the last block, and of each the statistics (T, 4, O): each channel's mean, 1 / deviation, and two more.

    `weights`: of each block w, scale and shift. Raises ValueError where a channel has one number.
    """
    for each, sides in zip(options, output_sizes(x.shape[2:4], options), strict=True):
        if each.k * math.prod(sides) == 1:
            raise ValueError(f"one number has no deviation: {tuple(x.shape)} gives one number for each channel")
    given = [value for kind in zip(*weights, strict=True) for value in kind]
    if len(x) > 1 and side_by_side():  # what _as_tasks counts on
        given = [value.expand(len(x), *value.shape[1:]) for value in given]
    one = _Pass(tuple(options))
    ys, _, stats = one.groups(_Blocks.apply(one, x, *given), EACH, EACH, EACH)
    return ys[-1], stats


class _Blocks(torch.autograd.Function):
    """How, x, and all w, scales and shifts -> all y, z and statistics."""

    @staticmethod
    def forward(how: _Pass, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        outputs: list[tuple[Tensor, Tensor, Tensor]] = []
        run = _Run("forward")
        for options, w, scale, shift in zip(how.blocks, *how.groups(weights, EACH, EACH, EACH), strict=True):
            sides = _output_size(x.shape[2:4], options)
            z = x.new_empty(()).expand(*x.shape[:2], *sides, w.shape[1])
            z = z if _kept(z, x) is None else x.new_empty(z.shape)
            y = x.new_empty(*x.shape[:2], *_pooled(sides, options), w.shape[1])
            stats = x.new_empty(len(x), 4, w.shape[1])
            made = _kept(z, x), y, stats
            run.add(_sizes(x, w, options, how), x, _packed(x, w), _wide(scale, x), _wide(shift, x), *made)
            outputs.append((y, z, stats))
            x = y
        run.go(x)
        return tuple(value for kind in zip(*outputs, strict=True) for value in kind)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.how, x, *weights = inputs
        ys, zs, stats = ctx.how.groups(output, EACH, EACH, EACH)
        w, scales, shifts = ctx.how.groups(weights, EACH, EACH, EACH)
        ctx.lengths = _lengths(scales), _lengths(shifts)
        ctx.mark_non_differentiable(*stats)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *w, *scales, *ys[:-1], *zs, *stats)

    @staticmethod
    def backward(ctx: Any, *g: Tensor | None) -> Any:
        of_ys, of_zs, _ = ctx.how.groups(g, EACH, EACH, EACH)
        zs = ctx.how.groups(ctx.saved_tensors, ONE, EACH, EACH, BUT_LAST, EACH, EACH)[4]
        _, images, *needed = ctx.needs_input_grad
        lowest = 0 if images else min(number % len(zs) for number, wanted in enumerate(needed) if wanted)
        # inside torch.func another level may want the images' gradient, of which this one knows nothing
        how = replace(ctx.how, lowest=lowest, images=images or side_by_side())
        if of_ys[-1] is None:
            sides = _pooled(zs[-1].shape[2:4], how.blocks[-1])
            of_ys = [*of_ys[:-1], zs[-1].new_zeros(*zs[-1].shape[:2], *sides, zs[-1].shape[4])]
        found = _First.apply(how, *of_ys, *of_zs, *ctx.saved_tensors)
        dx, dw, dscales, dshifts, *_ = how.groups(found, ONE, EACH, EACH, EACH, EACH, BUT_LAST)
        sums = [_as_wide(*each) for each in zip((dscales, dshifts), ctx.lengths, strict=True)]
        return None, _wanted(dx), *map(_wanted, dw), *(_wanted(each) for kind in sums for each in kind)

    @staticmethod
    def vmap(info: Any, dims: Any, *inputs: Any) -> Any:
        return _as_tasks(_Blocks, info.batch_size, dims, inputs, images=1, weights=3)


class _First(torch.autograd.Function):
    """How, g = dL/dy of each block, what else dL/dz is, or None, and x, w, scales, y but the last, z and statistics
    -> dx, each block's dw, dscale and dshift of each task, dz, and g in full of each but the last.

    Of blocks below `lowest` nothing; their parts have no numbers.
    """

    @staticmethod
    def forward(how: _Pass, *given: Any) -> tuple[Tensor, ...]:
        of_ys, of_zs, x, w, _, ys, zs, stats = how.groups(given, EACH, EACH, ONE, EACH, EACH, BUT_LAST, EACH, EACH)
        xs, gs = [x, *ys], [x.new_empty(0) for _ in ys]
        dws, dscales, dshifts, dzs = ([x.new_empty(0) for _ in w] for _ in range(4))
        g, none, run = of_ys[-1], x.new_empty(0), _Run("backward")
        for i in reversed(how.upwards()):
            before = of_ys[i - 1] if i > how.lowest else None
            # where no gradient of images is wanted, nothing asks for dz, not even the second derivative
            dx, dz = (x.new_empty(each.shape) if how.has_images(i) else none for each in (xs[i], zs[i]))
            dws[i] = _room_of_sums(xs[i], w[i], how)
            dzs[i], (dscales[i], dshifts[i]) = dz, (stats[i].new_empty(len(x), w[i].shape[1]) for _ in range(2))
            had = xs[i], _packed(xs[i], w[i]), _kept(zs[i], xs[i]), stats[i]
            sizes = _sizes(xs[i], w[i], how.blocks[i], how)
            run.add(sizes, g, of_zs[i], before, *had, dz, dx, dws[i], dscales[i], dshifts[i])
            if i > how.lowest:
                g = gs[i - 1] = dx
        run.go(x)
        return dx, *_over_parts(dws, xs, w, how), *dscales, *dshifts, *dzs, *gs

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        how, *given = inputs
        of_ys, of_zs, x, *had = how.groups(given, EACH, EACH, ONE, EACH, EACH, BUT_LAST, EACH, EACH)
        _, _, dscales, dshifts, dzs, gs = how.groups(output, ONE, EACH, EACH, EACH, EACH, BUT_LAST)
        ctx.how = replace(how, more=tuple(each is not None for each in of_zs))
        ctx.given = [each is not None for each in of_ys]
        ctx.mark_non_differentiable(*dzs, *gs)
        ctx.save_for_backward(*gs, of_ys[-1], x, *(each for kind in (*had, dzs, dscales, dshifts) for each in kind))

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> Any:
        vx, vw, a, b, *_ = ctx.how.groups(v, ONE, EACH, EACH, EACH, EACH, BUT_LAST)
        found = _Second.apply(ctx.how, vx if ctx.how.images else None, *vw, *a, *b, *ctx.saved_tensors)
        dgs, d2zs, dgzs, dxs, dw, dscales = ctx.how.groups(found, EACH, EACH, EACH, EACH, EACH, EACH)
        scales = ctx.how.groups(ctx.saved_tensors, EACH, ONE, EACH, EACH)[3]
        of_ys = [dg if given else None for dg, given in zip(dgs, ctx.given, strict=True)]
        kinds = of_ys, dgzs, dxs[:1], dw, _as_wide(dscales, _lengths(scales)), dxs[1:], d2zs
        return None, *(_wanted(each) for kind in kinds for each in kind), *(None for _ in dw)

    @staticmethod
    def vmap(info: Any, dims: Any, *inputs: Any) -> Any:
        count = len(inputs[0].blocks)
        return _as_tasks(_First, info.batch_size, dims, inputs, images=1 + 2 * count, weights=2)


class _Second(torch.autograd.Function):
    """How, vx, all vw, a and b, of L = sum(vx dx) + sum(vw dw) + sum(a dscale) + sum(b dshift), and what _First had and
    gave -> dL/dg, dL/dz, dL/dgz, dL/dx, dL/dw, and dL/dscale of each task, of all blocks."""

    @staticmethod
    def forward(how: _Pass, vx: Tensor | None, *given: Tensor) -> tuple[Tensor, ...]:
        vw, a, b, gs, x, w, scales, ys, zs, stats, dzs, dscales, dshifts = how.groups(
            given, EACH, EACH, EACH, EACH, ONE, EACH, EACH, BUT_LAST, EACH, EACH, EACH, EACH, EACH
        )
        xs = [x, *ys]
        dgs, d2zs, dgzs, dxs, dws, d2scales = ([x.new_empty(0) for _ in w] for _ in range(6))
        v, run = vx, _Run("second")
        for i in how.upwards():
            dgs[i], d2zs[i] = x.new_empty(gs[i].shape), x.new_empty(zs[i].shape)
            d2scales[i] = x.new_empty(len(x), w[i].shape[1])
            if how.more[i]:
                dgzs[i] = x.new_empty(zs[i].shape)
            if how.has_images(i):
                dxs[i] = x.new_empty(xs[i].shape)
                dws[i] = _room_of_sums(xs[i], w[i], how)
            said = v, vw[i], a[i], b[i]
            had = gs[i], xs[i], _packed(xs[i], w[i]), _wide(scales[i], x), _kept(zs[i], xs[i])
            gave = stats[i], dzs[i], dscales[i], dshifts[i]
            sizes = _sizes(xs[i], w[i], how.blocks[i], how)
            run.add(sizes, *said, *had, *gave, dgs[i], d2zs[i], dgzs[i], dxs[i], dws[i], d2scales[i])
            v = dgs[i]
        run.go(x)
        return *dgs, *d2zs, *dgzs, *dxs, *_over_parts(dws, xs, w, how), *d2scales

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> Any:
        raise NotImplementedError

    @staticmethod
    def vmap(info: Any, dims: Any, *inputs: Any) -> Any:
        count = len(inputs[0].blocks)
        return _as_tasks(_Second, info.batch_size, dims, inputs, images=2 + 4 * count, weights=2)


def _as_tasks(
    function: type[torch.autograd.Function], batch: int, dims: Any, inputs: Any, images: int, weights: int
) -> Any:
    """`function` under vmap: its axis and that of tasks become one. `images`: which input those are; behind them come
    so many kinds of `weights`."""
    how, *_ = inputs
    own = range(images + 1, images + 1 + weights * len(how.blocks))
    episodes = inputs[images].shape[0 if dims[images] is None else 0 if dims[images] else 1]
    given: list[Any] = [replace(how, each=True)]
    for number, (value, dim) in enumerate(zip(inputs[1:], dims[1:], strict=True), 1):
        serves_all = isinstance(value, Tensor) and (value.shape == (0,) or (number in own and len(value) == 1))
        if not isinstance(value, Tensor) or (dim is None and serves_all):
            given.append(value)
        else:
            value = value.expand(batch, *value.shape) if dim is None else value.movedim(dim, 0)
            given.append(value.expand(-1, episodes, *value.shape[2:]).flatten(0, 1))
    found = tuple(
        value if value.shape == (0,) else value.unflatten(0, (batch, episodes)) for value in function.apply(*given)
    )
    return found, tuple(None if value.shape == (0,) else 0 for value in found)


def output_sizes(sides: Sequence[int], options: Sequence[Options]) -> list[tuple[int, int]]:
    """Height and width of what each block's convolution gives, of images of these."""
    found = []
    for each in options:
        found.append(_output_size(sides, each))
        sides = _pooled(found[-1], each)
    return found


def _output_size(sides: Sequence[int], options: Options) -> tuple[int, int]:
    return (sides[0] - 1) // options.stride + 1, (sides[1] - 1) // options.stride + 1


def _pooled(sides: Sequence[int], options: Options) -> tuple[int, int]:
    side = 2 if options.pool else 1
    return sides[0] // side, sides[1] // side


def _kept(z: Tensor, x: Tensor) -> Tensor | None:
    """z of images x, or None where it is computed again."""
    return z if x.shape[4] > FEW or z.shape[1:].numel() > FITS else None


def _wanted(value: Tensor | None) -> Tensor | None:
    return None if value is None or value.shape == (0,) else value


def _lengths(values: Sequence[Tensor]) -> list[int]:
    return [len(each) for each in values]


def _as_wide(of_tasks: Sequence[Tensor], lengths: Sequence[int]) -> list[Tensor]:
    """The gradients (T, O) of scales or shifts, summed up where one serves all tasks."""
    return [
        value.sum(0, keepdim=True) if value.shape != (0,) and length < len(value) else value
        for value, length in zip(of_tasks, lengths, strict=True)
    ]


def _shared(x: Tensor, w: Tensor) -> bool:
    """Whether all tasks have one w: theirs may be views of it."""
    return len(w) < len(x) or (len(w) > 1 and w.stride(0) == 0)


def _packed(x: Tensor, w: Tensor) -> Tensor:
    return w[:1] if _shared(x, w) else w


def _summed(x: Tensor, w: Tensor, how: _Pass) -> bool:
    return len(w) < len(x) and not how.each


def _room_of_sums(x: Tensor, w: Tensor, how: _Pass) -> Tensor:
    """For the gradient of each task's weights, or of each part's: of a part without tasks it is zero."""
    if _summed(x, w, how):
        return w.new_zeros(kernel.PARTS, *w.shape[1:])
    return w.new_empty(len(x), *w.shape[1:])


def _over_parts(dws: Sequence[Tensor], xs: Sequence[Tensor], ws: Sequence[Tensor], how: _Pass) -> list[Tensor]:
    """The gradients of weights that tasks share, which each part of the tasks has summed up for itself."""
    return [
        dw.sum(0, keepdim=True) if dw.shape != (0,) and _summed(x, w, how) else dw
        for dw, x, w in zip(dws, xs, ws, strict=True)
    ]


def _wide(channels: Tensor, x: Tensor) -> Tensor:
    return channels.expand(len(x), -1)


class _Run:
    """A pass through blocks, each added with its sizes and tensors, then all run at once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sizes: list[list[int]] = []
        self.tensors: list[list[Tensor | None]] = []  # which live as long as they are worked on

    def add(self, sizes: list[int], *tensors: Tensor | None) -> None:
        self.sizes.append(sizes)
        self.tensors.append([None if each is None else each.contiguous() for each in tensors])

    def go(self, like: Tensor) -> None:
        """In the type of number that `like` has."""
        places = [[0 if each is None else each.data_ptr() for each in block] for block in self.tensors]
        given = torch.tensor(self.sizes), torch.tensor(places), ctypes.c_long(len(places))
        kernel.call(f"blocks_{self.name}_{_NAMES[like.dtype]}", *given)


def _sizes(x: Tensor, w: Tensor, options: Options, how: _Pass) -> list[int]:
    """The sizes, as kernels.c's struct Block has them."""
    k, stride, pool, eps = options
    threads = min(torch.get_num_threads(), len(x))
    (bits,) = struct.unpack("q", struct.pack("d", eps))
    return [
        *x.shape[:2], k, *x.shape[2:], *_output_size(x.shape[2:4], options), w.shape[1], stride, pool, _shared(x, w),
        _summed(x, w, how), threads, bits,
    ]  # fmt: skip
