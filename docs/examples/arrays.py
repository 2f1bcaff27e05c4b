"""Images from a file of NumPy: x (N, height, width) of bytes and y (N,), the name or number of each one's class."""

from __future__ import annotations

from hashlib import blake2b
from io import BytesIO
from pathlib import Path

import numpy as np

from fsl_cli.data.copies import divided
from fsl_cli.data.store import DataSet, cache_folder, open_store


def arrays(root: str, val_classes: int = 5, test_classes: int = 5, cache: str | None = None) -> DataSet:
    """The last classes are for the test, those before them for validation, the others for training."""
    content = Path(root).read_bytes()
    with np.load(BytesIO(content)) as file:
        x, y = file["x"], file["y"]
    classes = ((str(name), x[y == name][:, None]) for name in np.unique(y))  # images (n, channels, height, width)
    store = open_store(cache_folder(cache), "arrays", {"file": blake2b(content).hexdigest()}, lambda: classes)
    ends = [0, len(store.names) - val_classes - test_classes, len(store.names) - test_classes, len(store.names)]
    parts = zip(("train", "val", "test"), ends, ends[1:], strict=False)
    return divided("arrays", store, "in order", {part: store.names[start:end] for part, start, end in parts}, "none")
