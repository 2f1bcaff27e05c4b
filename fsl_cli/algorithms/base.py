"""An algorithm turns support sets into classifiers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss


class Algorithm(nn.Module, ABC):
    """The contract. Subclasses are final: a variant is a setting or a composition, not a sub-subclass."""

    takes_features = False  # True: in evaluation all it asks of an image is what `self.backbone` makes of it alone
    regresses = False  # True: tasks may be of numbers, not of classes
    ordered = False  # True: the support set is read in its order, so episodes deal it in a random one
    compares_tasks = False  # True: its loss is of all tasks of a step together, which must have one shape
    progress = 1.0  # share of the training that is done; before each of its steps the learner says how much

    def prepare(self, episodes: Iterable[Episodes]) -> None:
        """Take in what evaluation needs of the training split; called before each validation, in evaluation mode.

        `episodes` are some of the training split's, their images not augmented. By default nothing is needed.
        """

    @abstractmethod
    def adapt(self, support: Examples) -> Classifier:
        """Learn from T support sets; what was learned lives in the returned closure and nowhere else."""

    def loss(self, episodes: Episodes) -> Tensor:
        """What training minimises, averaged over the T episodes; its gradient is the meta-gradient."""
        return task_loss(self.adapt(episodes.support)(episodes.query.x), episodes.query.y)

    def embed(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """What the method compares images by: x (T, n, *item) -> (T, n, d), before anything adapts to a task.

        By default what the backbone makes of them, with their `support` images as for `Backbone.forward`.
        """
        [backbone] = [module for module in self.modules() if isinstance(module, Backbone)][:1]
        return backbone(x, support)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the outer optimizer learns; a group's `times`, where given, multiplies its learning rate."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]
