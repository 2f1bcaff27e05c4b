"""A language model that came trained, as transformers keeps it: features of texts (Reimers & Gurevych 2019)

https://arxiv.org/abs/1908.10084, https://huggingface.co/docs/transformers
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.backbones.mode import Mode
from fsl_cli.backbones.pretrained import no_weights
from fsl_cli.errors import UserError


class Sentences(Backbone):
    """The model `name`, of the hub or a folder on disk: a text's features are of length 1.

    `pooling` makes them of its tokens' outputs: their mean, or the first, which for some models stands for all. Raises
    UserError where transformers or the model cannot be had, and for a norm, as the model keeps its own.
    """

    takes = ("texts",)
    norms = ("none", "running")
    block_channels = ()

    def __init__(
        self, channels: int, size: int, norm: Mode = "none", name: str = "sentence-transformers/all-MiniLM-L6-v2",
        pooling: Literal["mean", "first"] = "mean",
    ) -> None:  # fmt: skip
        super().__init__()
        if norm not in self.norms:
            raise UserError(f"norm={norm}: a language model keeps the normalisation it has. Type norm=none.")
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise UserError(
                'backbone=sentences: transformers is not installed. Type pip install "fsl-cli[text]".'
            ) from error
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(name)
            self.net: Any = AutoModel.from_pretrained(name)
        except Exception as error:  # whatever a folder, the hub or a damaged file makes of itself
            where = "Looked for in the folder of that name, the hub's cache, then at the hub. Type backbone.name=FOLDER"
            raise no_weights(name, error, where) from error
        self.norm = norm
        self.pooling = pooling
        self.origin = name
        self.out_features = int(self.net.config.hidden_size)
        self.map_shape = (self.out_features, 1, 1)

    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        points = x.flatten(2).long().flatten(0, 1).tolist()  # (T * n, size)
        texts = ["".join(map(chr, filter(None, row))) for row in points]
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(x.device)
        out: Tensor = self.net(**tokens).last_hidden_state  # (T * n, tokens, d)
        if self.pooling == "first":
            pooled = out[:, 0]
        else:
            kept = tokens["attention_mask"].unsqueeze(-1).to(out.dtype)
            pooled = (out * kept).sum(1) / kept.sum(1).clamp(min=1)
        found: Tensor = F.normalize(pooled, dim=-1).to(torch.promote_types(pooled.dtype, torch.float32))
        return found.unflatten(0, x.shape[:2])
