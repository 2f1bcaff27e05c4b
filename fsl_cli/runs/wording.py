"""How a task and a score are spelled: 5w1s, 5-way 1-shot, 97.29% ± 0.22%."""

from __future__ import annotations

from typing import Literal

Counts = int | list[int]  # a number, or the range that it is drawn from
Shots = Counts | Literal["metadataset"]


MEASURES = {"accuracy": "accuracy (%)", "mse": "squared error", "bits": "bits a character"}  # by metric


def task_name(way: Counts, shot: Shots) -> str:
    """5w1s, or 5-20w1-10s where way and shot are ranges; 5-50w-metadataset where shots follow its law."""
    if shot == "metadataset":
        return f"{_count_text(way)}w-metadataset"
    return f"{_count_text(way)}w{_count_text(shot)}s"


def task_words(way: Counts, shot: Shots, metric: str = "accuracy") -> str:
    """5-way 1-shot, or 5-20-way 1-10-shot where way and shot are ranges; 10-shot where there are no classes."""
    if metric != "accuracy":
        return f"{_count_text(shot)}-shot"
    if shot == "metadataset":
        return f"{_count_text(way)}-way Meta-Dataset-shot"
    return f"{_count_text(way)}-way {_count_text(shot)}-shot"


def _count_text(count: Shots) -> str:
    return str(count) if isinstance(count, int) else "-".join(map(str, count))  # a list of OmegaConf's, too


def score_text(metric: str, mean: float, interval: float) -> str:
    """97.29% ± 0.22%, MSE 0.351 ± 0.020, or 2.314 ± 0.020 bits a character."""
    if metric == "bits":
        return f"{mean:.3f} ± {interval:.3f} bits a character"
    return f"{mean:.2%} ± {interval:.2%}" if metric == "accuracy" else f"MSE {mean:.3f} ± {interval:.3f}"
