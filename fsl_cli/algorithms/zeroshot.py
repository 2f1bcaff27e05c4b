"""Zero-shot prototypical networks (Snell et al., NeurIPS 2017, sections 2.6 and 3.3), https://arxiv.org/abs/1703.05175

A class is known by its row alone, attributes or the embedding of its name: a linear map of the row, brought to unit
length, is its prototype. No support image is looked at.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.protonet import logits
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.errors import UserError
from fsl_cli.ranges import Rate


class ZeroShot(Algorithm):
    """Logits are minus squared distances to the prototypes, over `temperature`; images keep the length they have.

    `row_width`: numbers of a class row.
    """

    takes_features = True
    reads_class_rows = True
    zero_shot = True
    looks_at_support = False

    def __init__(self, backbone: Backbone, row_width: int, temperature: Rate = 1.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.rows = nn.Linear(row_width, backbone.out_features)
        self.temperature = temperature

    def adapt(self, support: Examples, class_rows: Tensor | None = None) -> Classifier:
        if class_rows is None:
            raise UserError("This method knows a class by its class row: give one for each.")
        prototypes = F.normalize(self.rows(class_rows), dim=-1)  # (T, way, d)
        seen = support.x if support.x.shape[1] else None  # whose statistics may normalise the queries
        return lambda x: logits(self.backbone(x, seen), prototypes) / self.temperature

    def classifier(self, episodes: Episodes) -> Classifier:
        return self.adapt(episodes.support, episodes.class_rows)
