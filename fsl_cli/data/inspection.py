"""What is in a prepared store: whether its bytes are still those that were written, its counts, its duplicates."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from fsl_cli.data.store import DAMAGED, SPLITS, DataSet, ImageStore

SHARED = {"cifar_fs": "cifar100", "fc100": "cifar100"}  # data sets whose store goes by another name
BLOCK = 1 << 24  # bytes read at a time
Group = list[int]  # the rows of images that are all the same


def prepared(cache: Path, name: str | None = None) -> list[Path]:
    """The folders of all stores in the cache, or of the data set `name`."""
    pattern = f"{SHARED.get(name, name)}-*/store.json" if name else "*/store.json"
    folders = (path.parent for path in sorted(cache.glob(pattern)) if not path.parent.name.startswith("."))
    return [folder for folder in folders if not name or store_name(folder) == SHARED.get(name, name)]


def store_name(folder: Path) -> str:
    return folder.name.rpartition("-")[0]


def store_record(folder: Path) -> dict[str, Any]:
    """What is written of a store: its recipe, shape, starts, names and hash. OSError or ValueError when it cannot."""
    content = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not {"recipe", "shape", "starts", "names", "hash"} <= content.keys():
        raise ValueError("store.json is not of a store")
    return content


def store_line(folder: Path) -> str:
    """A prepared store in one line: what store.json says of it, its size on disk, where it is."""
    try:
        content = store_record(folder)
        images, channels, height, width = content["shape"]
        shape = shape_words(content["recipe"].get("items", "images"), channels, height, width)
    except (OSError, ValueError) as error:
        return f"unusable ({error}), will be built again   {folder}"
    size = sum(path.stat().st_size for path in folder.iterdir())
    state = "damaged, will be built again, " if (folder / DAMAGED).exists() else ""
    return f"{state}{len(content['names']):,} classes, {images:,} {shape}, {bytes_text(size)}   {folder}"


def shape_words(items: str, channels: int, height: int, width: int) -> str:
    """images of 84 x 84 x 3, texts of up to 128 characters, or embeddings of 512 numbers"""
    if items == "embeddings":
        return f"embeddings of {width // 4:,} numbers"  # float32
    return f"images of {height} x {width} x {channels}" if items == "images" else f"texts of up to {width} characters"


def bytes_text(count: float) -> str:
    return (
        f"{count / 1e9:.2f} GB"
        if count >= 1e9
        else f"{count / 1e6:.0f} MB"
        if count >= 1e6
        else f"{count / 1e3:.0f} kB"
    )


def damage(folder: Path) -> str:
    """Why the store is not as it was written, "" if it is. A damaged one is marked: whoever opens it builds it anew."""
    try:
        wanted = store_record(folder)["hash"]
        content = blake2b(digest_size=8)
        for block in _blocks(folder / "images.bin", BLOCK):
            content.update(block)
    except (OSError, ValueError) as error:
        return str(error)
    if content.hexdigest() == wanted:
        (folder / DAMAGED).unlink(missing_ok=True)
        return ""
    reason = f"its images have the hash {content.hexdigest()}, not {wanted}"
    try:
        (folder / DAMAGED).touch()
    except OSError as error:
        return f"{reason}, and it cannot be marked as damaged ({error.strerror}): remove it by hand"
    return reason


def summary(data: DataSet) -> dict[str, Any]:
    """Counts, sizes, splits, constants, duplicates and skipped files of an opened data set, ready for JSON."""
    store = data.store
    folder = Path(str(store.images.filename))  # type: ignore[attr-defined]
    sizes = np.diff(store.starts)
    within, across = duplicates(data)
    return {
        "name": data.name,
        "classes": len(store.names),
        "images": len(store.images),
        "items": data.items,
        "shape": list(store.images.shape[1:]),  # channels, height, width
        "bytes": store.images.nbytes,
        "hash": store.hash,
        "store": str(folder.parent),
        "mean": list(data.mean),
        "std": list(data.std),
        **data.protocol,
        "splits": {
            part: {
                "classes": len(data.splits[part].classes),
                "turns": data.splits[part].turns,
                "images": int(sizes[data.splits[part].classes].sum()),
                **_spread(sizes[data.splits[part].classes]),
            }
            for part in SPLITS
        },
        "odd_classes": _odd(store.names, sizes),
        "duplicates_across_splits": [_places(data, group) for group in across],
        "duplicates_within_a_split": [_places(data, group) for group in within],
        "skipped": store_record(folder.parent)["recipe"].get("skipped", []),
        "reading": data.reading,
        "left_out": data.left_out,
    }


def duplicates(data: DataSet) -> tuple[list[Group], list[Group]]:
    """Groups of the same image, pixel by pixel: those inside one split, and those in several, by row of the store.

    Holds 16 bytes an image, and reads the images once.
    """
    part = _part_of_rows(data)
    groups = [[row for row in group if part[row] >= 0] for group in _same(data.store)]
    splits = [len(set(part[group].tolist())) for group in groups]
    within = [group for group, count in zip(groups, splits, strict=True) if count == 1 and len(group) > 1]
    return within, [group for group, count in zip(groups, splits, strict=True) if count > 1]


def _part_of_rows(data: DataSet) -> np.ndarray[Any, np.dtype[np.int8]]:
    """The number of the split that each image is in, -1 if none."""
    of_class = np.full(len(data.store.names), -1, dtype=np.int8)
    for number, part in enumerate(SPLITS):
        of_class[data.splits[part].classes] = number
    return np.repeat(of_class, np.diff(data.store.starts))


def _same(store: ImageStore) -> list[Group]:
    """The rows of images that occur more than once, by 128 bits of a hash."""
    path, length = Path(str(store.images.filename)), int(np.prod(store.images.shape[1:]))  # type: ignore[attr-defined]
    each = max(1, BLOCK // length)  # images a block
    digests = bytearray()
    for block in _blocks(path, each * length):
        starts = range(0, len(block), length)
        digests += b"".join(blake2b(block[start : start + length], digest_size=16).digest() for start in starts)
        _progress(len(digests) // 16, len(store.images))
    high, low = np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2).T
    order = np.lexsort((low, high))  # stable: the rows of a group ascend
    new = (np.diff(high[order]) != 0) | (np.diff(low[order]) != 0)
    edges = np.flatnonzero(np.concatenate(([True], new, [True])))
    several = np.flatnonzero(np.diff(edges) > 1)
    return sorted(order[edges[i] : edges[i + 1]].tolist() for i in several)


def _blocks(path: Path, size: int) -> Iterator[memoryview]:
    """A file's bytes, `size` at a time. Read rather than mapped: what was read does not stay in this process."""
    buffer = memoryview(bytearray(size))
    with open(path, "rb", buffering=0) as file:
        filled = 0
        while count := file.readinto(buffer[filled:]):
            filled += count
            if filled == size:
                yield buffer
                filled = 0
    if filled:
        yield buffer[:filled]


