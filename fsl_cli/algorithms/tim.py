"""Transductive information maximisation (Boudiaf et al., NeurIPS 2020), https://arxiv.org/abs/2008.11297, and
alpha-TIM (Veilleux et al., NeurIPS 2021), https://arxiv.org/abs/2204.11181

Class weights begin as the means of the support features and move until the answers to all queries together tell most:
each query is decided (low entropy), while all classes occur (high entropy of the mean answer). The second is right
where queries are spread evenly over the classes, and wrong where they are not: there alpha-TIM's entropies insist less.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.protonet import logits, prototypes
from fsl_cli.algorithms.supervised import supervised_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.ranges import Natural, Rate, Weight

SOFTER, BALANCE = 0.1, 0.5  # exponents of the alternating solver, the authors'


class TIM(Algorithm):
    """An ordinary classifier's features of unit length; logits are minus half their squared distances to the class
    weights, times `sharpness`.

    `solver`: `gradient`, so many steps of Adam at rate `lr`, or `alternating`, closed-form rounds. `alpha` 1 has
    Shannon's entropies, others Tsallis' (alpha-TIM: 2 with one shot, 7 with five or more; by gradient alone). A single
    query is judged by the means. Raises ValueError where the alternating solver is asked for another entropy.
    """

    takes_features = True
    sees_queries = True

    def __init__(
        self,
        backbone: Backbone,
        train_classes: int,
        solver: Literal["gradient", "alternating"] = "gradient",
        test_steps: Natural = 150,
        lr: Rate = 0.001,
        sharpness: Rate = 15.0,
        alpha: Rate = 1.0,
        support_weight: Weight = 0.1,
        mean_weight: Weight = 1.0,
        entropy_weight: Weight = 0.1,
    ) -> None:
        super().__init__()
        if solver == "alternating" and alpha != 1:
            raise ValueError(
                "the alternating solver is for Shannon's entropy: type algo.solver=gradient or algo.alpha=1"
            )
        self.backbone = backbone
        self.head = nn.Linear(backbone.out_features, train_classes)
        self.solver, self.test_steps, self.lr = solver, test_steps, lr
        self.sharpness, self.alpha = sharpness, alpha
        self.support_weight, self.mean_weight, self.entropy_weight = support_weight, mean_weight, entropy_weight

    def adapt(self, support: Examples) -> Classifier:
        known = Examples(self.embed(support.x), support.y)
        means = prototypes(*known)

        def classify(x: Tensor) -> Tensor:
            queries = self.embed(x, support.x)
            if queries.shape[1] == 1:
                return self._logits(queries, means)
            solve = self._by_gradient if self.solver == "gradient" else self._alternating
            return self._logits(queries, solve(known, queries, means))

        return classify

    def loss(self, episodes: Episodes) -> Tensor:
        """The loss of a classifier of all training classes."""
        return supervised_loss(self.backbone, self.head, episodes)

    def embed(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """The backbone's features, of unit length."""
        return F.normalize(self.backbone(x, support), dim=-1)

    def _logits(self, features: Tensor, weights: Tensor) -> Tensor:
        return self.sharpness / 2 * logits(features, weights)

    def objective(self, known: Examples, queries: Tensor, weights: Tensor) -> Tensor:
        """What is minimised (equation 3), of each task, (T,)."""
        each = self._logits(queries, weights).softmax(-1)  # (T, m, way)
        support = F.cross_entropy(self._logits(known.x, weights).mT, known.y, reduction="none").mean(-1)
        undecided = entropy(each, self.alpha).mean(-1)
        return (
            self.support_weight * support
            - self.mean_weight * entropy(each.mean(1), self.alpha)
            + self.entropy_weight * undecided
        )

    def _by_gradient(self, known: Examples, queries: Tensor, means: Tensor) -> Tensor:
        """Class weights (T, way, d) after the steps; each task's are moved by its own loss alone."""
        known, queries = known._replace(x=known.x.detach()), queries.detach()
        with torch.enable_grad():
            weights = means.detach().clone().requires_grad_()
            optimizer = torch.optim.Adam([weights], lr=self.lr)
            for _ in range(self.test_steps):
                (weights.grad,) = torch.autograd.grad(self.objective(known, queries, weights).sum(), weights)
                optimizer.step()
        return weights.detach()

    def _alternating(self, known: Examples, queries: Tensor, means: Tensor) -> Tensor:
        """Class weights after rounds of the labels that serve best, and of the weights that serve these best."""
        member = F.one_hot(known.y, means.shape[1]).to(means)
        n, m = known.x.shape[1], queries.shape[1]
        weights, share = means, self.support_weight / (1 + SOFTER)
        for _ in range(self.test_steps):
            p_known, p = (self._logits(x, weights).softmax(-1) for x in (known.x, queries))
            powers = p ** (1 + SOFTER)
            q = F.normalize(powers / powers.sum(1, keepdim=True) ** BALANCE, p=1, dim=-1)
            pulls = [(share, member, p_known, known.x), (n / m, q, p, queries)]
            above = sum(
                each * ((y - p_own).mT @ x + p_own.sum(1).unsqueeze(-1) * weights) for each, y, p_own, x in pulls
            )
            weights = above / sum(each * y.sum(1) for each, y, _, _ in pulls).unsqueeze(-1)  # type: ignore[union-attr]
        return weights


def entropy(shares: Tensor, alpha: float) -> Tensor:
    """Of probabilities (..., way): Shannon's for alpha 1, else Tsallis', which goes to it as alpha goes to 1."""
    if alpha == 1:
        return torch.special.entr(shares).sum(-1)
    return (1 - (shares**alpha).sum(-1)) / (alpha - 1)
