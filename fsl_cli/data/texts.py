"""Texts as items: a fixed number of code points, kept in a store as images of three bytes each, one pixel high."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsl_cli.data.store import Images

BYTES = 3  # of a code point: there are 1,114,112


def cleaned(text: str) -> str:
    """Letters composed (NFC), one blank for any white space, none at the ends: what tells texts apart."""
    return " ".join(unicodedata.normalize("NFC", text.replace("\0", "")).split())


def as_items(texts: Iterable[str], size: int) -> Images:
    """The first `size` code points of each text, (n, 3, 1, size), lowest byte first; 0 where a text is over."""
    points = np.array([[*map(ord, text[:size]), *[0] * (size - len(text))] for text in texts], dtype="<u4")
    raw = points.reshape(-1, size).view(np.uint8).reshape(-1, size, 4)
    return np.ascontiguousarray(raw[..., :BYTES].transpose(0, 2, 1)[:, :, None])


def code_points(raw: Tensor, dtype: torch.dtype) -> Tensor:
    """Items (n, 3, 1, size) as networks take them, (n, 1, 1, size): numbers that float32, or finer, holds exactly."""
    exact = torch.promote_types(dtype, torch.float32)
    return sum(raw[:, place : place + 1].to(exact) * 256**place for place in range(BYTES))


def as_text(points: Any) -> str:
    """What stands in the code points (size,) of one item, or in its bytes (3, 1, size)."""
    values = np.asarray(points)
    if values.ndim == 3:
        values = sum(values[place, 0].astype(np.int64) << 8 * place for place in range(BYTES))
    return "".join(chr(int(value)) for value in values.flat if value)
