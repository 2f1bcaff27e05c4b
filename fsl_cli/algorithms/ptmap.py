"""PT-MAP (Hu, Gripon, Pateux, ICANN 2021), https://arxiv.org/abs/2006.03806

A root makes features more like normal variables; then queries are dealt to the classes by optimal transport, all
classes having equally many, and the means move towards what they were dealt. Where queries are not spread evenly over
the classes, that is wrong, and costs more than it gains elsewhere (Veilleux et al. 2021).
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.protonet import logits, prototypes
from fsl_cli.algorithms.supervised import supervised_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.errors import UserError
from fsl_cli.ranges import Natural, PartOf, Rate

SMALL = 1e-6  # is added before a power is taken
CLOSE = 1e-5  # of a row's sum to 1; float32 does not reach 1e-6 in every batch, and would go on in vain
MOST = 1000  # rounds of Sinkhorn's


class PTMAP(Algorithm):
    """An ordinary classifier's features, to the `power` (null: as they are), of unit length, support set and queries
    centred each for itself, and of unit length again.

    Each of `rounds` deals the queries by Sinkhorn's algorithm at `sharpness` and moves the means by `rate` of their
    way. A single query is judged by the means. Raises UserError where a power is asked of negative features.
    """

    takes_features = True
    sees_queries = True

    def __init__(
        self,
        backbone: Backbone,
        train_classes: int,
        power: Rate | None = 0.5,
        sharpness: Rate = 10.0,
        rate: PartOf = 0.2,
        rounds: Natural = 20,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.out_features, train_classes)
        self.power, self.sharpness, self.rate, self.rounds = power, sharpness, rate, rounds

    def adapt(self, support: Examples) -> Classifier:
        known = self._powered(support.x)
        middle = known.mean(1, keepdim=True)
        centred = Examples(F.normalize(known - middle, dim=-1), support.y)

        def classify(x: Tensor) -> Tensor:
            queries = self._powered(x, support.x)
            if queries.shape[1] == 1:
                return self.sharpness * logits(F.normalize(queries - middle, dim=-1), prototypes(*centred))
            return self._dealt(centred, F.normalize(queries - queries.mean(1, keepdim=True), dim=-1))

        return classify

    def loss(self, episodes: Episodes) -> Tensor:
        """The loss of a classifier of all training classes."""
        return supervised_loss(self.backbone, self.head, episodes)

    def embed(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """The backbone's features after the power, of unit length: NaN where they are negative."""
        features = self.backbone(x, support)
        return F.normalize(features if self.power is None else (features + SMALL) ** self.power, dim=-1)

    def _powered(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """`embed`, whose numbers are looked at, which no graph could do. Raises UserError."""
        features = self.embed(x, support)
        if features.isnan().any():
            raise UserError(
                "algo=ptmap takes a power of features, and some of this backbone's are negative. Type "
                "algo.power=null, or choose a backbone that ends in a ReLU."
            )
        return features

    def _dealt(self, known: Examples, queries: Tensor) -> Tensor:
        """The logarithms of the shares (T, m, way) in which queries are dealt to the classes at last."""
        means = prototypes(*known)
        member = F.one_hot(known.y, means.shape[1]).to(means)
        for _ in range(self.rounds):
            shares = sinkhorn(self.sharpness * logits(queries, means)).exp()
            total = member.sum(1) + shares.sum(1)  # (T, way)
            found = (member.mT @ known.x + shares.mT @ queries) / total.unsqueeze(-1)
            means = means + self.rate * (found - means)
        return sinkhorn(self.sharpness * logits(queries, means))


def sinkhorn(scores: Tensor) -> Tensor:
    """Logarithms (T, m, way) of what is proportional to exp(scores) by rows and columns, each row with the sum 1 and
    all columns with equal sums: Sinkhorn's algorithm, until rows are within CLOSE, in logarithms.
    """
    m, way = scores.shape[-2:]
    found = scores.log_softmax(-1)
    for _ in range(MOST):
        found = found - found.logsumexp(-2, keepdim=True) + math.log(m / way)
        rows = found.logsumexp(-1, keepdim=True)
        found = found - rows
        if rows.abs().max() < CLOSE:
            break
    return found
