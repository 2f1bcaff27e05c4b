"""What inner loops adapt, a backbone with a linear head, and what they refuse."""

from __future__ import annotations

from torch import Tensor, nn

from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.episodes import Examples
from fsl_cli.errors import UserError


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
