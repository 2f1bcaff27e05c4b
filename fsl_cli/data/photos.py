"""Pictures as people have them: turned cameras, 16 bits, transparency, any mode and format that Pillow reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
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
        with _alone if image.width * image.height > LARGE else nullcontext():
            ImageOps.exif_transpose(image, in_place=True)  # a copy of a large one costs half a gigabyte
            return from_image(image, size, channels)


def from_image(upright: Image.Image, size: int, channels: int) -> Images:
    """What `photo` makes of an image that is open already and stands upright."""
    if upright.mode[0] in "IF":  # 16 bits, which Pillow would clip at 255; floats are 0..1 or 0..255
        values = np.asarray(upright, dtype=np.float64)
        scale = 1 / 257 if upright.mode[0] == "I" else 255 if values.max() <= 1 else 1
        upright = Image.fromarray((values * scale).clip(0, 255).astype(np.uint8))
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    mode = "RGB" if channels == 3 else "L"
    if upright.mode not in (mode, "L"):  # three channels of a grey picture are one and the same, before and after
        upright = upright.convert(mode)
    square = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR).convert(mode)  # antialiased
    return np.asarray(square).reshape(size, size, channels).transpose(2, 0, 1)


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