def _places(data: DataSet, group: Group) -> list[dict[str, Any]]:
    """Where each image of a group is: split, class, and its number in the class."""
    store, part = data.store, {c: part for part in SPLITS for c in data.splits[part].classes.tolist()}
    classes = [int(c) for c in np.searchsorted(store.starts, group, side="right") - 1]
    return [
        {"split": part[c], "class": store.names[c], "image": row - int(store.starts[c])}
        for c, row in zip(classes, group, strict=True)
    ]


def _spread(sizes: np.ndarray[Any, Any]) -> dict[str, float]:
    if not len(sizes):
        return {"min": 0, "median": 0, "max": 0}
    return {"min": int(sizes.min()), "median": float(np.median(sizes)), "max": int(sizes.max())}


def _odd(names: list[str], sizes: np.ndarray[Any, Any]) -> dict[str, int]:
    """Classes with an unusual number of images: another than most have, or far from the middle where all differ."""
    usual, times = Counter(sizes.tolist()).most_common(1)[0]
    middle = np.median(sizes)
    odd = sizes != usual if 2 * times > len(sizes) else (2 * sizes < middle) | (sizes > 2 * middle)
    return {names[c]: int(sizes[c]) for c in sorted(np.flatnonzero(odd), key=lambda c: sizes[c])}


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done:,} of {total:,} images", end="\n" if done == total else "", file=sys.stderr, flush=True)
