"""Simple CNAPs (Bateni et al., CVPR 2020), https://arxiv.org/abs/1912.03432

A class has a mean and a covariance of its support features. A few examples say little about a covariance, so it is
mixed with that of the whole support set and with the identity (equations 2 and 3). A query belongs to the class at the
smallest Mahalanobis distance. Nothing is learned but the features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.film import Film
from fsl_cli.algorithms.protonet import prototypes, usual_temperature
from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.ranges import Rate, Weight


class SimpleCNAPs(Algorithm):
    """Nearest class by squared Mahalanobis distance, divided by `temperature`, by default by `usual_temperature`.

    The paper divides by 1. With `film` the task scales and shifts the channels of the backbone, which in the paper
    ImageNet has trained and is frozen; there an encoder of its own looks at the support set, here the backbone does, as
    in TADAM. Then `penalty` times the sum of squares of what scales and shifts are multiplied by is added to the loss.
    """

    def __init__(
        self, backbone: Backbone, temperature: Rate | None = None, film: bool = False, penalty: Weight = 0.001
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.temperature = temperature or usual_temperature(backbone.out_features)
        self.film = Film(backbone) if film else None
        self.penalty = penalty
        self.takes_features = not film

    def adapt(self, support: Examples) -> Classifier:
        changes = self._changes(support)
        measure = mahalanobis(Examples(self.backbone(support.x, changes=changes), support.y))
        return lambda x: -measure(self.backbone(x, support.x, changes)) / self.temperature

    def loss(self, episodes: Episodes) -> Tensor:
        """Of support and query in one pass, as a prototypical network's."""
        support, query = episodes.support, episodes.query
        supports, queries = self.backbone.joint(support.x, query.x, self._changes(support))
        loss = task_loss(-mahalanobis(Examples(supports, support.y))(queries) / self.temperature, query.y)
        return loss if self.film is None else loss + self.penalty * self.film.strength.square().sum()

    def _changes(self, support: Examples) -> Changes:
        return NO_CHANGES if self.film is None else self.film(self.backbone, support)


def mahalanobis(support: Examples) -> Classifier:
    """Support features (T, n, d) -> what measures squared distances of queries (T, m, d) to the classes, (T, m, way).

    The covariance of class k is Q = X'BX + I with `_blend`'s B, X the support features less their mean. By the Woodbury
    identity its inverse is I - X'MX, M = B (I + XX'B)^-1: what is inverted is as large as the smaller of n and d. In
    float64, whatever comes in, as the second term nearly undoes the first where features are long.
    """
    n, d = support.x.shape[1:]
    middle = support.x.mean(1, keepdim=True)  # distances are the same from anywhere; smaller numbers round less
    x = (support.x - middle).double()
    centres = prototypes(x, support.y)  # (T, way, d)
    blend, x = _blend(support.y), x.unsqueeze(1)  # (T, way, n, n), (T, 1, n, d)
    if d <= n:
        inner = torch.linalg.inv(torch.eye(d).to(x) + x.mT @ blend @ x)  # (T, way, d, d)
    else:
        inner = blend @ torch.linalg.inv(torch.eye(n).to(x) + x @ x.mT @ blend)  # (T, way, n, n)

    def distances(queries: Tensor) -> Tensor:
        away = (queries - middle).double().unsqueeze(1) - centres.unsqueeze(2)  # (T, way, m, d)
        if d <= n:
            return (away @ inner * away).sum(-1).mT.to(queries)
        along = away @ x.mT  # (T, way, m, n)
        return (away.square().sum(-1) - (along @ inner * along).sum(-1)).mT.to(queries)

    return distances


def _blend(y: Tensor) -> Tensor:
    """The B (T, way, n, n) with X'BX = l S_k + (1 - l) S, l = n_k / (n_k + 1), S_k and S sample covariances.

    The covariance of a single example is 0 here; the authors' code takes the variance among its features instead.
    """
    member = F.one_hot(y).mT.double()  # (T, way, n)
    counts = member.sum(-1)[..., None, None]  # (T, way, 1, 1)
    n = y.shape[1]
    share = counts / (counts + 1)
    means = member.unsqueeze(-1) @ member.unsqueeze(-2) / counts  # takes an example to its class's mean
    own = (torch.diag_embed(member) - means) / (counts - 1).clamp(min=1)
    whole = (torch.eye(n).to(member) - 1 / n) / max(n - 1, 1)
    return share * own + (1 - share) * whole
