"""What is wrong with what fsl doctor has found, and what to type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

LEAST_SPACE = 1 << 30  # bytes
WHEELS = "https://download.pytorch.org/whl"


def problems(found: dict[str, Any]) -> Iterator[str]:
    """One text a problem."""
    packages = found["packages"]
    missing = [name for name, version in packages.items() if not version]
    if missing:
        yield f"Not installed: {', '.join(missing)}. Type pip install {' '.join(missing)}"
    yield from _old(found)
    if packages["torch"] and "error" in found["torch"]:
        yield (
            f"torch does not import: {found['torch']['error']}. Type pip install --force-reinstall torch torchvision, "
            "or see https://pytorch.org/get-started/locally"
        )
    elif packages["torch"] and packages["torchvision"]:
        yield from _torchvision(found)
    yield from _gpu(found)
    for place in found["disk"] if isinstance(found["disk"], list) else []:
        if place["free"] < LEAST_SPACE:
            yield f"{place['path']}: {place['free'] / 1e6:.0f} MB are free. Free some space, or choose another folder."
        if not place["writable"]:
            yield f"{place['path']} cannot be written. Type out=FOLDER for runs, XDG_CACHE_HOME=FOLDER for the cache."


def _old(found: dict[str, Any]) -> Iterator[str]:
    """Packages of a version that fsl does not work with."""
    for name, wanted in found["needs"].items():
        installed = found["packages"].get(name)
        if installed and not fits(installed, wanted):
            yield f'{name} is {installed}, and fsl needs {wanted}. Type pip install "{name}{wanted}"'


def _torchvision(found: dict[str, Any]) -> Iterator[str]:
    """Where it does not import, or was made for another torch: why, and which of the two to install again."""
    torch, vision = found["packages"]["torch"].partition("+")[0], found["packages"]["torchvision"].partition("+")[0]
    builds, wanted, said = found["builds"], found["torchvision_needs"], []
    error = found["torchvision"].get("error")
    if error:
        said.append(f"torchvision does not import: {error}.")
    if isinstance(wanted, str) and not fits(torch, wanted):
        said.append(f"torchvision {vision} needs torch{wanted}, and torch is {torch}.")
    if not said:
        return
    own, other = builds["torch"], builds["torchvision"]
    if own and other and own != other:
        said.append(f"torchvision {vision} is built for {other}, torch {torch} for {own}.")
    index = f" --index-url {WHEELS}/{own}" if own else ""
    said.append(f"Type pip uninstall -y torchvision, then pip install torch=={torch} torchvision{index}")
    yield " ".join(said)


def _gpu(found: dict[str, Any]) -> Iterator[str]:
    """A GPU that the driver sees and torch does not."""
    if not found["nvidia"] or isinstance(found["nvidia"], dict) or found["torch"].get("gpus", True):
        return
    hidden = found["variables"].get("CUDA_VISIBLE_DEVICES")
    if found["torch"]["cuda"] is None:
        again = "Type pip install --force-reinstall torch torchvision"
        yield f"There is an NVIDIA GPU, and torch is built without CUDA. {again}"
    elif hidden is not None:
        yield f"torch sees no GPU: CUDA_VISIBLE_DEVICES={hidden} hides it. Type unset CUDA_VISIBLE_DEVICES"
    else:
        yield (
            f"There is an NVIDIA GPU, and torch, built for CUDA {found['torch']['cuda']}, does not see it. "
            f"Its driver may be too old: {found['nvidia'][0]}. See https://pytorch.org/get-started/locally"
        )


def fits(installed: str, wanted: str) -> bool:
    """Whether a version meets a specifier; True where there is nothing to go by."""
    from packaging.specifiers import SpecifierSet

    return not wanted or SpecifierSet(wanted).contains(installed.partition("+")[0], prereleases=True)
