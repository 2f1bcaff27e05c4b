"""What fsl ls backbone says of each: its size, and how fast it is here."""

from __future__ import annotations

import time
from statistics import median

from fsl_cli.settings.compose import compose

SIZE = 84
HEADER = f"{'parameters':>12}  {'features':>8}  {f'ms, {SIZE}x{SIZE}':>10}"


def measured(name: str, user_dir: str | None = None) -> str:
    """Parameters, features and a colour image's median time, under `HEADER`; "by name" for a library's networks.

    Of a network for texts, the time of one with `SIZE` characters. A backbone from outside fsl is not built, as its
    code has not been trusted here.
    """
    import torch

    from fsl_cli.settings.binding import build, located, part_problems
    from fsl_cli.settings.schema import part

    node = compose([f"backbone={name}"], user_dir).values["backbone"]
    if "name" in node or any(part_problems("backbone", node, trust=[])):
        return f"{'by name' if 'name' in node else 'not built':>12}".ljust(len(HEADER))
    chosen = part(node)
    texts = "texts" in getattr(located(chosen), "takes", ())
    norms = getattr(located(chosen), "norms", (chosen.get("norm"),))  # some have one alone
    net = build(chosen.having(norm=norms[0]), channels=1 if texts else 3, size=SIZE).eval()
    image = torch.ones(1, 1, 1, 1, SIZE) if texts else torch.zeros(1, 1, 3, SIZE, SIZE)
    seconds: list[float] = []
    with torch.no_grad():
        while len(seconds) < 6 and sum(seconds) < 3:  # the first warms up
            started = time.perf_counter()
            net(image)
            seconds.append(time.perf_counter() - started)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return f"{parameters:>12,}  {net.out_features:>8}  {1000 * median(seconds[1:] or seconds):>10.1f}"
