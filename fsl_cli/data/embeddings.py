"""Embeddings as items: features that a network has made, kept in a store as the bytes of their float32 numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsl_cli.data.store import Images

BYTES = 4  # of a number


def as_items(vectors: Any) -> Images:
    """Features (n, d) of any precision as items (n, 1, 1, 4 * d)."""
    numbers = np.ascontiguousarray(vectors, dtype="<f4")
    return numbers.view(np.uint8).reshape(len(numbers), 1, 1, -1)


def features(raw: Tensor, dtype: torch.dtype) -> Tensor:
    """Items (n, 1, 1, 4 * d) as networks take them: (n, d, 1, 1)."""
    if not len(raw):  # whose bytes torch cannot view as numbers
        return raw.new_zeros(0, raw.shape[-1] // BYTES, 1, 1, dtype=dtype)
    return raw.contiguous().view(torch.float32).to(dtype).reshape(len(raw), -1, 1, 1)
