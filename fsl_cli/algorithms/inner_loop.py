"""Adaptation by gradient steps on dictionaries of parameters, for one task. `over_tasks` maps it over T tasks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import _add_batch_dim, _remove_batch_dim
from torch._functorch.pyfunctorch import VmapInterpreter, coerce_cinterpreter, temporarily_pop_interpreter_stack
from torch.func import grad_and_value
from torch.utils._pytree import tree_flatten, tree_unflatten

Parameters = dict[str, Tensor]
Loss = Callable[[Parameters, int], Tensor]  # (weights, number of the step) -> what the step descends on


class Rule(NamedTuple):
    """How gradients move the fast weights. `state` is handed from step to step; what is learned must be in it."""

    init: Callable[[Parameters], Any]  # fast weights -> state, tensors in tuples and dictionaries
    # (step, fast weights, gradients, loss, state) -> fast weights, state
    update: Callable[[int, Parameters, Parameters, Tensor, Any], tuple[Parameters, Any]]


@dataclass
class Watch:
    """What is seen of an inner loop of one task on a CPU, for pictures; or where it is said to have ended."""

    path: list[Parameters] = field(default_factory=list)  # the fast weights before the first step, and after each
    ended: Parameters | None = None  # fast weights that stand in place of those after any step


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """While inside, inner loops are seen by `watch`, or end where it says."""
    before = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(before)


def sgd(lr: float) -> Rule:
    """Plain gradient descent: w - lr * g."""

    def update(step: int, fast: Parameters, gradients: Parameters, loss: Tensor, state: Any) -> tuple[Parameters, Any]:
        return {name: torch.sub(fast[name], gradients[name], alpha=lr) for name in fast}, state  # read only once

    return Rule(lambda fast: (), update)


def momentum_sgd(lr: float, momentum: float, dampening: float, weight_decay: float) -> Rule:
    """torch.optim.SGD: w - lr * v, v = momentum * v + (1 - dampening) * (g + weight_decay * w), the first v in full."""

    def update(step: int, fast: Parameters, gradients: Parameters, loss: Tensor, last: Any) -> tuple[Parameters, Any]:
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

    def update(step: int, fast: Parameters, gradients: Parameters, loss: Tensor, state: Any) -> tuple[Parameters, Any]:
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
    watch = _watch.get()
    if watch and watch.ended is not None:
        yield from [{**rest, **watch.ended}] * steps
        return
    if watch:
        watch.path.append(detached(fast))
    state = rule.init(fast)

    def step(number: int, fast: Parameters, rest: Parameters, state: Any) -> tuple[Parameters, Any]:
        constant = first_order or not torch.is_grad_enabled()
        start, fixed = (detached(fast), detached(rest)) if constant else (fast, rest)
        gradients, value = gradients_of(lambda weights: loss({**fixed, **weights}, number), start, not constant)
        return rule.update(number, fast, gradients, value, state)

    for number in range(steps):
        one = partial(step, number)
        fast, state = _rebuilt(one, fast, rest, state) if checkpoint else one(fast, rest, state)
        if watch:
            watch.path.append(detached(fast))
        yield {**rest, **fast}


def gradients_of(
    loss: Callable[[Parameters], Tensor], at: Parameters, differentiable: bool
) -> tuple[Parameters, Tensor]:
    """The gradient of `loss` with respect to each of `at`, and its value; `differentiable`: with their graphs."""
    if not in_vmap():
        with torch.enable_grad():
            at = _variables(at)
            value = loss(at)
            found = _derivatives(value, at, differentiable)
        return found, value if differentiable else value.detach()
    vmap = coerce_cinterpreter(torch._C._functorch.peek_interpreter_stack())
    if vmap.level() > 1 or not isinstance(vmap, VmapInterpreter):  # in another transformation
        return grad_and_value(loss)(at)
    return _gradients_of_tasks(loss, at, differentiable, vmap)


def _gradients_of_tasks(
    loss: Callable[[Parameters], Tensor], at: Parameters, differentiable: bool, vmap: VmapInterpreter
) -> tuple[Parameters, Tensor]:
    """`gradients_of` for all tasks that go side by side, by torch.autograd, which does not see their axis.

    Each has weights of its own, so the gradient of the sum of their losses is that of each. `torch.func.grad` would
    pass through every operation once more, in Python, which took a tenth of a first-order step.
    """
    level, tasks = vmap.level(), vmap.batch_size()
    with torch.enable_grad():
        with temporarily_pop_interpreter_stack():
            own = _variables({name: _remove_batch_dim(value, level, tasks, 0) for name, value in at.items()})
        value = loss({name: _add_batch_dim(each, 0, level) for name, each in own.items()})
        with temporarily_pop_interpreter_stack():
            values = _remove_batch_dim(value, level, tasks, 0)
            found = _derivatives(values.sum(), own, differentiable)
            values = values if differentiable else values.detach()
    return {name: _add_batch_dim(each, 0, level) for name, each in found.items()}, _add_batch_dim(values, 0, level)


def _variables(values: Parameters) -> Parameters:
    return {name: value if value.requires_grad else value.detach().requires_grad_() for name, value in values.items()}


def _derivatives(value: Tensor, by: Parameters, differentiable: bool) -> Parameters:
    found = torch.autograd.grad(value, list(by.values()), create_graph=differentiable, materialize_grads=True)
    return dict(zip(by, found, strict=True))


def in_vmap() -> bool:
    """Whether tasks go side by side here, of which torch.autograd does not know, but torch.func does."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def detached(parameters: Parameters) -> Parameters:
    """The same numbers as constants."""
    return {name: value.detach() for name, value in parameters.items()}


def _rebuilt(function: Callable[..., Any], *inputs: Any) -> Any:
    """`function(*inputs)`, its graph thrown away and built again in the backward pass; on a CPU, not under vmap."""
    leaves, spec = tree_flatten(inputs)
    shape: list[Any] = []
    return tree_unflatten(list(_Rebuilt.apply(function, spec, shape, *leaves)), shape[0])


class _Rebuilt(torch.autograd.Function):
    """What torch.utils.checkpoint does in its reentrant form, which torch.autograd.grad refuses."""

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
