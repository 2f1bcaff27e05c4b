"""Adaptation by gradient steps on dictionaries of parameters, for one task, and its mapping over T tasks.

On a CPU the tasks are taken one by one, as many at once as torch has threads: small convolutions use one core
each far better than two cores one convolution. On an accelerator `torch.func.vmap` does all tasks in one go, and on a
CPU too those whose Python takes longer than their arithmetic, such as regression's: see `_side_by_side`.
"""

from __future__ import annotations

import copy
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

SMALL = 1 << 20  # multiply-adds of a pass up to which tasks go side by side on a CPU

Parameters = dict[str, Tensor]
Loss = Callable[[Parameters, int], Tensor]  # (weights, number of the step) -> what the step descends on


class Rule(NamedTuple):
    """How gradients move the fast weights. `state` is handed from step to step; what is learned must be in it."""

    init: Callable[[Parameters], Any]  # fast weights -> state, tensors in tuples and dictionaries
    update: Callable[[int, Parameters, Parameters, Any], tuple[Parameters, Any]]  # step, fast weights, gradients, state


def sgd(lr: float) -> Rule:
    """Plain gradient descent: w - lr * g."""

    def update(step: int, fast: Parameters, gradients: Parameters, state: tuple[()]) -> tuple[Parameters, tuple[()]]:
        return {name: fast[name] - lr * gradients[name] for name in fast}, state

    return Rule(lambda fast: (), update)


def momentum_sgd(lr: float, momentum: float, dampening: float, weight_decay: float) -> Rule:
    """torch.optim.SGD: w - lr * v, v = momentum * v + (1 - dampening) * (g + weight_decay * w), the first v in full."""

    def update(step: int, fast: Parameters, gradients: Parameters, last: Parameters) -> tuple[Parameters, Any]:
        decayed = {name: gradients[name] + weight_decay * fast[name] for name in fast}
        if step:
            decayed = {name: momentum * last[name] + (1 - dampening) * value for name, value in decayed.items()}
        return {name: fast[name] - lr * decayed[name] for name in fast}, decayed

    return Rule(lambda fast: {name: torch.zeros_like(value) for name, value in fast.items()}, update)


def adam(
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    squares: tuple[Parameters, Tensor] | None = None,
) -> Rule:
    """Adam (Kingma & Ba 2015); for first order, as its root has no derivative at a gradient of zero.

    The state is the running means of the gradients and of their squares, and the weight of the gradients in the latter
    (1 - beta2^steps, the rest being the zeros that they began as). `squares`: such means and weight to begin with.
    """

    def init(fast: Parameters) -> tuple[Parameters, Parameters, Tensor]:
        first, second = ({name: torch.zeros_like(value) for name, value in fast.items()} for _ in range(2))
        return first, *(squares or (second, next(iter(fast.values())).new_zeros(())))

    def update(step: int, fast: Parameters, gradients: Parameters, state: Any) -> tuple[Parameters, Any]:
        first = {name: beta1 * mean + (1 - beta1) * gradients[name] for name, mean in state[0].items()}
        second = {name: beta2 * mean + (1 - beta2) * gradients[name].square() for name, mean in state[1].items()}
        weight = beta2 * state[2] + (1 - beta2)
        rate, unbias = lr / (1 - beta1 ** (step + 1)), weight.rsqrt()
        moved = {name: fast[name] - rate * first[name] / (unbias * second[name].sqrt() + eps) for name in fast}
        return moved, (first, second, weight)

    return Rule(init, update)


def adapt(
    loss: Loss,
    parameters: Parameters,
    names: set[str],
    steps: int,
    rule: Rule,
    first_order: bool = False,
    checkpoint: bool = False,
) -> Parameters:
    """`parameters` with those in `names` replaced by fast weights, after `steps` updates on `loss`.

    Each parameter is a variable of its own to the steps, even one that is made of others, as a head of prototypes is.
    The result is differentiable with respect to `parameters`, through every step; with `first_order` each
    step's gradient counts as a constant, and no graph of the steps is kept. With `checkpoint` the graph of a
    step is built again in the backward pass instead of being kept: memory for a third more time (one by one only).
    """
    last = deque([parameters], maxlen=1)
    last.extend(trajectory(loss, parameters, names, steps, rule, first_order, checkpoint))
    return last.pop()


