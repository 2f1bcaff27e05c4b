"""Implicit MAML (Rajeswaran, Finn, Kakade and Levine, NeurIPS 2019), https://arxiv.org/abs/1909.04630

The inner loop minimises the support set's loss plus a penalty on the distance from the start, until it converges. How
the minimum moves with the start depends on the minimum alone, not on the steps: the meta-gradient is the gradient of
the queries' loss times the inverse of the objective's Hessian, which conjugate gradients compute. So neither memory nor
the backward pass grows with the number of inner steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Loss, Parameters, Rule, adapt, detached, gradients_of, in_vmap, sgd
from fsl_cli.algorithms.network import Network, Start, classifier, demand_way, support_loss
from fsl_cli.algorithms.over_tasks import for_each_task, mean_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.errors import UserError
from fsl_cli.ranges import Count, Natural, Rate, Weight

LONGER = 1.2  # times as far goes a step after one that has not raised the objective
OneLoss = Callable[[Parameters], Tensor]


class IMAML(Algorithm):
    """Gradient descent on a proximal objective, from a learned initialisation of backbone and linear head.

    A task's weights are the minimum of L_S(phi) + `penalty` / 2 * |phi - theta|^2, by `inner_steps` steps (`test_steps`
    in validation and test) of `inner_lr`: enough of them to converge, as the meta-gradient is that of the minimum.
    A test says how much of the objective's gradient is left. With `take_back` a step that has raised the objective is
    taken back, and the next one goes half as far; else it goes a fifth farther.
    `cg_steps` are steps of conjugate gradients; 0 is first order. `damping` is added to the penalty in their equations
    alone, which a network's Hessian needs where it bends down by more than the penalty, as that of Conv4 does. `frozen`
    and `head_init` as for MAML, but for "prototypes"; weights that the inner loop leaves alone get their exact gradient
    too.
    """

    regresses = True

    def __init__(
        self,
        backbone: Backbone,
        way: Count,
        inner_lr: Rate,
        inner_steps: Natural,
        test_steps: Natural,
        penalty: Rate = 2.0,
        cg_steps: Natural = 5,
        damping: Weight = 0.0,
        take_back: bool = False,
        frozen: str = "norm",
        head_init: Start = "learned",
    ) -> None:
        super().__init__()
        if inner_lr * penalty >= 2 and not take_back:
            raise UserError(
                f"algo.inner_lr={inner_lr:g} and algo.penalty={penalty:g}: such steps go beyond the start, and ever "
                "farther. Type algo.take_back=true, or less than 2 / penalty, such as "
                f"algo.inner_lr={0.5 / penalty:.2g}."
            )
        self.net = Network(backbone, way, head_init)
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.test_steps = test_steps
        self.penalty = penalty
        self.cg_steps = cg_steps
        self.damping = damping
        self.take_back = take_back
        self.adapted = {name for name in self.net.adaptable if not re.search(frozen, name)}

    def adapt(self, support: Examples) -> Classifier:
        demand_way(support, self.net.way)
        return classifier(self.net, self._fast_weights, support)

    def loss(self, episodes: Episodes) -> Tensor:
        """The queries' loss at each task's minimum; its gradient does not depend on the inner steps."""

        def one(net: nn.Module, parameters: Parameters, support: Examples, query: Examples) -> Tensor:
            fast = detached(self._fast_weights(net, parameters, support))
            on_support = support_loss(net, support)

            def on_queries(weights: Parameters) -> Tensor:
                return task_loss(functional_call(net, weights, (query.x, support.x)), query.y)

            phi = {name: value for name, value in fast.items() if name in self.adapted}
            penalty = self.penalty + self.damping
            return at_minimum(
                lambda weights: on_support(weights, 0), on_queries, parameters, phi, penalty, self.cg_steps
            )

        return mean_loss(self.net, one, dict(self.net.named_parameters()), episodes.support, episodes.query)

    def unsolved(self, support: Examples, steps: int) -> Tensor:
        """What is left of the proximal objective's gradient after so many steps on T support sets, as a share: (T,).

        Of its length at the start; 0 at the minimum.
        """
        parameters: Parameters = dict(self.net.named_parameters())

        def one(net: nn.Module, own: Examples) -> Tensor:
            loss = self._objective(net, parameters, own)
            lengths = []
            for count in (0, steps):
                fast = detached(self._stepped(loss, parameters, count))
                phi = {name: fast[name] for name in self.adapted}
                rest = {name: value for name, value in fast.items() if name not in phi}
                gradients, _ = gradients_of(partial(_at, loss, rest), phi, differentiable=False)
                lengths.append(_vector(gradients).norm())
            return lengths[1] / lengths[0]

        return for_each_task(self.net, one, support)

    def _fast_weights(self, net: nn.Module, parameters: Parameters, support: Examples) -> Parameters:
        steps = self.inner_steps if self.training else self.test_steps
        return self._stepped(self._objective(net, parameters, support), parameters, steps)

    def _objective(self, net: nn.Module, parameters: Parameters, support: Examples) -> Loss:
        start = detached({name: value for name, value in parameters.items() if name in self.adapted})
        return proximal(support_loss(net, support), start, self.penalty)

    def _stepped(self, loss: Loss, parameters: Parameters, steps: int) -> Parameters:
        rule = descending(self.inner_lr) if self.take_back else sgd(self.inner_lr)
        return adapt(loss, parameters, self.adapted, steps, rule, first_order=True)


class _Best(NamedTuple):
    """Where the loss was least, and how far the next step goes from there."""

    fast: Parameters
    gradients: Parameters
    loss: Tensor  # ()
    rate: Tensor  # ()


def descending(lr: float) -> Rule:
    """Gradient descent from where the loss was least: half as far where a step has raised it, else a fifth farther."""

    def init(fast: Parameters) -> _Best:
        nothing = {name: torch.zeros_like(value) for name, value in fast.items()}
        one = next(iter(fast.values())).new_ones(())
        return _Best(fast, nothing, one * torch.inf, one * lr / LONGER)

    def update(step: int, fast: Parameters, gradients: Parameters, loss: Tensor, best: Any) -> tuple[Parameters, Any]:
        better = loss <= best.loss  # not where it is no number
        here = {name: torch.where(better, value, best.fast[name]) for name, value in fast.items()}
        down = {name: torch.where(better, value, best.gradients[name]) for name, value in gradients.items()}
        rate = best.rate * torch.where(better, LONGER, 0.5)
        after = {name: here[name] - rate * down[name] for name in here}
        return after, _Best(here, down, torch.where(better, loss, best.loss), rate)

    return Rule(init, update)


def _at(loss: Loss, rest: Parameters, weights: Parameters) -> Tensor:
    return loss({**rest, **weights}, 0)


def proximal(loss: Loss, start: Parameters, penalty: float) -> Loss:
    """`loss` plus half the squared distance from `start`, times `penalty`."""

    def total(weights: Parameters, step: int) -> Tensor:
        distances = [(weights[name] - value).square().sum() for name, value in start.items()]
        return loss(weights, step) + penalty / 2 * torch.stack(distances).sum()

    return total


def at_minimum(
    on_support: OneLoss, on_queries: OneLoss, parameters: Parameters, phi: Parameters, penalty: float, steps: int
) -> Tensor:
    """The queries' loss at `phi`, a constant, with the gradient that it has if phi is the inner objective's minimum.

    At the minimum dL_S/dphi + penalty * (phi - theta) = 0. With H the Hessian of L_S in phi, and
    v = (H + penalty)^-1 dL_Q/dphi, the gradient with respect to theta is penalty * v, and that with respect to the
    parameters that are not in `phi` their own of L_Q less that of v' dL_S/dphi.
    """
    rest = {name: value for name, value in parameters.items() if name not in phi}
    towards, value = gradients_of(lambda weights: on_queries({**rest, **weights}), phi, True)
    gradient, times_hessian = _products(lambda weights: on_support({**rest, **weights}), phi)
    shapes = {name: each.shape for name, each in phi.items()}

    def product(vector: Tensor) -> Tensor:
        return _vector(times_hessian(_parts(vector, shapes))) + penalty * vector

    v = _parts(conjugate_gradients(product, _vector(detached(towards)), penalty, steps), shapes)
    terms = [value]
    for name in phi:
        theta = parameters[name]
        terms.append(
            (v[name] * (penalty * (theta - theta.detach()) - (gradient[name] - gradient[name].detach()))).sum()
        )
    return torch.stack(terms).sum()


def conjugate_gradients(product: Callable[[Tensor], Tensor], target: Tensor, penalty: float, steps: int) -> Tensor:
    """The v with (H + penalty) v = target, `product` being that matrix times a vector: exact after as many as v has.

    It starts at target / penalty, which is the solution for H = 0. It stops at a direction whose curvature is not
    positive, which the Hessian of a network may have.
    """
    found = target / penalty
    left = target - product(found) if steps else target
    direction, square = left, left @ left
    for _ in range(steps):
        curved = product(direction)
        curvature = direction @ curved
        going = curvature > 0  # False too where nothing is left to do
        length = torch.where(going, square / torch.where(going, curvature, 1.0), 0.0)
        found, left = found + length * direction, left - length * curved
        before, square = square, left @ left
        direction = torch.where(going, left + square / torch.where(going, before, 1.0) * direction, direction)
    return found


def _products(loss: OneLoss, at: Parameters) -> tuple[Parameters, Callable[[Parameters], Parameters]]:
    """The gradient at `at`, with a graph to the other inputs of `loss`, and what multiplies by the Hessian."""
    if in_vmap():
        found, pull, *_ = vjp(grad(loss), at)
        return found, lambda vector: detached(pull(vector)[0])
    with torch.enable_grad():
        leaves = {name: value.detach().requires_grad_() for name, value in at.items()}
        inputs = list(leaves.values())
        made = torch.autograd.grad(loss(leaves), inputs, create_graph=True, materialize_grads=True)
    bending = [each.requires_grad for each in made]  # False: of a weight that enters linearly and alone

    def times(vector: Parameters) -> Parameters:
        outputs, by = (
            [each for each, used in zip(some, bending, strict=True) if used] for some in (made, vector.values())
        )
        products = torch.autograd.grad(outputs, inputs, by, retain_graph=True, materialize_grads=True)
        return dict(zip(at, products, strict=True))

    return dict(zip(at, made, strict=True)), times


def _vector(parameters: Parameters) -> Tensor:
    return torch.cat([value.reshape(-1) for value in parameters.values()])


def _parts(vector: Tensor, shapes: dict[str, torch.Size]) -> Parameters:
    parts = vector.split([shape.numel() for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
