"""Pictures as people have them: turned cameras, 16 bits, transparency, any mode and format that Pillow reads."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

from fsl_cli.data.decode import File
from fsl_cli.data.store import Images

Image.preinit()  # all formats now, common ones first: as Pillow does at the first file that needs one,
Image.init()  # which is not safe in threads


def photo(file: File, size: int, channels: int) -> Images:
    """One image, (channels, size, size): upright, on white where it is transparent, the middle cut out."""
    with Image.open(BytesIO(file.read())) as image:
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
