"""An algorithm turns support sets into classifiers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.episodes import Classifier, Episodes, Examples


class Algorithm(nn.Module, ABC):
    """The contract. Subclasses are final: a variant is a setting or a composition, not a sub-subclass."""

    @abstractmethod
    def adapt(self, support: Examples) -> Classifier:
        """Learn from T support sets; what was learned lives in the returned closure and nowhere else."""

    def loss(self, episodes: Episodes) -> Tensor:
        """What training minimises, averaged over the T episodes; its gradient is the meta-gradient."""
        logits = self.adapt(episodes.support)(episodes.query.x)  # (T, m, way)
        return F.cross_entropy(logits.flatten(0, 1), episodes.query.y.flatten())
