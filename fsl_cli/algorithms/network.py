"""What inner loops adapt: a backbone with a linear head; and the classifiers and losses made of its fast weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fsl_cli.algorithms import by_class
from fsl_cli.algorithms.inner_loop import Loss, Parameters
from fsl_cli.algorithms.over_tasks import for_each_task, mean_loss
from fsl_cli.algorithms.protonet import prototypes, usual_temperature
from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.errors import UserError

# (network, its parameters, the support set of one task) -> what to call the network with on this task's queries
Learn = Callable[[nn.Module, Parameters, Examples], Parameters]

# What the head of a task starts from: what training has learned, which began with torch's own start or one of MAML's
# authors (normal on Omniglot, xavier on miniImageNet, small on sinusoids; biases 0); or the task's prototypes, whose
# distances are as the paper has them, or scaled as a prototypical network's
Start = Literal["learned", "normal", "xavier", "small"]
HeadInit = Literal["learned", "normal", "xavier", "small", "prototypes", "scaled_prototypes"]
ANY_WAY = " Or train with algo.head_init=prototypes: such a model takes any way."


class Network(nn.Module):
    """Backbone and linear head for one task: (n, *item), the support set's images -> (n, way).

    With `head_init` = "prototypes", or scaled ones, the head is no parameter and has no size; `task_head` makes that of
    a task, whose distances are divided by `temperature`. `way` is the head's number of outputs, None where it has any;
    `adaptable` names all that an inner loop may adapt.
    """

    def __init__(self, backbone: Backbone, way: int | list[int], head_init: HeadInit = "learned") -> None:
        super().__init__()
        refuse_running(backbone)
        self.backbone = backbone
        self.temperature = usual_temperature(backbone.out_features) if head_init == "scaled_prototypes" else 1.0
        self.way = None if head_init in ("prototypes", "scaled_prototypes") else _one_number(way)
        self.head = _TaskHead() if self.way is None else _head(backbone.out_features, self.way, head_init)
        self.adaptable = [f"backbone.{name}" for name, _ in backbone.named_parameters()] + ["head.weight", "head.bias"]

    def forward(self, x: Tensor, support: Tensor | None = None, changes: Changes = NO_CHANGES) -> Tensor:
        features = self.backbone(x.unsqueeze(0), None if support is None else support.unsqueeze(0), changes)
        return self.head(features.squeeze(0))


def refuse_running(backbone: Backbone) -> None:
    """Raises UserError where a backbone's norms keep averages."""
    if backbone.norm == "running":
        raise UserError(
            "norm=running keeps averages over all tasks, which an inner loop cannot follow. "
            "Type norm=support (inductive), norm=transductive, norm=group or norm=none."
        )


def _head(features: int, way: int, start: HeadInit) -> nn.Linear:
    head = nn.Linear(features, way)
    if start != "learned":
        nn.init.zeros_(head.bias)
    if start == "normal":
        nn.init.normal_(head.weight)
    if start == "xavier":
        nn.init.xavier_uniform_(head.weight)
    if start == "small":
        nn.init.trunc_normal_(head.weight, std=0.01, a=-0.02, b=0.02)
    return head


class _TaskHead(nn.Module):
    """A linear head without weights of its own: `functional_call` gives it the weights of a task."""

    weight: Tensor
    bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.bias)


def _one_number(way: int | list[int]) -> int:
    if isinstance(way, int):
        return way
    raise UserError(
        f"way={way}: a learned head has one number of outputs. Type train_way={way[0]}, or algo.head_init=prototypes."
    )


def task_head(net: Any, parameters: Parameters, support: Examples, way: int) -> Parameters:
    """The head that one task starts from, of the support set's features under `parameters`; {} where it is learned."""
    if "head.weight" in parameters:
        return {}
    body = {name.removeprefix("backbone."): value for name, value in parameters.items() if name.startswith("backbone.")}
    features = functional_call(net.get_submodule("backbone"), body, (support.x.unsqueeze(0),)).squeeze(0)  # (n, d)
    return {f"head.{name}": value for name, value in prototype_head(features, support.y, way, net.temperature).items()}


