"""Episodes a second: fsl's store beside torchvision's ImageFolder and a DataLoader with a class-based batch sampler.

python scripts/compare_data.py [omniglot=FOLDER] [miniimagenet=ZIP] [rounds=7]

Both deliver the same task, way * (shot + query) float images on the CPU. The DataLoader's side is favoured: its files
are already small (PNG at 28 x 28, JPEG at 84 x 84), are in the page cache, and are read by as many workers as there
are cores. The two take turns, and medians are printed. Without a copy, glyphs of the same size stand in.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import write_jpeg, write_png
from torchvision.transforms import v2

from fsl_cli.data.decode import CORES
from fsl_cli.data.sampler import Sampler, Shape
from fsl_cli.data.store import DataSet
from fsl_cli.data.tasks import Batch, ImageTasks, sampler
from fsl_cli.settings.binding import build, demand_fit
from fsl_cli.settings.compose import compose

CLASSES = 64  # whose files are written for the DataLoader
SHAPES = {"5w1s": Shape(5, 1, 15), "20w5s": Shape(20, 5, 15)}


def write_files(data: DataSet, folder: Path) -> None:
    """The first training classes as files, in a folder each."""
    write, suffix = (write_png, "png") if data.store.images.shape[1] == 1 else (write_jpeg, "jpg")
    for number in data.splits["train"].classes[:CLASSES].tolist():
        place = folder / f"{number:04d}"
        place.mkdir()
        for row in range(int(data.store.starts[number]), int(data.store.starts[number + 1])):
            write(torch.from_numpy(data.store.images[row].copy()), str(place / f"{row}.{suffix}"))


class ClassBatches:
    """What the DataLoader takes: for each episode, the file numbers of its images."""

    def __init__(self, episodes: Sampler, starts: list[int], count: int) -> None:
        self.episodes, self.starts, self.count = episodes, starts, count

    def __iter__(self) -> Iterator[list[int]]:
        for index in range(self.count):
            drawn = self.episodes.episode(0, "train", index)
            parts = zip(drawn.classes, drawn.support, drawn.query, strict=True)
            yield [self.starts[number] + image for number, support, query in parts for image in [*support, *query]]

    def __len__(self) -> int:
        return self.count


def compare(data: DataSet, shape: Shape, rounds: int) -> dict[str, float]:
    """Median episodes a second of both."""
    few = data.splits["train"]._replace(classes=data.splits["train"].classes[:CLASSES], turns=1)
    data = data._replace(splits={"train": few})
    with tempfile.TemporaryDirectory() as folder:
        write_files(data, Path(folder))
        grey = [v2.Grayscale()] if data.store.images.shape[1] == 1 else []
        files = ImageFolder(folder, v2.Compose([*grey, v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]))
        starts = [files.targets.index(label) for label in range(CLASSES)]
        count = 40
        batches = ClassBatches(sampler(data, "train", shape), starts, count)
        loader = DataLoader(files, batch_sampler=batches, num_workers=CORES, persistent_workers=True)
        tasks = ImageTasks(data, {"train": shape}, data.store.images.shape[1])
        speeds: dict[str, list[float]] = {"fsl": [], "DataLoader": []}
        for _ in range(rounds + 1):  # the first warms up
            started = time.perf_counter()
            for index in range(count):
                tasks.gather(Batch("train", 0, [index]), torch.device("cpu"))
            speeds["fsl"].append(count / (time.perf_counter() - started))
            started = time.perf_counter()
            for _ in loader:
                pass
            speeds["DataLoader"].append(count / (time.perf_counter() - started))
    return {name: round(median(values[1:]), 1) for name, values in speeds.items()}


def main() -> None:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    copies = {"omniglot": 28, "miniimagenet": 84}
    for name, size in copies.items():
        chosen = [f"data={name}", f"data.root={given[name]}"] if name in given else ["data=glyphs", f"data.size={size}"]
        data = build(demand_fit(compose([*chosen, *(["data.drawings=30"] if name not in given else [])]).values).data)
        for task, shape in SHAPES.items():
            if shape.shot + shape.query > int(min(data.store.starts[1:] - data.store.starts[:-1])):
                shape = shape._replace(query=int(min(data.store.starts[1:] - data.store.starts[:-1])) - shape.shot)
            found = compare(data, shape, int(given.get("rounds", 7)))
            ratio = round(found["fsl"] / found["DataLoader"], 1)
            line = {"data": data.name, "size": size, "task": task, "query": shape.query, **found, "ratio": ratio}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
