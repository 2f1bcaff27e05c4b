"""CIFAR-FS and FC100 from CIFAR-100's archive, its folder and class folders, written here as published."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from test_pickles import python2
from torchvision.datasets import CIFAR100
from torchvision.io import encode_png

from fsl_cli.data import copies, download
from fsl_cli.data.copies import shipped_split
from fsl_cli.data.sources import cifar as module
from fsl_cli.data.sources.cifar import cifar_fs, fc100
from fsl_cli.data.store import DataSet
from fsl_cli.errors import UserError

PAIRS = sorted((above, name) for pairs in shipped_split("cifar_fs").values() for above, name in pairs)
FINE = sorted(name for _, name in PAIRS)
PIXELS = np.random.default_rng(0).integers(0, 255, (2, 100, 3, 32, 32), np.uint8)  # (train or test, class, ...)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """cifar-100-python.tar.gz as Python 2 wrote it, with one image of each class in train and in test."""
    order, files = np.random.default_rng(1).permutation(100), {}
    for part, pixels in zip(("train", "test"), PIXELS, strict=True):
        labels = {"fine_labels": order.tolist(), "coarse_labels": [0] * 100, "filenames": ["a.png"] * 100}
        files[part] = b"\x80\x02" + python2({"data": pixels[order].reshape(100, -1), **labels}) + b"."
    files["meta"] = b"\x80\x02" + python2({"fine_label_names": FINE, "coarse_label_names": []}) + b"."
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(CIFAR100, "tgz_md5", md5(packed.getvalue()))
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5(files["train"])]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5(files["test"])]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": md5(files["meta"])})
    return packed.getvalue()


def put(folder: Path, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CIFAR100.filename).write_bytes(content)
    return folder


def opened(make: Any, root: Path | None, cache: Path, **choices: Any) -> DataSet:
    return make(str(root) if root else None, cache=str(cache), **choices)


def names(data: DataSet, part: str) -> list[str]:
    return [data.store.names[c] for c in data.splits[part].classes]


def unpack(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


def test_the_archive(tmp_path: Path, archive: bytes) -> None:
    root = put(tmp_path / "it", archive)
    fs, fc = opened(cifar_fs, root, tmp_path / "cache"), opened(fc100, root, tmp_path / "cache", rotations="all")
    assert fs.store.hash == fc.store.hash and len(list((tmp_path / "cache").iterdir())) == 1
    assert len(PAIRS) == 100 and fs.store.names == [f"{above}/{name}" for above, name in PAIRS]
    assert len(list(root.iterdir())) == 1
    trout = fs.store.names.index("fish/trout")
    assert np.array_equal(fs.store.images[2 * trout : 2 * trout + 2], PIXELS[:, FINE.index("trout")])
    assert [len(fs.splits[part].classes) for part in ("train", "val", "test")] == [64, 16, 20]
    assert [len(fc.splits[part].classes) for part in ("train", "val", "test")] == [60, 20, 20]
    assert "aquatic_mammals/whale" in names(fs, "test")
    assert {name.split("/")[0] for name in names(fc, "test")} == set(shipped_split("fc100")["test"])
    assert [split.turns for split in (*fs.splits.values(), *fc.splits.values())] == [1, 1, 1, 4, 4, 4]
    assert fs.protocol == {"split": "bertinetto", "split_hash": "94541d8971", "rotations": "none"}
    assert fc.protocol == {"split": "oreshkin", "split_hash": "8076878e9e", "rotations": "all"}
    shutil.rmtree(root)
    assert opened(fc100, None, tmp_path / "cache", download=False).store.hash == fs.store.hash


def test_the_archive_itself_or_unpacked_is_the_same(tmp_path: Path, archive: bytes) -> None:
    root = put(tmp_path / "it", archive)
    made = opened(cifar_fs, root / CIFAR100.filename, tmp_path / "a").store.hash
    unpacked = unpack(root / CIFAR100.filename, tmp_path / "unpacked")
    assert opened(cifar_fs, unpacked, tmp_path / "b").store.hash == made
    assert opened(cifar_fs, unpacked / "cifar-100-python", tmp_path / "c").store.hash == made
    assert opened(cifar_fs, root, tmp_path / "d", size=40).store.images.shape == (200, 3, 40, 40)


@pytest.mark.parametrize("nested", [False, True])
def test_class_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: bool) -> None:
    monkeypatch.setattr(module, "IMAGES", 2)
    for above, name in PAIRS:
        for i, pixels in enumerate(PIXELS[:, FINE.index(name)]):
            path = tmp_path / "it" / (above if nested else "data") / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(encode_png(torch.from_numpy(pixels)).numpy()))
    data = opened(cifar_fs, tmp_path / "it", tmp_path / "cache")
    assert data.store.names == [f"{above}/{name}" for above, name in PAIRS]
    assert np.array_equal(data.store.images[:2], PIXELS[:, FINE.index("beaver")])
    path.unlink()
    with pytest.raises(UserError, match="needed are CIFAR-100's 100 classes with 2 images each, but .* has 1"):
        opened(cifar_fs, tmp_path / "it", tmp_path / "cache")
    path.with_name("0.png").unlink()
    with pytest.raises(UserError, match="holds 99 class folders; .* are missing or too many"):
        opened(fc100, tmp_path / "it", tmp_path / "cache")


def test_another_archive_is_not_unpickled(tmp_path: Path, archive: bytes) -> None:
    with pytest.raises(UserError, match="damaged or another file: its MD5"):
        opened(cifar_fs, put(tmp_path / "it", archive[:-9]), tmp_path / "cache")
    unpacked = unpack(put(tmp_path / "whole", archive) / CIFAR100.filename, tmp_path / "unpacked")
    for name in ("train", "test", "meta"):
        whole = (unpacked / "cifar-100-python" / name).read_bytes()
        (unpacked / "cifar-100-python" / name).write_bytes(f"cos\nmkdir\n(S'{tmp_path}/trap'\ntR.".encode())
        with pytest.raises(UserError, match="not whole, or not the original"):
            opened(cifar_fs, unpacked, tmp_path / "cache")
        (unpacked / "cifar-100-python" / name).write_bytes(whole)
    assert not (tmp_path / "trap").exists()


def test_downloading(tmp_path: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*words: object, **more: object) -> None:
        raise URLError("no route to host")

    with pytest.raises(UserError, match="download=false. Download https://"):
        opened(cifar_fs, None, tmp_path, download=False)
    monkeypatch.setattr(download, "urlopen", no_network)
    with pytest.raises(UserError, match="could not be downloaded from https://.*no route.*data.root=FOLDER"):
        opened(cifar_fs, None, tmp_path)
    monkeypatch.setattr(copies, "download", lambda url, path, *words: put(path.parent, archive))
    data = opened(cifar_fs, None, tmp_path)
    assert data.store.images.shape == (200, 3, 32, 32)
    assert {path.name.split("-")[0] for path in tmp_path.iterdir()} == {"cifar100", "downloads"}


def test_what_is_no_cifar(tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    with pytest.raises(UserError, match="holds 0 class folders; needed are"):
        opened(cifar_fs, tmp_path / "it", tmp_path / "cache")
    with pytest.raises(UserError, match="missing does not exist"):
        opened(fc100, tmp_path / "missing", tmp_path / "cache")
