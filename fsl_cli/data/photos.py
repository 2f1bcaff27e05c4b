"""Pictures as people have them: turned cameras, 16 bits, transparency, any mode and format that Pillow reads."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from io import BytesIO
from itertools import islice
from threading import Lock

import numpy as np
from PIL import Image, ImageOps

from fsl_cli.data.decode import Classes, File, decode
from fsl_cli.data.formats import FORMATS
from fsl_cli.data.store import Images

LARGE = 1 << 25  # pixels: pictures of more are decoded one at a time, whatever the number of threads
_alone = Lock()


def photo(file: File, size: int, channels: int) -> Images:
    """One image, (channels, size, size): upright, on white where it is transparent, the middle cut out."""
    with Image.open(BytesIO(file.read()), formats=FORMATS) as image:
        image.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at a half, a quarter or an eighth: faster
        with _one_at_a_time() if image.width * image.height > LARGE else nullcontext(), closing(image):
            ImageOps.exif_transpose(image, in_place=True)  # a copy of a large one costs half a gigabyte
            return from_image(image, size, channels)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Memory holds one large picture: glibc, which keeps what was freed for the same thread, returns it."""
    with _alone:
        try:
            yield
        finally:
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
            if trim:
                trim(0)


def opened(file: File, size: int) -> Image.Image:
    """A picture in colour as `photo` sees it before it cuts out the middle."""
    with Image.open(BytesIO(file.read()), formats=FORMATS) as image:
        image.draft(None, (2 * size, 2 * size))
        return _plain(ImageOps.exif_transpose(image), "RGB").convert("RGB")


def from_image(upright: Image.Image, size: int, channels: int) -> Images:
    """What `photo` makes of an image that is open already and stands upright.

    Columns are resized first, then rows: Pillow alone would choose by the sides, and round otherwise than a graph of
    `fsl export`.
    """
    mode = "RGB" if channels == 3 else "L"
    picture = _plain(upright, mode)
    (width, height), side = picture.size, min(picture.size)
    left, top, kind = (width - side) / 2, (height - side) / 2, Image.Resampling.BILINEAR  # antialiased
    narrow = picture.resize((size, height), kind, box=(left, 0, left + side, height))
    square = narrow.resize((size, size), kind, box=(0, top, size, top + side)).convert(mode)
    return np.asarray(square).reshape(size, size, channels).transpose(2, 0, 1)


def _plain(upright: Image.Image, mode: str) -> Image.Image:
    """A picture of 8 bits, on white where it is transparent, in this mode or grey."""
    if upright.mode[0] in "IF":  # 16 bits, which Pillow would clip at 255; floats are 0..1 or 0..255
        values = np.asarray(upright, dtype=np.float64)
        scale = 1 / 257 if upright.mode[0] == "I" else 255 if values.max() <= 1 else 1
        upright = Image.fromarray((values * scale).clip(0, 255).astype(np.uint8))
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    if upright.mode == "L":  # three channels of a grey picture are one and the same, before and after
        return upright
    upright = upright if upright.mode == "RGB" else upright.convert("RGB")
    return upright if mode == "RGB" else upright.convert("L")


def photos(
    classes: Classes, size: int, channels: int, on_error: str, skipped: list[str]
) -> Iterator[tuple[list[tuple[str, File]], Images]]:
    """All images (n, channels, size, size) of these files, class by class, in pieces; each with its class and file.

    With `on_error="skip"` files that cannot be read are left out and added to `skipped`. Raises UserError as
    `decode` does.
    """
    bad = set[str]()

    def image(file: File, size: int) -> Images:
        try:
            return photo(file, size, channels)
        except Exception:
            bad.add(file.name)
            raise

    order = ((name, file) for name in sorted(classes) for file in classes[name])
    advice = "Save them again, delete them, or leave them out with on_error=skip"
    for _, images in decode(classes, size, on_error, skipped if on_error == "skip" else None, image, advice):
        readable = ((name, file) for name, file in order if file.name not in bad)
        yield list(islice(readable, len(images))), images