def trajectory(
    loss: Loss,
    parameters: Parameters,
    names: set[str],
    steps: int,
    rule: Rule,
    first_order: bool = False,
    checkpoint: bool = False,
) -> Iterator[Parameters]:
    """The parameters after each of the `steps` updates; see `adapt`."""
    # as views: the gradient of a parameter must not go on through what was made of it
    fast = {name: parameters[name].view_as(parameters[name]) for name in parameters if name in names}
    rest = {name: parameters[name] for name in parameters if name not in names}
    state = rule.init(fast)

    def step(number: int, fast: Parameters, rest: Parameters, state: Any) -> tuple[Parameters, Any]:
        constant = first_order or not torch.is_grad_enabled()
        start, fixed = (_detach(fast), _detach(rest)) if constant else (fast, rest)
        gradients = _gradients(lambda weights: loss({**fixed, **weights}, number), start, not constant)
        return rule.update(number, fast, gradients, state)

    for number in range(steps):
        one = partial(step, number)
        fast, state = _rebuilt(one, fast, rest, state) if checkpoint else one(fast, rest, state)
        yield {**rest, **fast}


def _gradients(loss: Callable[[Parameters], Tensor], at: Parameters, differentiable: bool) -> Parameters:
    """The gradient of `loss` with respect to each of `at`; with `differentiable` it has a graph of its own."""
    if torch._C._functorch.peek_interpreter_stack() is not None:  # inside vmap, which torch.autograd does not know
        return grad(loss)(at)
    with torch.enable_grad():
        at = {name: value if value.requires_grad else value.detach().requires_grad_() for name, value in at.items()}
        inputs = list(at.values())
        found = torch.autograd.grad(loss(at), inputs, create_graph=differentiable, materialize_grads=True)
    return dict(zip(at, found, strict=True))


def _rebuilt(function: Callable[..., Any], *inputs: Any) -> Any:
    """`function(*inputs)`, its graph thrown away and built again in the backward pass; on a CPU, not under vmap."""
    leaves, spec = tree_flatten(inputs)
    shape: list[Any] = []
    return tree_unflatten(list(_Rebuilt.apply(function, spec, shape, *leaves)), shape[0])


