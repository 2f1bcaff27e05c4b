"""Memory-augmented networks (Santoro et al., ICML 2016), https://arxiv.org/abs/1605.06065, and learning LSTMs

An LSTM reads a task image by image, each with the label of the image *before* it, and says what the present one is: it
must remember an image until its label comes. Beside its own state it has an external memory: it reads slots by content,
and writes to the slot that it has just read, or to the one unused for longest (section 3). Without the memory it is the
learner of Hochreiter, Younger and Conwell (ICANN 2001), whose weights are a learning algorithm; it can regress, too.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms import by_class
from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.sequence.labels import WIDTH, Letters, OneHot, drawn
from fsl_cli.algorithms.sequence.memory import Memory, Slots
from fsl_cli.algorithms.sequence.order import demand_no_set, demand_way, shuffled
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.ranges import Count, Natural, PartOf, Rate


class _State(NamedTuple):
    """What the network keeps of B tasks between two images."""

    h: Tensor  # (B, hidden)
    c: Tensor
    slots: Slots | None


class MANN(Algorithm):
    """An LSTM of `hidden` units with `memory` slots of `width` numbers, which `heads` heads read; 0 slots: none.

    A slot's usage is multiplied by `decay` at each step. Read weights are the softmax of cosines times `sharpness`;
    the paper has 1, with which 128 slots are read almost alike. What is written is the key that also reads, or a
    vector of its own (`write`). Labels are read and written one-hot, or as strings of five letters, of which there are
    3125, drawn anew for each task of the training; these go with any way.
    """

    regresses = True
    ordered = True

    def __init__(
        self,
        backbone: Backbone,
        way: Count,
        hidden: Count = 200,
        memory: Natural = 128,
        width: Count = 40,
        heads: Count = 4,
        decay: PartOf = 0.95,
        sharpness: Rate = 1.0,
        write: Literal["key", "separate"] = "key",
        labels: Literal["onehot", "letters"] = "onehot",
    ) -> None:
        super().__init__()
        demand_no_set(backbone)
        self.backbone = backbone
        self.way = way
        self.labels = labels
        outputs = WIDTH if labels == "letters" else way
        self.memory = Memory(hidden, memory, width, heads, decay, sharpness, write) if memory else None
        read = heads * width if memory else 0
        self.cell = nn.LSTMCell(backbone.out_features + outputs + read, hidden)
        self.head = nn.Linear(hidden + read, outputs)

    def adapt(self, support: Examples) -> Classifier:
        codes = self._codes(support)
        shown = codes.read(support.y)
        _, state = self._run(self.backbone(support.x), shown)

        def classify(x: Tensor) -> Tensor:
            queries = self.backbone(x, support.x)  # (T, m, d): each is the next image of the task as it was left
            each = _repeated(state, queries.shape[1])
            found, _ = self._step(queries.flatten(0, 1), shown[:, -1].repeat_interleave(queries.shape[1], 0), each)
            return codes.logits(found.unflatten(0, queries.shape[:2]))

        return classify

    def loss(self, episodes: Episodes) -> Tensor:
        """The loss for each image before its label is shown; support and query are one sequence (section 2)."""
        examples = shuffled(episodes)
        codes = self._codes(examples, episodes.index.tolist())
        found, _ = self._run(self.backbone(examples.x), codes.read(examples.y))
        return codes.loss(found, examples.y)

    def sequence(self, examples: Examples) -> Tensor:
        """Logits for each image before its label is shown: (T, L, *item) -> (T, L, way), or more columns.

        With letters the last column is of strings that no class has.
        """
        codes = self._codes(examples)
        found, _ = self._run(self.backbone(examples.x), codes.read(examples.y))
        return codes.logits(found, others=True)

    def _codes(self, examples: Examples, index: list[int] | None = None) -> OneHot | Letters:
        """How labels are read and written; letters in evaluation are the same for all tasks, as labels are."""
        if examples.y.is_floating_point() or self.labels == "onehot":
            demand_way(examples, self.way)
            return OneHot(self.way)
        tasks = [0] * len(examples.y) if index is None else index
        return drawn(tasks, by_class.way(examples), examples.y.device)

    def _run(self, features: Tensor, labels: Tensor) -> tuple[Tensor, _State]:
        """Outputs (T, L, outputs) at each of the features (T, L, d), with the labels one step late; the state then."""
        h = features.new_zeros(len(features), self.cell.hidden_size)
        state = _State(h, h, self.memory.start(features) if self.memory else None)
        late = F.pad(labels, (0, 0, 1, 0)).to(features)
        found = []
        for step in range(features.shape[1]):
            output, state = self._step(features[:, step], late[:, step], state)
            found.append(output)
        return torch.stack(found, 1), state

    def _step(self, x: Tensor, label: Tensor, state: _State) -> tuple[Tensor, _State]:
        """One image each (B, d), with the label of the one before (B, outputs)."""
        seen = [x, label.to(x), *([state.slots.read.flatten(1)] if state.slots else [])]
        h, c = self.cell(torch.cat(seen, 1), (state.h, state.c))
        slots = self.memory(h, state.slots) if self.memory and state.slots else None
        told = torch.cat([h, slots.read.flatten(1)], 1) if slots else h
        return self.head(told), _State(h, c, slots)


def _repeated(state: _State, times: int) -> _State:
    """The state of each task, repeated so many times in a row."""
    h, c = (part.repeat_interleave(times, 0) for part in state[:2])
    return _State(h, c, state.slots and Slots(*(part.repeat_interleave(times, 0) for part in state.slots)))
