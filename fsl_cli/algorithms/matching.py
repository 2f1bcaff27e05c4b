"""Matching networks (Vinyals et al., NeurIPS 2016), https://arxiv.org/abs/1606.04080

A query attends to the support images, softmax of the cosines of their embeddings, and its label is the sum of theirs,
weighted so (equation 1). With full context embeddings, an image's embedding depends on the whole support set.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.by_class import log_sum_of_each_class, way
from fsl_cli.algorithms.protonet import cosines
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.ranges import Count, Rate


class MatchingNet(Algorithm):
    """Attention over the support images; with `context`, between full context embeddings (appendix A).

    A query's then reads the support set in `processing_steps` steps, K in the paper. Cosines are multiplied by `scale`;
    at the paper's 1, no class of five can be surer than 65%, and learning is slow. The logits are the logarithms of
    the labels' probabilities.
    """

    def __init__(
        self, backbone: Backbone, scale: Rate = 1.0, context: bool = False, processing_steps: Count = 5
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.scale = scale
        self.context = _Context(backbone.out_features, processing_steps) if context else None
        self.takes_features = not context  # whose order comes from the images

    def adapt(self, support: Examples) -> Classifier:
        known, classes = self._known(support, self.backbone(support.x)), way(support)
        return lambda x: self._logits(self.backbone(x, support.x), known, support.y, classes)

    def loss(self, episodes: Episodes) -> Tensor:
        """Cross-entropy, support and query in one pass of the backbone."""
        support, query = episodes.support, episodes.query
        supports, queries = self.backbone.joint(support.x, query.x)
        return task_loss(self._logits(queries, self._known(support, supports), support.y, way(support)), query.y)

    def _known(self, support: Examples, features: Tensor) -> Tensor:
        return features if self.context is None else self.context.support(features, order(support.x))

    def _logits(self, queries: Tensor, known: Tensor, y: Tensor, way: int) -> Tensor:
        if self.context is not None:
            queries = self.context.query(queries, known)
        attention = (self.scale * cosines(queries, known)).log_softmax(-1)  # (T, m, n)
        return log_sum_of_each_class(attention, y, way)  # (T, m, way)


class _Context(nn.Module):
    """Full context embeddings: g of support images by a bidirectional LSTM, f of queries by one that attends to g."""

    def __init__(self, features: int, processing_steps: int) -> None:
        super().__init__()
        self.processing_steps = processing_steps
        self.g = nn.LSTM(features, features, batch_first=True, bidirectional=True)
        self.f = nn.LSTMCell(2 * features, features)

    def support(self, features: Tensor, reading: Tensor) -> Tensor:
        """g(x_i, S) = forward_i + backward_i + g'(x_i), appendix A.2; features (T, n, d), read in an order (T, n)."""
        read, _ = self.g(features.take_along_dim(reading.unsqueeze(-1), 1))  # (T, n, 2d)
        forward, backward = read.take_along_dim(reading.argsort(1).unsqueeze(-1), 1).chunk(2, -1)
        return forward + backward + features

    def query(self, features: Tensor, known: Tensor) -> Tensor:
        """f(x, S), equations 3 to 6, from h_0 = f'(x): (T, m, d), support embeddings (T, n, d) -> (T, m, d).

        The LSTM's input is [f', r] and its state h, where the paper has f' and [h, r]: its gates see the same sum.
        """
        flat = features.flatten(0, 1)  # (T*m, d)
        h, c = flat, torch.zeros_like(flat)
        for _ in range(self.processing_steps):
            attention = (h.view_as(features) @ known.mT).softmax(-1)  # (T, m, n)
            r = (attention @ known).flatten(0, 1)
            h, c = self.f(torch.cat([flat, r], 1), (h, c))
            h = h + flat
        return h.view_as(features)


def order(x: Tensor) -> Tensor:
    """The order in which the LSTM reads each support set: (T, n, *item) -> (T, n) positions.

    A set has none, so any will do. This one is as good as random, but a function of the images alone: the classifier
    is the same whatever order images and labels come in.
    """
    pixels = x.flatten(2)
    weights = torch.arange(pixels.shape[-1], device=x.device, dtype=torch.float32).cos()
    return (pixels * weights).sum(-1).argsort(dim=1, stable=True)
