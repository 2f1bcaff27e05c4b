"""A store of 20 GB on a machine with less memory: how much stays resident, and what it costs.

python scripts/large_store.py [gigabytes=20] [steps=1500]

Trains ProtoNet by `fsl train` on a sparse store of that size, and on one of 0.2 GB with the same classes, a process
each; prints steps a second and the resident size at its peak. Then times the sampler alone, from 10^4 to 10^7 images
and from 10^2 to 10^6 classes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from fsl_cli.data.sampler import Sampler
from fsl_cli.data.store import DataSet, Split, open_store

SHAPE = (3, 84, 84)
CLASSES = 500


def sparse(gigabytes: float, cache: str) -> DataSet:
    """A data set of black images: a store of the usual layout whose images.bin is a hole."""
    each = int(gigabytes * 1e9 / np.prod(SHAPE) / CLASSES)
    store = open_store(Path(cache), "sparse", {"gigabytes": gigabytes}, lambda: _one_image_each())
    with open(str(store.images.filename), "r+b") as file:  # type: ignore[attr-defined]
        file.truncate(each * CLASSES * int(np.prod(SHAPE)))
    shape = (each * CLASSES, *SHAPE)
    images = np.memmap(str(store.images.filename), dtype=np.uint8, mode="r", shape=shape)  # type: ignore[attr-defined]
    store = store._replace(images=images, starts=np.arange(CLASSES + 1) * each)
    splits = {part: Split(np.arange(i * 160, i * 160 + 160)) for i, part in enumerate(("train", "val", "test"))}
    return DataSet("sparse", store, splits, {"split": "-", "split_hash": "-", "rotations": "none"})


def _one_image_each():  # type: ignore[no-untyped-def]
    for number in range(CLASSES):
        yield f"class {number}", np.zeros((1, *SHAPE), dtype=np.uint8)


def train(gigabytes: float, steps: int, folder: Path) -> dict[str, float]:
    """Steps a second and peak resident size in GB of `fsl train` on such a store."""
    conf = folder / "conf" / "data"
    conf.mkdir(parents=True, exist_ok=True)
    target = "_target_: large_store.sparse"
    (conf / "sparse.yaml").write_text(f"# A hole\n{target}\ngigabytes: 1\ncache: {folder}\n")
    words = ["data=sparse", f"data.gigabytes={gigabytes}", "trust=[large_store]", f"out={folder}/runs", "test=false"]
    words += [f"steps={steps}", f"val_every={steps // 3}", "val_episodes=2", "backbone.filters=4", "trainer=cpu"]
    command = [sys.executable, "-m", "fsl_cli", "train", "--config-dir", str(folder / "conf"), *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout
    speeds, resident = [], 0
    for line in process.stdout:
        found = re.search(r"([\d.]+) steps/s", line)
        speeds += [float(found[1])] if found else []
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident = max(resident, *(int(kb) for kb in re.findall(r"VmHWM:\s+(\d+)", status)))
    if process.wait():
        sys.exit("fsl train failed")
    return {"gigabytes": gigabytes, "steps_per_second": speeds[-1], "resident_gb": round(resident / 1e6, 2)}


def sampling(images: int, classes: int) -> float:
    """Microseconds for a 5-way 1-shot episode with 15 queries a class, the median of 1000."""
    drawn = Sampler(np.full(classes, images // classes), 5, 1, 15)
    taken = []
    for index in range(1000):
        started = time.perf_counter()
        drawn.episode(0, "train", index)
        taken.append(time.perf_counter() - started)
    return round(1e6 * median(taken), 1)


def main() -> None:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    steps = int(given.get("steps", 1500))
    with tempfile.TemporaryDirectory() as folder:
        for gigabytes in (0.2, float(given.get("gigabytes", 20))):
            print(json.dumps(train(gigabytes, steps, Path(folder))), flush=True)
    for images, classes in [(10**n, 100) for n in range(4, 8)] + [(2 * 10**7, 10**n) for n in range(2, 7)]:
        print(json.dumps({"images": images, "classes": classes, "microseconds": sampling(images, classes)}))


if __name__ == "__main__":
    main()