def prototype_head(features: Tensor, y: Tensor, way: int, temperature: float = 1.0) -> Parameters:
    """The linear head of a prototypical network: features (n, d), y (n,) -> weight (way, d), bias (way,).

    Proto-MAML (Triantafillou et al., ICLR 2020, section 3), https://arxiv.org/abs/1903.03096: -|f - c_k|^2 is
    2 c_k f - |c_k|^2 but for |f|^2, which is the same for all classes; all over `temperature`. The head is a function
    of the features, and so of the backbone, which gradients reach through it. Raises UserError in regression, which has
    no classes.
    """
    if y.is_floating_point():
        raise UserError("algo.head_init=prototypes: a regression has no classes. Type algo.head_init=learned.")
    centres = prototypes(features.unsqueeze(0), y.unsqueeze(0), way).squeeze(0)  # (way, d)
    centres = centres.to(torch.promote_types(centres.dtype, torch.float32))  # bfloat16 would lose small steps
    return {"weight": 2 * centres / temperature, "bias": -centres.square().sum(-1) / temperature}


def demand_way(support: Examples, way: int | None, otherwise: str = "") -> int:
    """The number of classes of the episodes; in regression and of characters, which have none, 0.

    Raises UserError when the head has another number of outputs, `way` (None: any); `otherwise` ends its message.
    """
    found = 0 if support.y.is_floating_point() or support.y.ndim > 2 else by_class.way(support)
    if found and way not in (None, found):
        raise UserError(
            f"This model's head has {way} outputs, the episodes have {found} classes. "
            f"{by_class.way_advice(way, found)}{otherwise}"
        )
    return found


def support_loss(net: nn.Module, support: Examples) -> Loss:
    """What inner loops descend on: the loss of one task's support set, under the weights that they have got to."""
    return lambda weights, step: task_loss(functional_call(net, weights, (support.x,)), support.y)


def classifier(net: nn.Module, learn: Learn, support: Examples, one_by_one: bool = False) -> Classifier:
    """What `learn` makes of T support sets, applied to their queries; `one_by_one` as for `for_each_task`."""
    parameters: Parameters = dict(net.named_parameters())
    fast = for_each_task(net, lambda own, task: learn(own, parameters, task), support, one_by_one=one_by_one)
    return with_weights(net, fast, support)


def with_weights(net: nn.Module, fast: Parameters, support: Examples) -> Classifier:
    """The network with weights of each of T tasks, (T, *shape) each, applied to their queries."""

    def classify(own: nn.Module, fast: Parameters, support_x: Tensor, x: Tensor) -> Tensor:
        return functional_call(own, fast, (x, support_x))

    return lambda x: for_each_task(net, classify, fast, support.x, x)


def query_loss(net: nn.Module, learn: Learn, episodes: Episodes, one_by_one: bool = False) -> Tensor:
    """The queries' loss after learning, averaged over T tasks; `one_by_one` as for `for_each_task`."""

    def one(own: nn.Module, parameters: Parameters, support: Examples, query: Examples) -> Tensor:
        return task_loss(functional_call(own, learn(own, parameters, support), (query.x, support.x)), query.y)

    parameters: Parameters = dict(net.named_parameters())
    return mean_loss(net, one, parameters, episodes.support, episodes.query, one_by_one=one_by_one)


def each_query_loss(
    net: nn.Module, learn: Learn, episodes: Episodes, one_by_one: bool = False
) -> tuple[Tensor, Parameters]:
    """The queries' loss after learning of each of T tasks (T,), and what was learned (T, ...), their graphs kept."""
    parameters: Parameters = dict(net.named_parameters())

    def one(own: nn.Module, support: Examples, query: Examples) -> tuple[Tensor, Parameters]:
        fast = learn(own, parameters, support)
        return task_loss(functional_call(own, fast, (query.x, support.x)), query.y), fast

    return for_each_task(net, one, episodes.support, episodes.query, one_by_one=one_by_one)
