"""How a task and a score are spelled: 5w1s, 5-way 1-shot, 97.29% ± 0.22%."""

from __future__ import annotations

from typing import Any


def task_name(settings: dict[str, Any]) -> str:
    """5w1s, or 5-20w1-10s where way and shot are ranges."""
    return f"{_count_text(settings['way'])}w{_count_text(settings['shot'])}s"


def task_words(settings: dict[str, Any]) -> str:
    """5-way 1-shot, or 5-20-way 1-10-shot where way and shot are ranges; in regression, 10-shot."""
    if settings.get("metric") == "mse":
        return f"{_count_text(settings['shot'])}-shot"
    return f"{_count_text(settings['way'])}-way {_count_text(settings['shot'])}-shot"


def _count_text(count: int | list[int]) -> str:
    return str(count) if isinstance(count, int) else "-".join(map(str, count))


def score_text(metric: str, mean: float, interval: float) -> str:
    """97.29% ± 0.22%, or MSE 0.351 ± 0.020."""
    return f"{mean:.2%} ± {interval:.2%}" if metric == "accuracy" else f"MSE {mean:.3f} ± {interval:.3f}"
