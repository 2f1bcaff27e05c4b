"""What fsl ls backbone says of each: its size, and how fast it is here."""

from __future__ import annotations

import time
from statistics import median

from fsl_cli.settings.compose import chosen_part
from fsl_cli.settings.parts import OfBackbone, asked

SIZE = 84
HEADER = f"{'parameters':>12}  {'features':>8}  {f'ms, {SIZE}x{SIZE}':>10}"


def measured(name: str, user_dir: str | None = None) -> str:
    """Parameters, features and a colour image's median time, under `HEADER`; "by name" for a library's networks.

    Of a network for texts, the time of one with `SIZE` characters. A backbone from outside fsl is not built, as its
    code has not been trusted here.
    """
    import torch

    from fsl_cli.backbones.base import Backbone
    from fsl_cli.settings.binding import build, class_of, part_problems

    chosen = chosen_part("backbone", name, user_dir)
    by_name = asked(chosen, OfBackbone).name
    if by_name or any(part_problems("backbone", chosen.plain(), trust=[])):
        return f"{'by name' if by_name else 'not built':>12}".ljust(len(HEADER))
    texts = "texts" in class_of(chosen, Backbone).takes
    net: Backbone = build(chosen, channels=1 if texts else 3, size=SIZE).eval()
    image = torch.ones(1, 1, 1, 1, SIZE) if texts else torch.zeros(1, 1, 3, SIZE, SIZE)
    seconds: list[float] = []
    with torch.no_grad():
        while len(seconds) < 6 and sum(seconds) < 3:  # the first warms up
            started = time.perf_counter()
            net(image)
            seconds.append(time.perf_counter() - started)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return f"{parameters:>12,}  {net.out_features:>8}  {1000 * median(seconds[1:] or seconds):>10.1f}"
