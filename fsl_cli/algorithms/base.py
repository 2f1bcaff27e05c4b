"""An algorithm turns support sets into classifiers."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss


class Algorithm(nn.Module, ABC):
    """The contract. Subclasses are final: a variant is a setting or a composition, not a sub-subclass."""

    progress = 1.0  # share of the training that is done; before each of its steps the learner says how much

    @abstractmethod
    def adapt(self, support: Examples) -> Classifier:
        """Learn from T support sets; what was learned lives in the returned closure and nowhere else."""

    def loss(self, episodes: Episodes) -> Tensor:
        """What training minimises, averaged over the T episodes; its gradient is the meta-gradient."""
        return task_loss(self.adapt(episodes.support)(episodes.query.x), episodes.query.y)
