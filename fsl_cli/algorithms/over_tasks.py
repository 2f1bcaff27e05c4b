"""What is written for one task, mapped over T tasks.

Under `torch.func.vmap` each operation takes several tasks: all of them on an accelerator, and on a CPU where that is
faster, see `_at_once`. Otherwise a CPU takes them one by one, as many at a time as torch has threads: small operations
use one core each far better than two cores one operation.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_leaves, tree_map

from fsl_cli.algorithms.inner_loop import Parameters
from fsl_cli.backbones.base import Backbone

SMALL = 1 << 20  # multiply-adds of a pass up to which tasks go side by side on a CPU
ROOM = 1 << 23  # numbers of the images that go side by side through blocks: a gigabyte or two of activations for Conv4
ROOM_OF_ONE_CORE = 1 << 20  # on which tasks of larger images are faster one by one, as torch convolves these


def for_each_task(net: nn.Module, function: Callable[..., Any], *tasks: Any, one_by_one: bool = False) -> Any:
    """`function(net, *task)` for each of T tasks, the results stacked along a new first axis.

    `tasks` are tensors, or tuples and dictionaries of tensors, whose first axis is T. The function must use
    the `net` that it is given, a copy of its own for each thread: `torch.func.functional_call` puts the
    parameters of a task into the module while it runs. `one_by_one`: on a CPU never side by side.
    """
    size = _at_once(net, tasks, one_by_one)
    if not size:
        return tree_map(lambda *parts: torch.stack(parts), *_by_threads(net, function, _split(tasks, 0)))
    results = [_side_by_side(function)(net, *group) for group in _split(tasks, size)]
    return results[0] if len(results) == 1 else tree_map(lambda *parts: torch.cat(parts), *results)


def mean_loss(
    net: nn.Module, function: Callable[..., Tensor], parameters: Parameters, *tasks: Any, one_by_one: bool = False
) -> Tensor:
    """The mean over T tasks of the scalar `function(net, parameters, *task)`, differentiable in `parameters`.

    Where tasks are taken one by one, or in groups, the gradient of each is computed as soon as its loss is known and
    its graph is freed, so memory does not grow with T. `one_by_one` as for `for_each_task`.
    """
    size = _at_once(net, tasks, one_by_one)
    if size >= _count(tasks) or not torch.is_grad_enabled():
        return for_each_task(
            net, lambda own, *task: function(own, parameters, *task), *tasks, one_by_one=one_by_one
        ).mean()
    return _MeanLoss.apply(net, function, list(parameters), tasks, size, *parameters.values())


class _MeanLoss(torch.autograd.Function):
    """Losses and gradients of all tasks, computed in `forward`, handed out in `backward`."""

    @staticmethod
    def forward(
        ctx: Any, net: nn.Module, function: Any, names: list[str], tasks: Any, size: int, *values: Tensor
    ) -> Tensor:
        def one(own: nn.Module, *group: Any) -> tuple[Tensor, ...]:
            with torch.enable_grad():
                leaves = [value.detach().requires_grad_() for value in values]
                start = dict(zip(names, leaves, strict=True))

                def loss_of(own: nn.Module, *task: Any) -> Tensor:
                    return function(own, start, *task)

                loss = (_side_by_side(loss_of) if size else loss_of)(own, *group).sum()
                return loss.detach(), *torch.autograd.grad(loss, leaves, materialize_grads=True)

        groups = _split(tasks, size)
        results = (one(net, *group) for group in groups) if size else _by_threads(net, one, groups)
        total = [part.clone() for part in next(results)]
        for parts in results:  # in the order of the tasks, so that the sum is always the same to the last bit
            for whole, part in zip(total, parts, strict=True):
                whole += part
        loss, *ctx.gradients = [whole / _count(tasks) for whole in total]
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        return None, None, None, None, None, *(upstream * gradient for gradient in ctx.gradients)


def _side_by_side(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(net, *task)` of a group of tasks."""
    return lambda net, *tasks: vmap(lambda *task: function(net, *task), randomness="different")(*tasks)


