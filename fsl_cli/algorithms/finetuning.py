"""Fine-tuning at test, P>M>F (Hu et al., CVPR 2022), https://arxiv.org/abs/2204.07305

A copy of the trained backbone is fine-tuned on each task: changed copies of its support images are told apart by the
method's own classifier of the unchanged ones, and the queries by the same classifier with the weights that this leads
to (section 3.3). Queries have no part in it, so what is reached is as inductive as the method is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from fsl_cli.algorithms.attack import pixels_of
from fsl_cli.algorithms.base import Algorithm, PredictsInSequence, TakesSteps
from fsl_cli.algorithms.inner_loop import Parameters, adam, adapt, gradients_of
from fsl_cli.data.augment import COUNT, Augment, numbers
from fsl_cli.episodes import Classifier, Episodes, task_loss
from fsl_cli.errors import UserError

RATES = (0.0, 1e-4, 1e-3, 1e-2)  # what the authors choose from
SHIFT = 1 / 8  # of an image's side, as the authors'
JITTER = 0.4  # as Chen et al.; the authors' range is wider
INSTEAD = "Type backbone.finetune=0"


@dataclass(frozen=True)
class FineTuning:
    """`steps` of Adam at `rate` on all weights of the backbone, and on nothing else; running statistics stay.

    Each step changes each support image anew, as `augment` says. The numbers that it draws depend on the episode's
    index alone, so neither other episodes nor processes matter, and the algorithm's own weights are only read.
    """

    steps: int
    rate: float
    augment: Augment

    def at(self, rate: float) -> FineTuning:
        """The same at another rate."""
        return replace(self, rate=rate)

    def classifier(self, algorithm: Algorithm, episodes: Episodes) -> Classifier:
        """`algorithm.classifier(episodes)` of each of T episodes, with the weights that its backbone has come to.

        The algorithm must be in evaluation mode. At rate 0 it is that very classifier.
        """
        if not self.rate:
            return algorithm.classifier(episodes)
        answers = _Answers(algorithm)
        alone = [_alone(episodes, number) for number in range(len(episodes.index))]
        tuned = [self._tuned(answers, each) for each in alone]

        def classify(x: Tensor) -> Tensor:
            parts = zip(tuned, alone, x.split(1), strict=True)
            return torch.cat([functional_call(answers, weights, (each, queries)) for weights, each, queries in parts])

        return classify

    def _tuned(self, answers: _Answers, episode: Episodes) -> Parameters:
        """The backbone's weights after all steps on one episode (T = 1)."""
        known = episode.support.labelled()

        def loss(weights: Parameters, step: int) -> Tensor:
            return task_loss(functional_call(answers, weights, (episode, changed[step])), known.y)

        changed = self._changed(answers.algorithm, known.x, int(episode.index))
        start = answers.of_backbone()
        return adapt(loss, start, set(start), self.steps, adam(self.rate), first_order=True)

    def _changed(self, algorithm: Algorithm, x: Tensor, index: int) -> list[Tensor]:
        """For each step, images x (1, n, C, H, W), each changed in its own way."""
        mean, std = (x.new_tensor(list(each)).view(-1, 1, 1) for each in pixels_of(algorithm))
        pixels = (x[0] * std + mean).clamp(0, 1)
        drawn = numbers(0, "finetune", index, self.steps * len(pixels)).reshape(self.steps, len(pixels), COUNT)
        wide = torch.promote_types(x.dtype, torch.float32)
        steps = torch.from_numpy(drawn).to(x.device, wide)  # (steps, n, COUNT)
        return [((self.augment.apply(pixels.to(wide), step).to(x) - mean) / std).unsqueeze(0) for step in steps]


def usual_changes(size: int) -> Augment:
    """What is done to support images of so many pixels a side where the user does not say: shifts and colours.

    The authors also mirror them, which makes another character of a character.
    """
    return Augment(padding=max(1, round(size * SHIFT)), jitter=JITTER)


def classifier(algorithm: Algorithm, episodes: Episodes, tuning: FineTuning | None) -> Classifier:
    """What the algorithm makes of T episodes, its backbone fine-tuned on each where a test asks for that."""
    return tuning.classifier(algorithm, episodes) if tuning else algorithm.classifier(episodes)


class _Answers(nn.Module):
    """What the classifier of an episode says of images, as a module, whose weights `functional_call` can replace."""

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__()
        self.algorithm = algorithm

    def forward(self, episode: Episodes, x: Tensor) -> Tensor:
        return self.algorithm.classifier(episode)(x)

    def of_backbone(self) -> Parameters:
        """The weights of the algorithm's backbone, by their names in this module."""
        backbone = self.algorithm.shared_backbone
        own = {id(value) for value in backbone.parameters()} if backbone else set()
        return {name: value for name, value in self.named_parameters() if id(value) in own}


def _alone(episodes: Episodes, number: int) -> Episodes:
    """One of T episodes."""
    found: Episodes = tree_map(lambda each: None if each is None else each[number : number + 1], episodes)
    return found


def demand_fine_tuning(algorithm: Algorithm, name: str) -> None:
    """Raises UserError where a backbone cannot be fine-tuned for the method, of this name, or not as its test is."""
    backbone, kind = algorithm.shared_backbone, type(algorithm)
    if backbone is None or isinstance(algorithm, TakesSteps):
        why = "adapts to a support set by steps of its own. {}"
    elif isinstance(algorithm, PredictsInSequence) or algorithm.ordered:
        why = "reads the support set in an order, and takes copies for further images. {}"
    elif algorithm.sees_queries:
        why = "looks at all queries together, and fine-tuning has only the support set. {}, or algo=tranfinetune"
    elif not algorithm.looks_at_support:
        why = "looks at no support images. {}"
    elif kind.prepare_classes is not Algorithm.prepare_classes:
        why = "keeps features of training images, which other weights would not make. {}"
    elif not any(True for _ in backbone.parameters()):
        why = "has a backbone here whose weights fsl does not have. {}, or another backbone"
    else:
        return
    raise UserError(f"backbone.finetune: algo={name} {why.format(INSTEAD)}, or algo=protonet.")


def demand_gradient(algorithm: Algorithm, episode: Episodes, name: str) -> None:
    """Raises UserError where what the method, of this name, says has no gradient with respect to its backbone.

    `episode` is one (T = 1), the algorithm in evaluation mode.
    """
    answers, known = _Answers(algorithm), episode.support.labelled()

    def loss(weights: Parameters) -> Tensor:
        return task_loss(functional_call(answers, weights, (episode, 0.9 * known.x)), known.y)

    try:
        found, _ = gradients_of(loss, answers.of_backbone(), differentiable=False)
    except RuntimeError:  # which is how torch says that there is no graph at all
        found = {}
    if not any(value.any() for value in found.values()):
        raise UserError(
            f"backbone.finetune: what algo={name} says has no gradient with respect to this backbone's weights. "
            f"{INSTEAD}, or algo=protonet."
        )
