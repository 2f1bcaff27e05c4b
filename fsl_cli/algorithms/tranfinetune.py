"""Transductive fine-tuning (Dhillon et al., ICLR 2020), https://arxiv.org/abs/1909.02729

An ordinary classifier's network with a new head, whose weights begin as the class means of unit length. All weights
then move until the support set is right and each query is decided: the cross-entropy of the one and the entropy of the
others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.by_class import way
from fsl_cli.algorithms.inner_loop import Parameters, adam, adapt
from fsl_cli.algorithms.over_tasks import for_each_task
from fsl_cli.algorithms.protonet import prototypes
from fsl_cli.algorithms.supervised import supervised_loss
from fsl_cli.algorithms.tim import entropy
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.ranges import Natural, Rate, Weight

HEAD = ("new.weight", "new.bias")


class TransductiveFineTuning(Algorithm):
    """A classifier of `train_classes`; for a task, `test_steps` of Adam at rate `lr` on all images of it at once.

    A step descends on the support set's cross-entropy and `entropy_weight` times the mean entropy of the queries.
    Running averages of norms stay as training has left them.
    """

    sees_queries = True

    def __init__(
        self,
        backbone: Backbone,
        train_classes: int,
        test_steps: Natural = 25,
        lr: Rate = 5e-5,
        entropy_weight: Weight = 1.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.out_features, train_classes)
        self.test_steps, self.entropy_weight = test_steps, entropy_weight
        self.rule = adam(lr)

    def adapt(self, support: Examples) -> Classifier:
        classes = way(support)

        def tuned(net: nn.Module, known: Examples, x: Tensor) -> Tensor:
            return self._tuned(net, known, x, classes)

        def classify(x: Tensor) -> Tensor:
            with in_evaluation(self.backbone):
                return for_each_task(self.backbone, tuned, support, x)

        return classify

    def loss(self, episodes: Episodes) -> Tensor:
        """The loss of a classifier of all training classes."""
        return supervised_loss(self.backbone, self.head, episodes)

    def _tuned(self, net: nn.Module, known: Examples, x: Tensor, classes: int) -> Tensor:
        """Logits (m, way) of one task's queries by the weights that it has come to."""

        def features(weights: Parameters, *images: Tensor) -> Tensor:
            body = {name: value for name, value in weights.items() if name not in HEAD}
            return functional_call(net, body, tuple(each.unsqueeze(0) for each in images)).squeeze(0)

        def said(weights: Parameters, *images: Tensor) -> Tensor:
            return features(weights, *images) @ weights[HEAD[0]].mT + weights[HEAD[1]]

        def loss(weights: Parameters, step: int) -> Tensor:
            undecided = entropy(said(weights, x, known.x).softmax(-1), 1).mean()
            return F.cross_entropy(said(weights, known.x), known.y) + self.entropy_weight * undecided

        body: Parameters = dict(net.named_parameters())
        own = F.normalize(features(body, known.x), dim=-1)
        means = F.normalize(prototypes(own.unsqueeze(0), known.y.unsqueeze(0), classes).squeeze(0), dim=-1)
        start = {**body, HEAD[0]: means, HEAD[1]: means.new_zeros(classes)}
        return said(adapt(loss, start, set(start), self.test_steps, self.rule, True), x, known.x)


@contextmanager
def in_evaluation(net: nn.Module) -> Iterator[None]:
    """While inside, `net` is in evaluation mode."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)
