"""CIFAR-FS and FC100: the 100 classes of CIFAR-100, 600 images of 32 x 32 each, divided in two ways.

CIFAR-FS (Bertinetto et al. 2019, https://arxiv.org/abs/1805.08136) draws 64 / 16 / 20 classes at random; FC100
(Oreshkin et al. 2018, https://arxiv.org/abs/1805.10123) keeps superclasses together, 12 / 4 / 4 of 5 classes each.
Both take the images of CIFAR-100's training and test set alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from torchvision.datasets import CIFAR100

from fsl_cli.data.copies import by_folder, divided, find_files, open_copy, shipped_split, unpacked, what_is_there
from fsl_cli.data.decode import RESIZE, decode, scaled
from fsl_cli.data.store import DataSet, Images, ImageStore, cache_folder
from fsl_cli.errors import UserError

IMAGES = 600  # of each class
MEAN, STD = (0.507, 0.487, 0.441), (0.267, 0.257, 0.276)  # of CIFAR-FS' training images, as in MetaOptNet
Rotations = Literal["none", "train", "all"]


def cifar_fs(
    root: str | None = None,
    size: int = 32,
    rotations: Rotations = "none",
    download: bool = True,
    cache: str | None = None,
) -> DataSet:
    """CIFAR-FS at size x size, 3 channels.

    `root` holds cifar-100-python.tar.gz, that archive unpacked, or a folder per class (a zip of them will do); None
    downloads the archive into the cache folder. Raises UserError when classes or images are not all there.
    """
    store = _store(root, size, download, cache_folder(cache))
    lists = {part: ["/".join(pair) for pair in pairs] for part, pairs in shipped_split("cifar_fs").items()}
    return divided("cifar_fs", store, "bertinetto", lists, rotations)._replace(mean=MEAN, std=STD)


def fc100(
    root: str | None = None,
    size: int = 32,
    rotations: Rotations = "none",
    download: bool = True,
    cache: str | None = None,
) -> DataSet:
    """FC100 at size x size, 3 channels; `root` and errors as of `cifar_fs`."""
    store = _store(root, size, download, cache_folder(cache))
    above = shipped_split("fc100")
    lists = {part: [name for name in store.names if name.split("/")[0] in above[part]] for part in above}
    return divided("fc100", store, "oreshkin", lists, rotations)._replace(mean=MEAN, std=STD)


def _store(root: str | None, size: int, download: bool, cache: Path) -> ImageStore:
    """One store for both, its classes called superclass/class, such as fish/trout."""
    place = Path(root).expanduser() if root else None
    if place and place.name == CIFAR100.base_folder:
        place = place.parent
    if place and (place / CIFAR100.filename).is_file() and not (place / CIFAR100.base_folder).exists():
        place = place / CIFAR100.filename

    def drawn(place: Path) -> Iterable[tuple[str, Images]]:
        if place.name == CIFAR100.filename:
            with unpacked(place, CIFAR100.url, CIFAR100.tgz_md5, download, cache) as top:
                yield from _from_archive(top, size)
        elif (place / CIFAR100.base_folder).exists():
            yield from _from_archive(place, size)
        else:
            yield from _from_folders(place, size)

    original = bool(place and (place / CIFAR100.base_folder).exists())
    return open_copy(
        cache,
        "cifar100",
        str(place) if place else None,
        {"size": size, "resize": RESIZE},
        drawn,
        f"CIFAR-100 comes as {CIFAR100.filename} or with a folder for each of its 100 classes.",
        partial(Path, cache / "downloads" / CIFAR100.filename),
        lambda path: not original or path.startswith(f"{CIFAR100.base_folder}/"),
    )


def _superclass() -> dict[str, str]:
    """The superclass of each class; CIFAR-FS' lists have them all."""
    return {name: above for pairs in shipped_split("cifar_fs").values() for above, name in pairs}


def _from_archive(top: Path, size: int) -> Iterable[tuple[str, Images]]:
    try:
        both = [CIFAR100(str(top), train=train) for train in (True, False)]  # verifies MD5s before it unpickles
    except (RuntimeError, OSError) as error:
        again = f"Copy or download {CIFAR100.filename} again."
        raise UserError(f"{top / CIFAR100.base_folder} is not whole, or not the original: {error}. {again}") from error
    images = np.concatenate([each.data for each in both])  # (60000, 32, 32, 3)
    numbers = np.concatenate([each.targets for each in both])
    above = _superclass()
    for name in sorted(both[0].classes, key=lambda name: (above[name], name)):
        yield f"{above[name]}/{name}", scaled(images[numbers == both[0].class_to_idx[name]], size)


def _from_folders(place: Path, size: int) -> Iterable[tuple[str, Images]]:
    files, above = find_files(place), _superclass()
    classes = by_folder(files)
    odd = sorted(set(above) ^ set(classes))
    short = [f"{name} has {len(files)}" for name, files in classes.items() if len(files) != IMAGES]
    if odd or short:
        raise UserError(
            f"{place} holds {len(classes)} class folders; needed are CIFAR-100's 100 classes with {IMAGES} images each"
            + (f", but {', '.join(odd[:5])} are missing or too many" if odd else f", but {', '.join(short[:5])}")
            + f". {CIFAR100.filename} will do as well. {what_is_there(files)}"
        )
    return decode({f"{above[name]}/{name}": files for name, files in classes.items()}, size)
