"""Everything that fsl doctor looks at, and the same as text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fsl_cli import __version__
from fsl_cli.doctor import checks
from fsl_cli.doctor.checks import found_or_error
from fsl_cli.doctor.findings import problems


def examine() -> dict[str, Any]:
    """Everything that fsl doctor finds out, ready for JSON; what cannot be found out is {"error": ...}."""
    found = {
        "fsl": __version__,
        "commit": found_or_error(_commit),
        "machine": found_or_error(checks.machine),
        "packages": checks.versions(checks.CORE),
        "extras": checks.versions(checks.EXTRAS),
        "needs": checks.requirements("fsl-cli"),
        "torchvision_needs": checks.requirements("torchvision").get("torch", ""),
        **checks.probe(),
        "builds": {name: found_or_error(partial(checks.build, name)) for name in ("torch", "torchvision")},
        "nvidia": found_or_error(checks.nvidia),
        "disk": found_or_error(lambda: [checks.disk(Path.cwd()), checks.disk(_cache())]),
        "cache": found_or_error(
            lambda: {"path": str(_cache()), "bytes": checks.folder_size(_cache()), "data": _data()}
        ),
        "variables": {name: os.environ[name] for name in checks.VARIABLES if name in os.environ},
    }
    return {**found, "problems": list(problems(found))}


def lines(found: dict[str, Any]) -> Iterator[str]:
    """What `examine` found, as text; the user's home folder is written ~."""
    home = str(Path.home())
    yield from (line.replace(home, "~") if len(home) > 1 else line for line in _lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    commit = found["commit"] if isinstance(found["commit"], str) else ""
    yield f"fsl {found['fsl']}" + (f" ({commit})" if commit else "")
    machine = found["machine"]
    memory = f", {gigabytes(machine['memory'])} of memory" if machine.get("memory") else ""
    yield f"python {machine['python']}, {machine['platform']}, {machine['cores']} cores{memory}"
    yield f"       {machine['executable']}"
    for name in ("torch", "torchvision"):
        about, build = found[name], found["builds"][name]
        version = found["packages"][name] or "not installed"
        broken = f", {about['error']}" if "error" in about and found["packages"][name] else ""
        yield f"{name} {version}" + (f" for {build}" if build else "") + broken
    yield "devices"
    yield from (f"  {line}" for line in _devices(found))
    yield from _wrapped("packages", found["packages"])
    yield from _wrapped("extras", {name: version for name, version in found["extras"].items() if version})
    yield "disk"
    for place in _listed(found["disk"]):
        writable = "" if place["writable"] else ", not writable"
        yield f"  {gigabytes(place['free'])} of {gigabytes(place['total'])} free{writable}   {place['path']}"
    cache = found["cache"]
    yield f"cache {cache.get('error') or gigabytes(cache['bytes']) + '   ' + cache['path']}"
    yield from (f"  {line}" for line in cache.get("data", []))
    yield from (f"{name}={value}" for name, value in found["variables"].items())
    count = len(found["problems"])
    yield f"{count} problem{'s' * (count > 1)}:" if count else "No problems found."
    yield from (f"- {problem}" for problem in found["problems"])


def _devices(found: dict[str, Any]) -> Iterator[str]:
    torch = found["torch"]
    if "error" not in torch:
        yield f"cpu, {torch['threads']} threads, {_kernel(found)}"
        yield from (f"cuda:{i} {gpu['name']}, {gigabytes(gpu['bytes'])}" for i, gpu in enumerate(torch["gpus"]))
        if torch["mps"]:
            yield "mps"
    yield from (f"nvidia-smi: {line}" for line in _listed(found["nvidia"]))


def _kernel(found: dict[str, Any]) -> str:
    compiled = found["kernel"].get("compiled")
    if compiled is None:
        return f"kernel: {found['kernel']['error']}"
    if not compiled and found["variables"].get("FSL_KERNEL") == "0":
        return "the kernel is switched off by FSL_KERNEL=0"
    needs = "it needs a C compiler (cc, gcc or clang), and a cache that can be written"
    return "compiled kernel" if compiled else f"no compiled kernel, which makes training faster: {needs}"


def _wrapped(title: str, found: dict[str, str | None]) -> Iterator[str]:
    import textwrap

    words = ", ".join(f"{name} {version or 'MISSING'}".replace(" ", "\0") for name, version in found.items())
    yield title
    for line in textwrap.wrap(words, 100, break_on_hyphens=False):
        yield f"  {line}".replace("\0", " ")


def gigabytes(count: float) -> str:
    """8.2 GB."""
    return f"{count / 1e9:.1f} GB"


def _listed(found: Any) -> list[Any]:
    """What was found, nothing where that failed."""
    return found if isinstance(found, list) else []


def _cache() -> Path:
    from fsl_cli.data.store import cache_folder

    return cache_folder(None)


def _data() -> list[str]:
    from fsl_cli.data.inspection import prepared, store_line, store_name

    return [f"{store_name(folder)}: {store_line(folder)}" for folder in prepared(_cache())]


def _commit() -> str | None:
    from fsl_cli.runs.environment import commit

    return commit()
