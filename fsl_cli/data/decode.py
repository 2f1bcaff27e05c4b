"""Image files of any size, decoded to one size on all cores and streamed, class by class."""

from __future__ import annotations

import io
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2.functional import resize

from fsl_cli.data.store import Images
from fsl_cli.errors import UserError

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WORKERS = min(CORES, 8)  # more would wait for Python's lock
PIECE = 32  # images that a worker decodes at a time; memory holds two pieces a worker
RESIZE = "bilinear antialias"  # to a square, whatever the sides were, as the field's scripts do


class File(NamedTuple):
    """One image, not read yet."""

    name: str  # for people: its path, or the archive's and its own
    read: Callable[..., Any]  # bytes, or a buffer of them; the first so many, where it is asked how a file begins
    box: tuple[int, int, int, int] | None = None  # the part to keep: top, left, height, width


Classes = dict[str, list[File]]


def square(file: File, size: int) -> Images:
    """One image in colour, (3, size, size), whatever its sides were."""
    image = decoded(file.read(), ImageReadMode.RGB)  # (3, h, w)
    if file.box:
        top, left, height, width = file.box
        image = image[:, top : top + height, left : left + width]
    return resize(image, [size, size], antialias=True).numpy()


def decoded(content: Any, mode: ImageReadMode) -> torch.Tensor:
    """The pixels of a file's content by torch, (channels, h, w). Raises ValueError, or what torch does."""
    try:
        with Image.open(io.BytesIO(content)):  # refuses what has more pixels than fit; torch would try
            pass
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError("" if isinstance(error, OSError) else str(error)) from error  # "": it is no image
    return decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode)


def decode(
    classes: Classes,
    size: int,
    on_error: str = "stop",
    skipped: list[str] | None = None,
    image: Callable[[File, int], Images] = square,
    advice: str = "Copy them again",
) -> Iterator[tuple[str, Images]]:
    """Name and images (n, channels, size, size), class by class, sorted by name; a large class comes in pieces.

    `image` decodes one file, in a thread. Files that cannot be read are added to `skipped`, which says to the user
    that they may be left out. With `on_error="stop"` they are one error, raised after the last class, which gives
    `advice`; with "skip" a class that has no other is one. Raises UserError.
    """
    bad = [] if skipped is None else skipped
    total, done = sum(map(len, classes.values())), 0
    read, lost = set[str](), dict[str, str]()  # classes of which an image was read; why one of a class was not
    order = (
        (name, classes[name][i : i + PIECE]) for name in sorted(classes) for i in range(0, len(classes[name]), PIECE)
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # in each worker
    with ThreadPoolExecutor(WORKERS) as pool:  # the decoder lets other threads run
        pieces = ((name, len(files), pool.submit(_piece, files, size, image)) for name, files in order)
        waiting = deque(islice(pieces, 2 * WORKERS))
        try:
            while waiting:
                name, count, future = waiting.popleft()
                images, unreadable = future.result()
                waiting.extend(islice(pieces, 1))
                bad += unreadable
                done += count
                _progress(done, total)
                if images:
                    read.add(name)
                    yield name, np.stack(images)
                else:
                    lost.setdefault(name, unreadable[0])
        finally:
            torch.set_num_threads(threads)
            pool.shutdown(cancel_futures=True)
    if bad and on_error == "stop":
        choice = advice + ("" if skipped is None else ", or leave them out with data.on_error=skip")
        raise UserError("\n  ".join([f"{len(bad)} of {total:,} images cannot be read. {choice}:", *first_ten(bad)]))
    if none := [f"No image of {name} can be read: {why}" for name, why in lost.items() if name not in read]:
        raise UserError("\n  ".join(first_ten(none)))
    if bad:
        print("\n  ".join([f"Left out {len(bad)} of {total:,} images, which cannot be read:", *first_ten(bad)]))


def first_ten(lines: list[str]) -> list[str]:
    """The first ten lines, and how many more there are."""
    return lines[:10] + ([f"and {len(lines) - 10} more"] if len(lines) > 10 else [])


def scaled(images: Images, size: int) -> Images:
    """Images (n, h, w, 3), as most archives have them, to (n, 3, size, size)."""
    chw = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return resize(chw, [size, size], antialias=True).numpy()


def _piece(files: list[File], size: int, image: Callable[[File, int], Images]) -> tuple[list[Images], list[str]]:
    """Those images that can be read, and what is wrong with the others."""
    images, bad = [], []
    for file in files:
        try:
            images.append(image(file, size))
        except Exception as error:  # damaged files make decoders raise nearly anything: OSError, SyntaxError, ...
            bad.append(f"{file.name}: {_reason(error)}")
    return images, bad


def _reason(error: Exception) -> str:
    """What a decoder or a zip says, without the place in its source."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    said = text.splitlines()[0].split(", ", 2)[-1] if ".cpp:" in text else text
    none = not text or "Unsupported image file" in text or "cannot identify image" in text
    return "it is no image" if none else said


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done:,} of {total:,} images", end="\n" if done == total else "", file=sys.stderr, flush=True)
