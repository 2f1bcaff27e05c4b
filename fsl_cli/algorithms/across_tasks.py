"""Terms over all tasks of a step, of whatever process: inequality of losses, agreement of updates, distances.

Each process holds some of the tasks. `gathered` gives it the values of all, so that it computes the same term as the
others; the gradients of its own tasks count as often as there are processes, over which they are averaged later. What
is computed without gradients, such as the losses of single tasks, is each process's own.
"""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor

from fsl_cli.algorithms.inner_loop import Parameters

LEAST = 1e-4  # what bodies' distance counts as at least


def processes() -> int:
    """How many processes have tasks of this step."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized() and torch.is_grad_enabled()
    return torch.distributed.get_world_size() if together else 1


def gathered(own: Tensor) -> Tensor:
    """Values of own tasks (T, ...) -> those of the tasks of all processes, in the order of the tasks."""
    count = processes()
    if count == 1:
        return own
    here = own.detach().contiguous()
    parts = [torch.empty_like(here) for _ in range(count)]
    torch.distributed.all_gather(parts, here)
    parts[torch.distributed.get_rank()] = here + count * (own - here)
    return torch.cat(parts)


def own_of(everyone: Tensor) -> Tensor:
    """Values of the tasks of all processes -> those of own tasks."""
    count = processes()
    return everyone.chunk(count)[torch.distributed.get_rank()] if count > 1 else everyone


def exclusiveness(fast: Parameters, ratio: float) -> Tensor:
    """How far M tasks' weights (M, ...) are from being each their task's own: 0 for one task.

    Mutual exclusiveness (Pan et al., 2021): for each pair of tasks, half the square of what the mean squared distance
    of their heads, over that of their bodies, differs from `ratio`; the mean over the pairs. The paper's text has
    distances, its code the weights' norms, as TensorFlow's l2_loss takes its second argument for a name.
    """
    head, body = (
        torch.cat([value.flatten(1) for name, value in fast.items() if name.startswith("head.") == of_head], 1)
        for of_head in (True, False)
    )
    tail, rest = (torch.nn.functional.pdist(values).square() / values.shape[1] for values in (head, body))  # (pairs,)
    return (tail / rest.clamp(min=LEAST) - ratio).square().sum() / max(1, 2 * len(tail))
