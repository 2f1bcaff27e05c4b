"""Terms of the loss that are over all tasks of a step, in whichever process these are.

Each process holds some of the tasks. `gathered` gives it the values of all of them, so every process computes the same
term. The gradients of a process's own tasks are multiplied by the number of processes, as their mean over the processes
is taken later. What needs no other tasks, such as the loss of a single task, is computed by each process for its own.
"""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor

from fsl_cli.algorithms.inner_loop import Parameters

LEAST = 1e-4  # the distance of two bodies counts as this at least


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
    """How far the weights (M, ...) of M tasks are from mutual exclusiveness: 0 for one task.

    Mutual exclusiveness (Pan et al., 2021): for each pair of tasks, the mean squared distance of their heads is divided
    by that of their bodies; the term is half the square of this quotient less `ratio`, averaged over the pairs. The
    paper's text has distances. Its code has the weights' norms: TensorFlow's l2_loss takes a second argument as a name.
    """
    head, body = (
        torch.cat([value.flatten(1) for name, value in fast.items() if name.startswith("head.") == of_head], 1)
        for of_head in (True, False)
    )
    tail, rest = (torch.nn.functional.pdist(values).square() / values.shape[1] for values in (head, body))  # (pairs,)
    return (tail / rest.clamp(min=LEAST) - ratio).square().sum() / max(1, 2 * len(tail))
