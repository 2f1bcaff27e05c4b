"""An algorithm turns support sets into classifiers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, Normal, task_loss


@runtime_checkable
class TakesSteps(Protocol):
    """A method that takes gradient steps on a support set."""

    test_steps: int  # in validation and test


@runtime_checkable
class TrainsWithSteps(Protocol):
    """A method that takes the same number of gradient steps on each support set in training."""

    inner_steps: int


@runtime_checkable
class PredictsDistribution(Protocol):
    """A method for regression that says how certain it is."""

    def distribution(self, support: Examples) -> Callable[[Tensor], Normal]:
        """What is known of a curve at any x: (T, m, *item) -> mean and deviation, (T, m, d) each."""
        ...


@runtime_checkable
class PredictsInSequence(Protocol):
    """A method that sees the images of an episode one after another, and predicts each before it sees its label."""

    def sequence(self, examples: Examples) -> Tensor:
        """Logits (T, L, way) at each of L images, from those before it and their labels."""
        ...


class Algorithm(nn.Module, ABC):
    """The contract. Subclasses are final: a variant is a setting or a composition, not a sub-subclass."""

    takes_features = False  # True: evaluation needs only features that `self.backbone` computes from each image alone
    regresses = False  # True: can learn regression tasks too
    writes = False  # True: can learn to predict characters, each from those before it
    ordered = False  # True: the order of the support set matters, so episodes give it in a random order
    any_shot = True  # False: takes support sets as long as those of its training alone
    reads_class_rows = False  # True: asks for class rows, `Episodes.class_rows`, which not every data set has
    zero_shot = False  # True: needs no support images, so that shot=0 is possible
    looks_at_support = True  # False: shot=0 is the only one, as it looks at none
    sees_queries = False  # True: all queries of an episode are looked at together, so what is reached is transductive
    takes_unlabelled = False  # True: support sets may have images without labels, in whose place is IGNORED
    compares_tasks = False  # True: its loss is of all tasks of a step together, which must have one shape
    attacks = False  # True: training changes pixels, so items must be images
    with_query = False  # True: a query is normalised together with the support set
    checkpoint_inner = False  # True: the steps of an inner loop are computed again in the backward pass
    temperature = 0.0  # what the logits are divided by; 0: nothing
    progress = 1.0  # share of the training that is done; the learner sets it before each step

    @property
    def shared_backbone(self) -> Backbone | None:
        """The network whose features serve all tasks; None where a network adapts to each task."""
        return next((module for module in self.children() if isinstance(module, Backbone)), None)

    def prepare(self, episodes: Iterable[Episodes]) -> None:
        """Take in what evaluation needs of the training split; called before each validation, in evaluation mode.

        `episodes` are some of the training split's, their images not augmented. By default nothing is needed.
        """

    def prepare_classes(self, classes: Iterable[Tensor]) -> None:
        """Take in all images of the training split, class by class (n, *item), not augmented; called as `prepare` is.

        One after the other, so that they need not be in memory together. By default nothing is needed.
        """

    def tune(self, episodes: Iterable[Episodes]) -> None:
        """Choose what is left open on these episodes of the validation split; called after `prepare`.

        By default nothing is left open.
        """

    @abstractmethod
    def adapt(self, support: Examples) -> Classifier:
        """Learn from T support sets; what was learned lives in the returned closure and nowhere else."""

    def classifier(self, episodes: Episodes) -> Classifier:
        """What is learned from all of T episodes but the queries: by default what `adapt` makes of the support sets.

        Overridden by methods that are told more than these, such as class rows.
        """
        return self.adapt(episodes.support)

    def loss(self, episodes: Episodes) -> Tensor:
        """What training minimises, averaged over the T episodes; its gradient is the meta-gradient."""
        return task_loss(self.classifier(episodes)(episodes.query.x), episodes.query.y)

    def embed(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """What the method compares images by: x (T, n, *item) -> (T, n, d), before anything adapts to a task.

        By default their features by the backbone; `support` as for `Backbone.forward`.
        """
        [backbone] = [module for module in self.modules() if isinstance(module, Backbone)][:1]
        return backbone(x, support)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the outer optimizer learns; a group's `times`, where given, multiplies its learning rate."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]
