"""Semi-supervised prototypical networks (Ren et al., ICLR 2018), https://arxiv.org/abs/1803.00676

The support set has images without labels too. Each belongs to the classes by soft k-means, in shares, and the class
means move: a round from the means of the labelled ones. Some of these images may be of none of the classes; a further
cluster takes them up, or a mask learns which are too far away to count.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.protonet import logits, usual_temperature
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import IGNORED, Classifier, Episodes, Examples, task_loss
from fsl_cli.ranges import Rate

HIDDEN = 20  # units of the network behind the mask
SMALL = 0.01  # deviation of its weights at first, the authors'


class SoftKMeans(Algorithm):
    """Nearest class mean, of means that images without labels have refined; without such, a prototypical network.

    `variant`: `soft`, for images of the episode's classes alone; `cluster`, with a cluster about 0 of learned radius,
    at first `radius`, for the others (those of the classes have radius 1); `masked`, where an image counts for a class
    by how near it is among all of them, with a slope and a threshold that a small network makes of how distances are
    spread. Squared distances are divided by `temperature`, by default by `usual_temperature`.
    """

    takes_features = True
    takes_unlabelled = True
    log_radius: nn.Parameter | None
    thresholds: nn.Module | None

    def __init__(
        self,
        backbone: Backbone,
        variant: Literal["soft", "cluster", "masked"] = "soft",
        temperature: Rate | None = None,
        radius: Rate = 100.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.temperature = temperature or usual_temperature(backbone.out_features)
        self.log_radius = nn.Parameter(torch.tensor(math.log(radius))) if variant == "cluster" else None
        self.thresholds = None
        if variant == "masked":
            layers = nn.Linear(5, HIDDEN), nn.Linear(HIDDEN, 2)
            for layer in layers:
                nn.init.normal_(layer.weight, std=SMALL)
                nn.init.zeros_(layer.bias)
            self.thresholds = nn.Sequential(layers[0], nn.Tanh(), layers[1])

    def adapt(self, support: Examples) -> Classifier:
        centres = self.refined(self._scaled(self.backbone(support.x)), support.y)
        return lambda x: self._logits(self._scaled(self.backbone(x, support.x)), centres)

    def loss(self, episodes: Episodes) -> Tensor:
        """Cross-entropy, of support and query in one pass, as a prototypical network's."""
        support, query = episodes.support, episodes.query
        supports, queries = map(self._scaled, self.backbone.joint(support.x, query.x))
        return task_loss(self._logits(queries, self.refined(supports, support.y)), query.y)

    def refined(self, features: Tensor, y: Tensor) -> Tensor:
        """The means (T, way, d) of support features (T, n, d), after a round of soft k-means with those unlabelled."""
        known = (y != IGNORED).to(features).unsqueeze(-1)  # (T, n, 1)
        member = F.one_hot(y.clamp_min(0)).to(features) * known  # (T, n, way)
        centres = member.mT @ features / member.sum(1).unsqueeze(-1)
        if bool(known.all()):
            return centres
        shares = member + (1 - known) * self._shares(features, centres, known)
        return shares.mT @ features / shares.sum(1).unsqueeze(-1)

    def _shares(self, features: Tensor, centres: Tensor, known: Tensor) -> Tensor:
        """How far each image belongs to each class, (T, n, way)."""
        if self.log_radius is not None:
            others = -features.square().sum(-1, keepdim=True) / (2 * (2 * self.log_radius).exp()) - self.log_radius
            return torch.cat([self._logits(features, centres), others], -1).softmax(-1)[..., :-1]
        shares = self._logits(features, centres).softmax(-1)
        return shares * self._mask(features, centres, known) if self.thresholds is not None else shares

    def _mask(self, features: Tensor, centres: Tensor, known: Tensor) -> Tensor:
        """How much each image counts for each class, 0..1, (T, n, way): equations 6 and 7."""
        far = -logits(features, centres)
        weight = (1 - known) / (1 - known).sum(1, keepdim=True)  # over those without labels
        mean = (weight * far).sum(1, keepdim=True)  # (T, 1, way)
        far = far / mean
        with torch.no_grad():  # as the authors do
            away = far - 1
            variance = (weight * away.square()).sum(1)  # (T, way)
            spread = torch.where(variance > 0, variance, 1.0)
            seen = known.bool()
            statistics = torch.stack(
                (
                    far.masked_fill(seen, torch.inf).amin(1),
                    far.masked_fill(seen, -torch.inf).amax(1),
                    variance,
                    (weight * away**3).sum(1) / spread**1.5,
                    (weight * away**4).sum(1) / spread**2 - 3,
                ),
                -1,
            )  # (T, way, 5)
        assert self.thresholds is not None
        threshold, slope = self.thresholds(statistics).exp().unsqueeze(1).unbind(-1)  # (T, 1, way)
        return torch.sigmoid((threshold - far) * slope)

    def _scaled(self, features: Tensor) -> Tensor:
        """Features whose squared distances are those over the temperature."""
        return features / math.sqrt(self.temperature)

    def _logits(self, features: Tensor, centres: Tensor) -> Tensor:
        """Minus the squared distances, half of them where a cluster has a radius (the others' is 1)."""
        return logits(features, centres) / (1 if self.log_radius is None else 2)
