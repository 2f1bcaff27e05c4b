"""Glyphs are the same everywhere, nested, and neither trivial nor hopeless."""

from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsl_cli.data.sources.glyphs import draw, glyphs
from fsl_cli.data.store import DataSet
from fsl_cli.errors import UserError


def small(cache: Path, **choices: Any) -> DataSet:
    return glyphs(
        **{"train_classes": 5, "val_classes": 2, "test_classes": 3, "drawings": 4, **choices}, cache=str(cache)
    )


def test_the_same_bytes_on_every_machine() -> None:
    images = np.stack([draw(seed=3, number=number, drawings=3, size=28) for number in range(50)])
    assert blake2b(images.tobytes(), digest_size=8).hexdigest() == "17dc0c3d7504cfb5"


def test_splits_are_consecutive_and_named(tmp_path: Path) -> None:
    data = small(tmp_path)
    assert {part: split.classes.tolist() for part, split in data.splits.items()} == {
        "train": [0, 1, 2, 3, 4],
        "val": [5, 6],
        "test": [7, 8, 9],
    }
    assert data.store.names[7] == "glyph 0007" and len(data.store.names) == 10
    assert data.store.starts.tolist() == list(range(0, 44, 4))
    assert data.protocol.keys() == {"split", "split_hash", "rotations"}
    assert data.protocol["split_hash"] != small(tmp_path, train_classes=4, val_classes=3).protocol["split_hash"]


def test_rotations_are_a_setting(tmp_path: Path) -> None:
    plain = small(tmp_path)
    for rotations, turns in {"none": [1, 1, 1], "train": [4, 1, 1], "all": [4, 4, 4]}.items():
        data = small(tmp_path, rotations=rotations)
        assert [data.splits[part].turns for part in ("train", "val", "test")] == turns
        assert data.protocol == {**plain.protocol, "rotations": rotations}
        assert data.store.hash == plain.store.hash and len(list(tmp_path.iterdir())) == 1


def test_ink_on_paper(tmp_path: Path) -> None:
    images = small(tmp_path, size=40).store.images
    assert images.shape == (40, 1, 40, 40) and images.dtype == np.uint8
    assert (images.max((1, 2, 3)) == 255).all(), "each drawing has full ink"
    assert 0.03 < (images > 127).mean() < 0.3 and (images == 0).mean() > 0.5, "most is paper"


def test_more_classes_and_more_drawings_contain_the_fewer(tmp_path: Path) -> None:
    few = small(tmp_path).store.images.reshape(10, 4, -1)
    assert np.array_equal(few, small(tmp_path, train_classes=9).store.images.reshape(14, 4, -1)[:10])
    assert np.array_equal(few, small(tmp_path, drawings=6).store.images.reshape(10, 6, -1)[:, :4])
    assert not np.array_equal(few, small(tmp_path, seed=1).store.images.reshape(10, 4, -1))


def test_drawings_of_a_class_differ_and_resemble_each_other() -> None:
    images = np.stack([draw(seed=0, number=number, drawings=4, size=28) for number in range(200)])
    flat = images.reshape(40, 5, 4, -1).astype(np.float32) / 255  # forty 5-way 1-shot episodes, three queries a class
    distance = ((flat[:, None, :, 1:] - flat[:, :, None, :1]) ** 2).sum(-1)  # (40, 5 support, 5 query classes, 3)
    accuracy = (distance.argmin(1) == np.arange(5)[:, None]).mean()
    assert 0.45 < accuracy < 0.75, "nearest pixels must neither fail nor suffice"


def test_bad_values_are_one_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.val_classes=0, data.drawings=-1: .*Type 1 or more"):
        small(tmp_path, val_classes=0, drawings=-1)
