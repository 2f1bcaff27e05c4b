"""Image files of any size, decoded to one size on all cores and streamed, class by class."""

from __future__ import annotations

import os
import sys
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2.functional import resize

from fsl_cli.data.store import Images
from fsl_cli.errors import UserError

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WORKERS = min(CORES, 8)  # each holds a class in memory; more would wait for Python's lock
RESIZE = "bilinear antialias"  # to a square, whatever the sides were, as the field's scripts do


class File(NamedTuple):
    """One image, not read yet."""

    name: str  # for people: its path, or the archive's and its own
    read: Callable[[], Any]  # bytes, or a buffer of them
    box: tuple[int, int, int, int] | None = None  # the part to keep: top, left, height, width


Classes = dict[str, list[File]]


def decode(
    classes: Classes, size: int, on_error: str = "stop", skipped: list[str] | None = None
) -> Iterator[tuple[str, Images]]:
    """Name and images (n, 3, size, size) of one class after another, sorted by name; memory holds a few classes.

    Files that cannot be read are added to `skipped`, which says to the user that they may be left out. With
    `on_error="stop"` they are one error, raised after the last class. Raises UserError.
    """
    bad = [] if skipped is None else skipped
    total, done, names = sum(map(len, classes.values())), 0, iter(sorted(classes))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # in each worker
    with ThreadPoolExecutor(WORKERS) as pool:  # the decoder lets other threads run
        waiting = deque((name, pool.submit(_class, classes[name], size)) for name in islice(names, WORKERS + 1))
        try:
            while waiting:
                name, future = waiting.popleft()
                images, unreadable = future.result()
                waiting.extend((name, pool.submit(_class, classes[name], size)) for name in islice(names, 1))
                bad += unreadable
                done += len(classes[name])
                _progress(done, total)
                if not len(images) and on_error == "skip":
                    raise UserError(f"No image of {name} can be read: {unreadable[0]}")
                yield name, images
        finally:
            torch.set_num_threads(threads)
            pool.shutdown(cancel_futures=True)
    if bad:
        some = "\n  ".join(bad[:10] + ([f"and {len(bad) - 10} more"] if len(bad) > 10 else []))
        if on_error == "stop":
            advice = "Copy them again" + ("" if skipped is None else ", or leave them out with data.on_error=skip")
            raise UserError(f"{len(bad)} of {total:,} images cannot be read. {advice}:\n  {some}")
        print(f"Left out {len(bad)} of {total:,} images, which cannot be read:\n  {some}")


def scaled(images: Images, size: int) -> Images:
    """Images (n, h, w, 3), as most archives have them, to (n, 3, size, size)."""
    chw = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return resize(chw, [size, size], antialias=True).numpy()


def _class(files: list[File], size: int) -> tuple[Images, list[str]]:
    """All images of a class that can be read, and what is wrong with the others."""
    images, bad = np.empty((len(files), 3, size, size), dtype=np.uint8), []
    count = 0
    for file in files:
        try:
            images[count] = _image(file, size)
            count += 1
        except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            bad.append(f"{file.name}: {_reason(error)}")
    return images[:count], bad


def _image(file: File, size: int) -> Images:
    image = decode_image(torch.frombuffer(bytearray(file.read()), dtype=torch.uint8), ImageReadMode.RGB)  # (3, h, w)
    if file.box:
        top, left, height, width = file.box
        image = image[:, top : top + height, left : left + width]
    return resize(image, [size, size], antialias=True).numpy()


def _reason(error: Exception) -> str:
    """What a decoder or a zip says, without the place in its source."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    said = text.splitlines()[0].split(", ", 2)[-1] if ".cpp:" in text else text
    return "it is no image" if "Unsupported image file" in text or not text else said


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done:,} of {total:,} images", end="\n" if done == total else "", file=sys.stderr, flush=True)
