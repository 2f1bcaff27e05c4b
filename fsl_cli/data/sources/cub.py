"""CUB-200-2011: 200 species of birds, 11,788 photographs, 41 to 60 of each (Wah et al. 2011).

https://www.vision.caltech.edu/datasets/cub_200_2011/
The 100 / 50 / 50 classes are those of Chen et al. 2019, "A closer look at few-shot classification".
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Literal

from fsl_cli.data.copies import by_folder, divided, find_files, open_copy, shipped_split, unpacked, what_is_there
from fsl_cli.data.decode import RESIZE, Classes, File, decode
from fsl_cli.data.formats import ending
from fsl_cli.data.store import DataSet, Images, ImageStore, cache_folder
from fsl_cli.errors import UserError

URL = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
ARCHIVE, MD5 = "CUB_200_2011.tgz", "97eceeb196236b17998738112f37df78"
IMAGES = 11_788
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as in Chen et al.


def cub(
    root: str | None = None,
    size: int = 84,
    crop: bool = False,
    rotations: Literal["none", "train", "all"] = "none",
    download: bool = True,
    cache: str | None = None,
) -> DataSet:
    """CUB at size x size, 3 channels; `crop` cuts the birds out by their bounding boxes first.

    `root` holds CUB_200_2011.tgz or that archive unpacked; None downloads it, 1.2 GB, into the cache folder.
    Raises UserError when classes or images are not all there.
    """
    store = _store(root, size, crop, download, cache_folder(cache))
    return divided("cub", store, "chen", shipped_split("cub"), rotations)._replace(mean=MEAN, std=STD)


def _store(root: str | None, size: int, crop: bool, download: bool, cache: Path) -> ImageStore:
    place = Path(root).expanduser() if root else None
    if place and (place / ARCHIVE).is_file():
        place = place / ARCHIVE

    def drawn(place: Path) -> Iterable[tuple[str, Images]]:
        if place.name != ARCHIVE:
            yield from _draw(place, size, crop)
            return
        with unpacked(place, URL, MD5, download, cache) as top:
            yield from _draw(top, size, crop)

    recipe = {"size": size, "resize": RESIZE, "crop": crop}
    needs = f"CUB comes as {ARCHIVE} or as the folder CUB_200_2011 in it ({URL})."
    fetch = partial(Path, cache / "downloads" / ARCHIVE)
    return open_copy(cache, "cub", str(place) if place else None, recipe, drawn, needs, fetch)


def _draw(place: Path, size: int, crop: bool) -> Iterable[tuple[str, Images]]:
    """From the species' folders, wherever they lie; masks of the birds, which are PNGs, lie in such folders too."""
    files = find_files(place)
    wanted = set(sum(shipped_split("cub").values(), []))
    found = by_folder({path: file for path, file in files.items() if ending(path) in (".jpg", ".jpeg")})
    classes = {name: own for name, own in found.items() if name in wanted}
    images = sum(map(len, classes.values()))
    if set(classes) != wanted or images != IMAGES:
        odd = ", ".join(sorted(wanted - set(classes))[:5])
        raise UserError(
            f"{place} holds {images:,} images of {len(classes)} classes; CUB has {IMAGES:,} of {len(wanted)}"
            + (f" ({odd} are missing or too many)" if odd else "")
            + f". Unpack {ARCHIVE} again. {what_is_there(files)}"
        )
    return decode(_cropped(place, files, classes) if crop else classes, size)


def _cropped(top: Path, files: dict[str, File], classes: Classes) -> Classes:
    """The images with their bounding boxes, from lines such as "1 60.0 27.0 325.0 304.0": left, top, width, height."""
    try:
        texts = {path.rpartition("/")[2]: file for path, file in files.items() if ending(path) == ".txt"}
        names, corners = (texts[name].read().decode() for name in ("images.txt", "bounding_boxes.txt"))
        paths = dict(line.split() for line in names.splitlines())
        boxes = {}
        for line in corners.splitlines():
            number, *numbers = line.split()
            left, above, width, height = (round(float(each)) for each in numbers)
            boxes[paths[number].rpartition("/")[2]] = (above, left, height, width)
        return {
            name: [file._replace(box=boxes[file.name.rpartition("/")[2]]) for file in files]
            for name, files in classes.items()
        }
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"data.crop=true needs images.txt and bounding_boxes.txt in {top}, a line for each image ({error}). "
            f"Unpack {ARCHIVE} again, or leave out data.crop=true."
        ) from error
