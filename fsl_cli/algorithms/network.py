"""What inner loops adapt: a backbone with a linear head; and what is made of the fast weights that come out."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.func import functional_call

from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.errors import UserError
from fsl_cli.inner_loop import Parameters, for_each_task, mean_loss

# (network, its parameters, the support set of one task) -> what to call the network with on this task's queries
Learn = Callable[[nn.Module, Parameters, Examples], Parameters]


class Network(nn.Module):
    """Backbone and linear head for one task: (n, *item), the support set's images -> (n, way)."""

    def __init__(self, backbone: Backbone, way: int) -> None:
        super().__init__()
        if backbone.norm == "running":
            raise UserError(
                "norm=running keeps averages over all tasks, which an inner loop cannot follow. "
                "Type norm=support (inductive), norm=transductive, norm=group or norm=none."
            )
        self.backbone = backbone
        self.head = nn.Linear(backbone.out_features, way)

    def forward(self, x: Tensor, support: Tensor | None = None, changes: Changes = NO_CHANGES) -> Tensor:
        features = self.backbone(x.unsqueeze(0), None if support is None else support.unsqueeze(0), changes)
        return self.head(features.squeeze(0))


def demand_way(support: Examples, way: int) -> None:
    """Raises UserError when the episodes have another number of classes than the head has outputs."""
    if not support.y.is_floating_point() and int(support.y.max()) + 1 != way:
        raise UserError(
            f"This model's head has {way} outputs, the episodes have {int(support.y.max()) + 1} classes. "
            f"Type way={way}, or train with way={int(support.y.max()) + 1}."
        )


def classifier(net: nn.Module, learn: Learn, support: Examples) -> Classifier:
    """What `learn` makes of T support sets, applied to their queries."""
    parameters: Parameters = dict(net.named_parameters())

    def classify(own: nn.Module, fast: Parameters, support_x: Tensor, x: Tensor) -> Tensor:
        return functional_call(own, fast, (x, support_x))

    fast = for_each_task(net, lambda own, support: learn(own, parameters, support), support)
    return lambda x: for_each_task(net, classify, fast, support.x, x)


def query_loss(net: nn.Module, learn: Learn, episodes: Episodes) -> Tensor:
    """The queries' loss after learning, averaged over T tasks one by one, so that memory does not grow with T."""

    def one(own: nn.Module, parameters: Parameters, support: Examples, query: Examples) -> Tensor:
        return task_loss(functional_call(own, learn(own, parameters, support), (query.x, support.x)), query.y)

    return mean_loss(net, one, dict(net.named_parameters()), episodes.support, episodes.query)