class _Rebuilt(torch.autograd.Function):
    """As torch.utils.checkpoint's reentrant form, which torch.autograd.grad refuses."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Any], spec: Any, shape: list[Any], *leaves: Tensor) -> Any:
        ctx.function, ctx.spec = function, spec
        ctx.save_for_backward(*leaves)
        results, made = tree_flatten(function(*tree_unflatten([leaf.detach() for leaf in leaves], spec)))
        shape.append(made)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        leaves = [leaf.detach().requires_grad_() for leaf in ctx.saved_tensors]
        with torch.enable_grad():
            results = tree_flatten(ctx.function(*tree_unflatten(leaves, ctx.spec)))[0]
        wanted = [(result, by) for result, by in zip(results, upstream, strict=True) if result.requires_grad]
        outputs, by = zip(*wanted, strict=True)
        return None, None, None, *torch.autograd.grad(outputs, leaves, by, materialize_grads=True)


def for_each_task(net: nn.Module, function: Callable[..., Any], *tasks: Any, one_by_one: bool = False) -> Any:
    """`function(net, *task)` for each of T tasks, the results stacked along a new first axis.

    `tasks` are tensors, or tuples and dictionaries of tensors, whose first axis is T. The function must use
    the `net` that it is given, a copy of its own for each thread: `torch.func.functional_call` puts the
    parameters of a task into the module while it runs. `one_by_one`: on a CPU never side by side.
    """
    if _side_by_side(net, tasks, one_by_one):
        return vmap(lambda *task: function(net, *task), randomness="different")(*tasks)
    results = list(_one_by_one(net, function, tasks))
    return tree_map(lambda *parts: torch.stack(parts), *results)


def mean_loss(
    net: nn.Module, function: Callable[..., Tensor], parameters: Parameters, *tasks: Any, one_by_one: bool = False
) -> Tensor:
    """The mean over T tasks of the scalar `function(net, parameters, *task)`, differentiable in `parameters`.

    Taken one by one, each task's gradient is computed as soon as its loss is known and its graph is freed, so memory
    does not grow with T. `one_by_one` as for `for_each_task`.
    """
    if _side_by_side(net, tasks, one_by_one):
        return vmap(lambda *task: function(net, parameters, *task), randomness="different")(*tasks).mean()
    if not torch.is_grad_enabled():
        return for_each_task(net, lambda own, *task: function(own, parameters, *task), *tasks, one_by_one=True).mean()
    return _MeanLoss.apply(net, function, list(parameters), tasks, *parameters.values())


class _MeanLoss(torch.autograd.Function):
    """Losses and gradients of all tasks, computed in `forward`, handed out in `backward`."""

    @staticmethod
    def forward(ctx: Any, net: nn.Module, function: Any, names: list[str], tasks: Any, *values: Tensor) -> Tensor:
        def one(own: nn.Module, *task: Any) -> tuple[Tensor, ...]:
            with torch.enable_grad():
                leaves = [value.detach().requires_grad_() for value in values]
                loss = function(own, dict(zip(names, leaves, strict=True)), *task)
                return loss.detach(), *torch.autograd.grad(loss, leaves, materialize_grads=True)

        results = _one_by_one(net, one, tasks)
        total = [part.clone() for part in next(results)]
        count = 1
        for parts in results:  # in the order of the tasks, so that the sum is always the same to the last bit
            count += 1
            for whole, part in zip(total, parts, strict=True):
                whole += part
        loss, *ctx.gradients = [whole / count for whole in total]
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        return None, None, None, None, *(upstream * gradient for gradient in ctx.gradients)


def _one_by_one(net: nn.Module, function: Callable[..., Any], tasks: Any) -> Iterator[Any]:
    """Results in the order of the tasks, computed by as many threads as torch would use for one operation."""
    count = len(tree_leaves(tasks)[0])
    threads = min(torch.get_num_threads(), count)
    take = [tree_map(lambda tensor, i=i: tensor[i], tasks) for i in range(count)]
    if threads == 1:
        yield from (function(net, *task) for task in take)
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
        yield from _pool(threads).map(run, take)
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


def _side_by_side(net: nn.Module, tasks: Any, one_by_one: bool = False) -> bool:
    """Whether each operation takes all tasks at once: on an accelerator, and for several small tasks on a CPU.

    A pass has no more multiply-adds than the product of a task's numbers and the network's. For 4 to 25 tasks on one
    core, side by side was 1.7 to 10 times as fast up to a million of them, 1.1 to 1.8 times at three million, and 0.9
    to 1.3 times for Conv4 of 32 and 64 filters, where threads over tasks gain more and need no memory for all of them.
    Not under autocast, which is without effect inside vmap on a CPU.
    """
    first = tree_leaves(tasks)[0]
    if first.device.type != "cpu":
        return True
    if one_by_one or len(first) == 1 or torch.is_autocast_enabled("cpu"):
        return False
    examples = [leaf for task in tasks if not isinstance(task, dict) for leaf in tree_leaves(task)]  # not the weights
    numbers = sum(leaf.numel() for leaf in examples) // len(first)
    return numbers * sum(each.numel() for each in net.parameters()) <= SMALL


def _detach(parameters: Parameters) -> Parameters:
    return {name: value.detach() for name, value in parameters.items()}
