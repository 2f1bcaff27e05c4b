"""CUB from its archive and its folder, written here as published with one or two images of each species."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.io import encode_jpeg

from fsl_cli.data import copies
from fsl_cli.data.copies import shipped_split
from fsl_cli.data.sources import cub as module
from fsl_cli.data.sources.cub import cub
from fsl_cli.data.store import DataSet, split_hash
from fsl_cli.errors import UserError

SPECIES = sorted(sum(shipped_split("cub").values(), []))
COUNT = 201  # images: two of the first species


def photograph(number: int) -> bytes:
    """60 x 40, black, with a bright bird in columns 20 to 40 and rows 10 to 30."""
    pixels = torch.zeros(3, 40, 60, dtype=torch.uint8)
    pixels[:, 10:30, 20:40] = 55 + number % 200
    return bytes(encode_jpeg(pixels, quality=100).numpy())


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    species = sorted([SPECIES[0], *SPECIES])
    paths = [f"{name}/{name[4:]}_{i:04d}_{7 * i}.jpg" for i, name in enumerate(species, 1)]
    texts = {
        "images.txt": [f"{i} {path}" for i, path in enumerate(paths, 1)],
        "bounding_boxes.txt": [f"{i} 20.0 10.0 20.0 20.0" for i in range(1, COUNT + 1)],
        "classes.txt": [f"{i} {name}" for i, name in enumerate(SPECIES, 1)],
    }
    images = {f"CUB_200_2011/images/{path}": photograph(i) for i, path in enumerate(paths)}
    return images | {f"CUB_200_2011/{name}": "\n".join([*lines, ""]).encode() for name, lines in texts.items()}


@pytest.fixture
def archive(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(module, "MD5", hashlib.md5(packed.getvalue()).hexdigest())
    return packed.getvalue()


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IMAGES", COUNT)


def put(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def opened(root: Path | None, cache: Path, **choices: Any) -> DataSet:
    return cub(str(root) if root else None, **{"size": 16, **choices}, cache=str(cache))


def test_the_lists_are_frozen() -> None:
    assert {part: len(names) for part, names in shipped_split("cub").items()} == {"train": 100, "val": 50, "test": 50}
    assert len(set(SPECIES)) == 200 and split_hash(shipped_split("cub")) == "7838e59b65"


def test_archive_and_folder_are_the_same(tmp_path: Path, archive: bytes, files: dict[str, bytes]) -> None:
    root = put(tmp_path / "it", {"CUB_200_2011.tgz": archive})
    data = opened(root, tmp_path / "cache")
    assert data.store.images.shape == (COUNT, 3, 16, 16) and data.store.names == SPECIES
    assert np.diff(data.store.starts).tolist() == [2] + [1] * 199
    assert {part: [data.store.names[c] for c in s.classes] for part, s in data.splits.items()} == shipped_split("cub")
    assert data.protocol == {"split": "chen", "split_hash": split_hash(shipped_split("cub")), "rotations": "none"}
    assert sorted(path.name for path in root.iterdir()) == ["CUB_200_2011.tgz"]
    shutil.rmtree(root)
    assert opened(None, tmp_path / "cache", download=False).store.hash == data.store.hash
    assert len(list((tmp_path / "cache").iterdir())) == 1
    unpacked = put(tmp_path / "unpacked", files)
    for place in (unpacked, unpacked / "CUB_200_2011"):
        assert opened(place, tmp_path / "other", rotations="all").store.hash == data.store.hash


def test_bounding_boxes(tmp_path: Path, files: dict[str, bytes]) -> None:
    root = put(tmp_path / "it", files)
    whole, cut = (opened(root, tmp_path / "cache", crop=crop).store.images for crop in (False, True))
    expected = 55 + np.arange(COUNT) % 200
    assert np.abs(cut.mean((1, 2, 3)) - expected).max() < 3
    assert np.abs(whole.mean((1, 2, 3)) - expected * (20 * 20) / (40 * 60)).max() < 3
    assert whole[:, :, 0].max() < 10 and cut.min() > 40


@pytest.mark.parametrize("name", ["images.txt", "bounding_boxes.txt"])
@pytest.mark.parametrize("content", [None, b"", b"1 2\n", b"1 a b c d\n"])
def test_boxes_that_are_not_there(tmp_path: Path, files: dict[str, bytes], name: str, content: bytes | None) -> None:
    root = put(tmp_path / "it", files)
    (root / "CUB_200_2011" / name).unlink() if content is None else put(root, {f"CUB_200_2011/{name}": content})
    with pytest.raises(UserError, match="data.crop=true needs images.txt and bounding_boxes.txt"):
        opened(root, tmp_path / "cache", crop=True)


def test_copies_that_are_not_whole(tmp_path: Path, archive: bytes, files: dict[str, bytes]) -> None:
    with pytest.raises(UserError, match="damaged or another file: its MD5"):
        opened(put(tmp_path / "cut", {"CUB_200_2011.tgz": archive[:-9]}), tmp_path / "cache")
    root, first = put(tmp_path / "it", files), next(name for name in files if name.endswith(".jpg"))
    put(root, {first: files[first][:-50]})
    with pytest.raises(
        UserError, match=f"1 of {COUNT} images cannot be read. Copy them again:(.|\n)*{Path(first).name}: Image is inc"
    ):
        opened(root, tmp_path / "cache")
    (root / first).unlink()
    with pytest.raises(UserError, match=f"holds 200 images of 200 classes; CUB has {COUNT}"):
        opened(root, tmp_path / "cache")
    shutil.rmtree((root / first).parent)
    with pytest.raises(UserError, match="of 199 classes; .*001.Black_footed_Albatross are missing or too many"):
        opened(root, tmp_path / "cache")
    shutil.rmtree(root / "CUB_200_2011")
    with pytest.raises(UserError, match="it holds 0 images of 0 classes.*What is there: "):
        opened(root, tmp_path / "cache")
    with pytest.raises(UserError, match="nowhere does not exist. CUB comes as CUB_200_2011.tgz"):
        opened(tmp_path / "nowhere", tmp_path / "cache")


def test_downloading(tmp_path: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="download=false. Download https://data.caltech.edu"):
        opened(None, tmp_path, download=False)

    def fetch(url: str, path: Path, *words: str) -> None:
        put(path.parent, {path.name: archive})

    monkeypatch.setattr(copies, "download", fetch)
    assert opened(None, tmp_path).store.images.shape == (COUNT, 3, 16, 16)
    assert {path.name.split("-")[0] for path in tmp_path.iterdir()} == {"cub", "downloads"}
