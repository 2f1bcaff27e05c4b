"""Tip-Adapter (Zhang et al., ECCV 2022), https://arxiv.org/abs/2207.09519

A zero-shot classifier of class rows from the same model as the features, such as CLIP's embeddings of class names, with
a cache beside it: each support image speaks for its class, the more the nearer it is. Nothing has to be trained;
Tip-Adapter-F fine-tunes the cache's keys on the support set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.errors import UserError
from fsl_cli.ranges import Natural, Rate, Weight

# What is tried on validation episodes; the authors go up to 3 and 7, in steps that depend on the data set
ALPHAS = (0.0, 0.1, 0.2, 0.5, 1.0, 1.17, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
BETAS = (0.1, 0.3, 1.0, 2.0, 3.0, 4.0, 5.5, 7.0, 10.0, 15.0, 20.0, 30.0)


# For the queries of T episodes: the zero-shot classifier's logits (T, m, way), cosines with the cache's keys (T, m, n),
# and the keys' classes, one-hot (T, n, way)
Told = tuple[Tensor, Tensor, Tensor]


def weighed(told: Told, alpha: Tensor | float, beta: Tensor | float) -> Tensor:
    """Logits (T, m, way) of class rows and cache together."""
    by_rows, near, values = told
    return by_rows + alpha * ((beta * (near - 1)).exp() @ values)


class TipAdapter(Algorithm):
    """Logits scale * f.t + alpha * sum over the cache of exp(-beta * (1 - f.F)) of its classes, all of unit length.

    `alpha` and `beta` stand where there are no validation episodes to choose them on, or `choose` is false. With
    `test_steps`, so many steps of AdamW, whose rate `lr` falls along a cosine, fine-tune the keys F on each support
    set in evaluation, under `alpha` and `beta` (the authors: 20 epochs at 0.001).
    """

    takes_features = True
    reads_class_rows = True
    zero_shot = True
    chosen: Tensor

    def __init__(
        self, backbone: Backbone, row_width: int, scale: Rate = 100.0, alpha: Weight = 1.17, beta: Weight = 1.0,
        choose: bool = True, test_steps: Natural = 0, lr: Rate = 0.001,
    ) -> None:  # fmt: skip
        super().__init__()
        if row_width != backbone.out_features:
            raise UserError(
                f"Class rows have {row_width:,} numbers, features {backbone.out_features:,}: Tip-Adapter takes their "
                "cosines, so both come from one model, such as CLIP's two towers. For others type algo=zeroshot."
            )
        self.backbone = backbone
        self.scale, self.alpha, self.beta = scale, alpha, beta
        self.choose, self.test_steps, self.lr = choose, test_steps, lr
        self.register_buffer("chosen", torch.tensor([alpha, beta]))

    def tune(self, episodes: Iterable[Episodes]) -> None:
        """Choose alpha and beta: those of the best accuracy, and of the lowest loss among equals."""
        if not self.choose:
            return
        told = [(self._teller(each.support, each.class_rows)(each.query.x), each.query.y) for each in episodes]
        best = (-1.0, 0.0)
        for beta in BETAS:
            right, loss = torch.zeros(len(ALPHAS)), torch.zeros(len(ALPHAS))
            for each, y in told:
                weights = each[1].new_tensor(ALPHAS).view(-1, 1, 1, 1)
                said = weighed(each, weights, beta)  # (alphas, 1, m, way)
                answers = y.expand(len(ALPHAS), *y.shape)
                right += (said.argmax(-1) == answers).float().mean((1, 2)).cpu()
                loss += F.cross_entropy(said.permute(0, 3, 1, 2), answers, reduction="none").mean((1, 2)).cpu()
            for alpha, score in zip(ALPHAS, zip(right.tolist(), (-loss).tolist(), strict=True), strict=True):
                if score > best:
                    best = score
                    self.chosen.copy_(torch.tensor([alpha, beta]))

    def adapt(self, support: Examples, class_rows: Tensor | None = None) -> Classifier:
        alpha, beta = self.chosen.unbind() if self.choose else (self.alpha, self.beta)
        tell = self._teller(support, class_rows)
        return lambda x: weighed(tell(x), alpha, beta)

    def classifier(self, episodes: Episodes) -> Classifier:
        return self.adapt(episodes.support, episodes.class_rows)

    def embed(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """The backbone's features, of unit length."""
        return F.normalize(self.backbone(x, support), dim=-1)

    def _teller(self, support: Examples, class_rows: Tensor | None) -> Callable[[Tensor], Told]:
        """A function from queries to what there is to weigh, with the keys of these support sets."""
        if class_rows is None:
            raise UserError("This method knows a class by its class row too: give one for each.")
        texts = F.normalize(class_rows, dim=-1)  # (T, way, d)
        seen = support.x if support.x.shape[1] else None
        keys = self.embed(support.x) if seen is not None else texts[:, :0]  # (T, n, d)
        values = F.one_hot(support.y, texts.shape[1]).to(texts)  # (T, n, way)
        if self.test_steps and not self.training:
            keys = self._finetuned(keys, values, texts)

        def tell(x: Tensor) -> Told:
            features = self.embed(x, seen)
            return self.scale * features @ texts.mT, features @ keys.mT, values

        return tell

    @torch.enable_grad()
    def _finetuned(self, keys: Tensor, values: Tensor, texts: Tensor) -> Tensor:
        """Keys (T, n, d) after steps of AdamW on their own images; each task's are its own, as AdamW mixes nothing."""
        features, texts = keys.detach(), texts.detach()
        by_rows, tuned = self.scale * features @ texts.mT, features.clone().requires_grad_()
        optimizer = torch.optim.AdamW([tuned], lr=self.lr, eps=1e-4)
        for step in range(self.test_steps):
            optimizer.param_groups[0]["lr"] = self.lr * (1 + math.cos(math.pi * step / self.test_steps)) / 2
            said = weighed((by_rows, features @ tuned.mT, values), self.alpha, self.beta)
            loss = F.cross_entropy(said.flatten(0, 1), values.flatten(0, 1), reduction="sum") / said.shape[1]
            [tuned.grad] = torch.autograd.grad(loss, [tuned])
            optimizer.step()
        return tuned.detach()
