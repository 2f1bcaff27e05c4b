"""What the field's pickles of images hold: dictionaries and pairs of several kinds, as libraries write them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fsl_cli.errors import UserError

IMAGES = ("image_data", "data", "images", "image", "imgs", "x", "X")
LABELS = ("labels", "label", "targets", "target", "y", "Y", "fine_labels")
NAMES = ("catname2label", "label2catname", "class_names", "label_names")
Classes = dict[str, tuple[Any, Any]]  # class -> images (N, h, w, 3), and which of them are its own


def classes_of(content: Any, part: str, path: str) -> Classes:
    """The classes in what a pickle of one split holds; those without a name are called train/00 and so on.

    {"image_data": (N, h, w, 3), "class_dict": {name: rows}}; {"data" or the like, "labels" or the like, perhaps with
    "catname2label"}; (images, labels); {name: images}; or images (classes, n, h, w, 3). Raises UserError.
    """
    if isinstance(content, list | tuple) and len(content) == 2:
        content = {"data": content[0], "labels": content[1]}
    if not isinstance(content, dict):
        content = {"data": content}
    images = _images(next((content[key] for key in IMAGES if key in content), None))
    if images is None and content and all(_images(each) is not None for each in content.values()):
        each = {str(name): _images(value) for name, value in content.items()}
        return {name: (own, np.arange(len(own))) for name, own in each.items() if own is not None}
    if images is None:
        raise UserError(f"{path} holds no uint8 images (N, 84, 84, 3) under image_data or data. {_found(content)}")
    if images.ndim == 5:
        several = images.reshape(-1, *images.shape[2:])
        return {
            f"{part}/{i:02d}": (several, np.arange(i * images.shape[1], (i + 1) * images.shape[1]))
            for i in range(len(images))
        }
    try:
        if "class_dict" in content:
            return {str(name): (images, np.array(rows, dtype=np.int64)) for name, rows in content["class_dict"].items()}
        labels = np.array([_word(each) for each in next(content[key] for key in LABELS if key in content)])
        if labels.shape != (len(images),):
            raise ValueError
    except (StopIteration, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} holds neither class_dict nor labels, which say what its images show. {_found(content)}"
        ) from error
    names = _names(next((content[key] for key in NAMES if key in content), {}))
    return {
        label if isinstance(label, str) else names.get(label, f"{part}/{label:02d}"): (
            images,
            np.flatnonzero(labels == label),
        )
        for label in sorted(set(labels.tolist()))
    }


def _images(value: Any) -> Any:
    """Images as (n, h, w, 3) or (classes, n, h, w, 3); None if they are none."""
    if isinstance(value, list) and value and all(isinstance(each, np.ndarray) for each in value):
        value = np.stack(value) if len({(each.shape, each.dtype) for each in value}) == 1 else None
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim not in (4, 5):
        return None
    if value.shape[-1] != 3 and value.shape[-3] == 3:
        value = np.moveaxis(value, -3, -1)
    return value if value.shape[-1] == 3 else None


def _names(value: Any) -> dict[Any, str]:
    """The name of each label, from {name: label}, {label: name} or a list of names."""
    if isinstance(value, list | tuple):
        return {i: str(_word(name)) for i, name in enumerate(value)}
    pairs = value.items() if isinstance(value, dict) else ()
    return {key if isinstance(key, int) else each: _word(each if isinstance(key, int) else key) for key, each in pairs}


def _word(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode("latin1") if isinstance(value, bytes) else value


def _found(content: dict[str, Any]) -> str:
    kinds = [
        f"{key}: {value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"{key}: {type(value).__name__}"
        for key, value in list(content.items())[:5]
    ]
    return f"It holds {', '.join(kinds) or 'nothing'}."