def _count(tasks: Any) -> int:
    return len(tree_leaves(tasks)[0])


def _split(tasks: Any, size: int) -> list[Any]:
    """Groups of `size` tasks; 0: single tasks, without the first axis."""
    if not size:
        return [tree_map(lambda tensor, i=i: tensor[i], tasks) for i in range(_count(tasks))]
    return [tree_map(lambda tensor, i=i: tensor[i : i + size], tasks) for i in range(0, _count(tasks), size)]


def _at_once(net: nn.Module, tasks: Any, one_by_one: bool = False) -> int:
    """How many tasks each operation takes at once: all on an accelerator; on a CPU 0, one by one, but for two cases.

    Small tasks: a pass has no more multiply-adds than the product of a task's numbers and the network's. For 4 to 25
    tasks on one core, side by side was 1.7 to 10 times as fast up to a million of them, 1.1 to 1.8 times at three
    million, and 0.9 to 1.3 times for Conv4 of 32 and 64 filters without compiled blocks.

    Networks of compiled blocks, which use all threads by themselves: as many tasks as have ROOM numbers. The more, the
    better: a step of MAML with 15 queries a class and 32 tasks at once took 0.40 s on one core, 16 at once 0.42, 8 at
    once 0.46, 4 at once 0.51, one by one 0.81; on two cores 0.23, 0.26, 0.32, 0.38 and 0.57 s. Of 84 x 84 pixels,
    5 steps, 4 tasks at once 1.07 s on one core, one by one 0.98; on two 0.60 and 0.76 s, and no more memory.

    Not under autocast, which is without effect inside vmap on a CPU.
    """
    count = _count(tasks)
    if tree_leaves(tasks)[0].device.type != "cpu":
        return count
    if one_by_one or count == 1 or torch.is_autocast_enabled("cpu"):
        return 0
    examples = [leaf for task in tasks if not isinstance(task, dict) for leaf in tree_leaves(task)]  # not the weights
    numbers = sum(leaf.numel() for leaf in examples) // count
    if numbers * sum(each.numel() for each in net.parameters()) <= SMALL:
        return count
    if any(isinstance(module, Backbone) and module.compiled for module in net.modules()):
        room = ROOM if torch.get_num_threads() > 1 else ROOM_OF_ONE_CORE
        size = min(room // numbers, count)
        return size if size > 1 else 0
    return 0


def _by_threads(net: nn.Module, function: Callable[..., Any], tasks: list[Any]) -> Iterator[Any]:
    """Results in the order of the tasks, computed by as many threads as torch would use for one operation."""
    threads = min(torch.get_num_threads(), len(tasks))
    if threads == 1:
        yield from (function(net, *task) for task in tasks)
        return
    shared = {id(tensor): tensor for tensor in [*net.parameters(), *net.buffers()]}
    copies: SimpleQueue[nn.Module] = SimpleQueue()
    for _ in range(threads):
        copies.put(copy.deepcopy(net, dict(shared)))
    state = _thread_state()

    def run(task: Any) -> Any:
        own = copies.get()
        try:
            with state():
                return function(own, *task)
        finally:
            copies.put(own)

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # whoever sums the results up meanwhile must not wait for a second core
    try:
        yield from _pool(threads).map(run, tasks)
    finally:
        torch.set_num_threads(before)


def _thread_state() -> Callable[[], Any]:
    """The caller's gradient and autocast modes, which torch keeps per thread, for use in another thread."""
    gradients, autocast = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu")

    @contextmanager
    def state() -> Iterator[None]:
        with torch.set_grad_enabled(gradients), torch.autocast("cpu", dtype, enabled=autocast):
            yield

    return state


_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # a forked process has the pools, but not their threads


def _pool(threads: int) -> ThreadPoolExecutor:
    """Worker threads that leave each operation to one core; kept, as starting them costs more than a task."""
    with _lock:
        if threads not in _pools:
            _pools[threads] = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        return _pools[threads]
