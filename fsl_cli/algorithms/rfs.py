"""RFS, "Rethinking few-shot classification: a good embedding is all you need?" (Tian et al., ECCV 2020)

https://arxiv.org/abs/2003.11539
Train an ordinary classifier of the training classes; for a new task, fit logistic regression to the support set's
features of unit length. A second run may learn from the first as well (self-distillation, section 3.3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.solvers.logistic import logistic_classifier
from fsl_cli.algorithms.supervised import all_images, supervised_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.errors import UserError
from fsl_cli.ranges import Rate, Share


class RFS(Algorithm):
    """`penalty` is C of the logistic regression, as scikit-learn's: higher trusts the support set more.

    With a `teacher`, `distilled` is the weight of its answers in the loss, and `temperature` softens both sides.
    """

    takes_features = True

    def __init__(
        self,
        backbone: Backbone,
        train_classes: int,
        teacher: nn.Module | None = None,
        penalty: Rate = 1.0,
        distilled: Share = 0.5,
        temperature: Rate = 4.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.out_features, train_classes)
        if teacher is not None and not (isinstance(teacher, RFS) and teacher.head.out_features == train_classes):
            raise UserError(f"teacher: must be a run of algo=rfs on the same {train_classes} training classes.")
        self.teacher = [teacher] if isinstance(teacher, RFS) else []  # in a list: it is no part of this run's weights
        self.penalty = penalty
        self.distilled = distilled
        self.temperature = temperature

    def adapt(self, support: Examples) -> Classifier:
        classify = logistic_classifier(self.embed(support.x), support.y, self.penalty)
        return lambda x: classify(self.embed(x, support.x))

    def loss(self, episodes: Episodes) -> Tensor:
        """The loss of a classifier of all training classes; with a teacher, also the distance to its answers."""
        if not self.teacher:
            return supervised_loss(self.backbone, self.head, episodes)
        x, y = all_images(episodes)
        scores = self.head(self.backbone(x)).flatten(0, 1)
        with torch.no_grad():
            teacher = self.teacher[0].to(x.device)
            target = F.log_softmax(teacher.head(teacher.backbone(x)).flatten(0, 1) / self.temperature, -1)
        own = F.log_softmax(scores / self.temperature, -1)
        distance = F.kl_div(own, target, reduction="batchmean", log_target=True) * self.temperature**2
        return (1 - self.distilled) * F.cross_entropy(scores, y.flatten()) + self.distilled * distance

    def embed(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """The backbone's features, of unit length."""
        return F.normalize(self.backbone(x, support), dim=-1)
