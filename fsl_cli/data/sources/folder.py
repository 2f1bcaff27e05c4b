"""Your own images: one folder per class, or folders train, val and test full of class folders.

Without folders of their own, the splits are shares of the classes, in an order that depends on the seed and
the class names only. Everything wrong with the folders, or with the images in them, is one error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS

from fsl_cli.data.store import SPLITS, DataSet, Images, Split, cache_folder, open_store, split_hash
from fsl_cli.errors import UserError

LAYOUT = "It needs a folder per class, such as ROOT/cat/1.jpg, or class folders inside ROOT/train and ROOT/test."
Found = dict[str, dict[str, list[Path]]]  # split ("" if the root has none) -> class -> its images


def folder(
    root: str | None = None,
    size: int = 84,
    channels: int = 3,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    cache: str | None = None,
) -> DataSet:
    """The images below `root`, each (channels, size, size): shorter side resized to `size`, then the middle cut out.

    Images may lie deeper in a class folder; hidden files do not count. Where `root` has no folders train and test,
    `val_fraction` and `test_fraction` of the classes, at least one each, are drawn by `split_seed`; where it has
    them but no val, val is `val_fraction` of the classes in train. Raises UserError.
    """
    fractions = {"val": val_fraction, "test": test_fraction}
    checks = {
        f"data.channels={channels}: type 1 (grey) or 3 (colour).": channels in (1, 3),
        f"data.size={size}: type 1 pixel or more.": size >= 1,
        f"data.val_fraction={val_fraction} data.test_fraction={test_fraction}: type shares with a sum below 1.": (
            min(fractions.values()) >= 0 and sum(fractions.values()) < 1
        ),
    }
    if not all(checks.values()):
        _refuse("These values cannot be:", [message for message, good in checks.items() if not good])
    found, top = _find(root)
    files = {name: paths for classes in found.values() for name, paths in classes.items()}
    stats = {path: path.stat() for name in sorted(files) for path in files[name]}
    listing = [(path.relative_to(top).as_posix(), stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()]
    digest = blake2b(json.dumps(listing).encode(), digest_size=16).hexdigest()

    lists = _divide(found, fractions, split_seed)
    recipe = {"size": size, "channels": channels, "resize": "bilinear antialias, centre", "files": digest}
    store = open_store(cache_folder(cache), "folder", recipe, lambda: _decoded(files, size, channels))
    number = {name: i for i, name in enumerate(store.names)}
    splits = {part: Split(np.array([number[name] for name in lists[part]])) for part in SPLITS}
    split = f"seeded-{split_seed}" if "" in found else "folders"
    protocol = {"split": split, "split_hash": split_hash(lists), "rotations": "none"}
    return DataSet("folder", store, splits, protocol, mean=(0.5,) * channels, std=(0.5,) * channels)


def _find(root: str | None) -> tuple[Found, Path]:
    """All images, and the root. Only folders with a name of a split are splits: a class may be called train."""
    if not root:
        raise UserError(f"data=folder needs to know where your images are: type data.root=ROOT. {LAYOUT}")
    top = Path(root).expanduser()
    if not top.is_dir():
        state = "is a file; unpack it if it is an archive" if top.exists() else "does not exist"
        raise UserError(f"data.root={root} {state}. Type data.root=ROOT with a folder. {LAYOUT}")
    names = {path.name for path in _folders(top)}
    problems, groups = [], {"": _folders(top)}
    if names and (names <= set(SPLITS) or {"train", "test"} <= names):
        groups = {part: _folders(top / part) for part in SPLITS if part in names}
        missing = [top / part for part in ("train", "test") if part not in names]
        problems += [f"{path} is missing: train and test are needed, val is not." for path in missing]
        problems += [f"{top / name} is none of train, val and test: rename it." for name in sorted(names - set(SPLITS))]
    found = {part: {path.name: _images(path) for path in group} for part, group in groups.items()}
    for part, group in groups.items():
        if not group:
            loose = len(_images(top / part))
            has = f"has {loose} images but no class folders" if loose else "has no class folders"
            problems.append(f"{top / part} {has}. {LAYOUT}")
        problems += [f"{path} has no images: remove it." for path in group if not found[part][path.name]]
    for one, other in combinations(found, 2):
        both = sorted(found[one].keys() & found[other].keys())
        some = ", ".join(both[:5]) + (f" and {len(both) - 5} more" if len(both) > 5 else "")
        problems += [f"{one} and {other} both have {some}: keep a class in one split only."] if both else []
    if problems:
        _refuse(f"data.root={root} is no data set yet (images end in {' '.join(IMG_EXTENSIONS)}):", problems)
    return found, top


def _folders(path: Path) -> list[Path]:
    return sorted((p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: p.name)


def _images(path: Path) -> list[Path]:
    named = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.suffix.lower() in IMG_EXTENSIONS)
    return [path / name for name in named if "/." not in f"/{name}" and (path / name).is_file()]


def _divide(found: Found, fractions: dict[str, float], seed: int) -> dict[str, list[str]]:
    """The classes of each split; those that have no folder take theirs from "" or from train."""
    lists = {part: sorted(classes) for part, classes in found.items()}
    pool = lists.pop("") if "" in lists else lists["train"]
    lacking = [part for part in ("test", "val") if part not in lists]
    if len(pool) <= len(lacking):
        raise UserError(
            f"{len(pool)} classes ({', '.join(pool)}) cannot be divided among train, {', '.join(lacking)}: "
            f"each needs one of its own. Add class folders, to {1 + len(lacking)} or more."
        )
    # Sorting by a hash is a shuffle that no library can change.
    left = sorted(pool, key=lambda name: blake2b(f"{seed}/{name}".encode(errors="surrogateescape")).digest())
    for after, part in zip(range(len(lacking), 0, -1), lacking, strict=True):
        count = max(1, min(round(fractions[part] * len(pool)), len(left) - after))
        lists[part], left = sorted(left[:count]), left[count:]
    return {**lists, "train": sorted(left)}


def _decoded(files: dict[str, list[Path]], size: int, channels: int) -> Iterable[tuple[str, Images]]:
    unreadable = []
    for name in sorted(files):
        images = []
        for path in files[name]:
            try:
                images.append(_decode(path, size, channels))
            except Exception as error:  # damaged files make Pillow raise nearly anything: OSError, SyntaxError, ...
                reason = "it is no image" if isinstance(error, UnidentifiedImageError) else error
                unreadable.append(f"{path}: {reason}")
        if images:
            yield name, np.stack(images)
    if unreadable:
        _refuse("These files cannot be read as images. Delete them, or save them again:", unreadable)


def _decode(path: Path, size: int, channels: int) -> Images:
    """One image, (channels, size, size): upright, on white where it is transparent."""
    with Image.open(path) as image:
        image.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at a half, a quarter or an eighth: faster
        upright: Image.Image = ImageOps.exif_transpose(image)
    if upright.mode[0] in "IF":  # 16 bits, which Pillow would clip at 255; floats are 0..1 or 0..255
        values = np.asarray(upright, dtype=np.float64)
        scale = 1 / 257 if upright.mode[0] == "I" else 255 if values.max() <= 1 else 1
        upright = Image.fromarray((values * scale).clip(0, 255).astype(np.uint8))
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    upright = upright.convert("RGB" if channels == 3 else "L")
    fitted = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)  # antialiased
    return np.asarray(fitted).reshape(size, size, channels).transpose(2, 0, 1)


def _refuse(heading: str, problems: list[str]) -> NoReturn:
    more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
    raise UserError("\n  ".join([heading, *problems[:10], *more]))
