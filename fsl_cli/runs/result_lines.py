"""What was reached, in lines that screens, reports and pictures share: the number, and under which protocol."""

from __future__ import annotations

import math
from typing import Any

from fsl_cli.runs.records import Result, Training
from fsl_cli.runs.wording import score_text, task_words

FAR = 0.1  # of an inner problem's gradient at the start: with more left, it is not solved
OPEN = {
    "auroc": "AUROC",
    "caught": "caught at 5% false alarms",
    "accuracy": "accuracy on the known",
    "false_alarms": "false alarms",
}


def protocol_line(result: Result) -> str:
    """What an accuracy was reached under, in one line."""
    each = " of each" if result.data_sets else ""
    tasks = (
        "tasks"
        if result.metric != "accuracy"
        else f"episodes{each}, {result.inference} (norm={result.norm}){rows_words(result)}{weights_words(result)}"
    )
    best = "" if result.best_mean is None else f"; the best linear estimator {result.best_mean:.3g}"
    return f"{episodes_line(result)}, {result.episodes} {tasks}{best}"


def data_sets_lines(result: Result) -> list[str]:
    """What was reached on each of several data sets; their mean is the result."""
    found = result.data_sets or {}
    width = max(map(len, found), default=0)
    return [
        f"  {name:<{width}}  {score_text(result.metric, each['mean'], each['interval'])}"
        for name, each in found.items()
    ]


def episodes_line(result: Result) -> str:
    """Which episodes those are, whatever their number."""
    elsewhere = f"trained on {result.trained_on}, " if result.trained_on != result.data else ""
    if result.metric != "accuracy":
        return f"{elsewhere}{result.data} {result.split}, {result.query} queries"
    queries = "1 query" if result.query == 1 else f"{result.query} queries"
    balance = " on average, shares by Dirichlet(2)" if result.query_balance == "dirichlet" else ""
    balance += unlabelled_words(result)
    several = f", mean of {len(result.data_sets)} data sets" if result.data_sets else ""
    sampling = f"classes drawn {result.sampling}, " if result.sampling != "uniform" else ""
    return (
        f"{elsewhere}{result.data} {result.split} split ({result.split_hash}), "
        f"rotations={result.rotations}, {sampling}{queries} a class{balance}{several}"
    )


def unlabelled_words(result: Result) -> str:
    """Which images without labels the support sets have; "" where none."""
    if not result.unlabelled:
        return ""
    also = f" and of {result.distractors} others" if result.distractors else ""
    return f", {result.unlabelled} images without labels of each{also}"


def labels_line(result: Result) -> str:
    """Which labels were used for what, where some were hidden; else ""."""
    if not result.hidden_labels:
        few = f"labels of {result.labelled_share:.0%} of the training images of each class"
        return few if result.labelled_share < 1 else ""
    if result.hidden_labels.startswith("training, "):
        return f"no labels in {result.hidden_labels}: the classes told apart are those that it makes"
    return f"no labels in {result.hidden_labels}; those of validation chose the checkpoint and the temperature"


def rows_words(result: Result) -> str:
    """That more was known of a class than its images, and by which rows."""
    return f", with class rows ({result.class_rows[:10]})" if result.class_rows else ""


def weights_words(result: Result) -> str:
    """What the backbone had seen before, which is no measure of new classes where the test's were among it."""
    if not result.pretrained:
        return ""
    known = {"yes": ", which HAS SEEN these classes", "maybe": ", which may have seen these classes"}
    return f", on weights from {result.pretrained}{known.get(result.seen, '')}"


def reached_line(result: Result) -> str:
    """The number itself."""
    measure = {"accuracy": "accuracy", "mse": "error"}.get(result.metric, "length")
    reached = score_text(result.metric, result.mean, result.interval)
    return f"{task_words(result.way, result.shot, result.metric)} {result.part} {measure}  {reached}"


def calibration_line(result: Result) -> str:
    """Whether probabilities mean what they say, before and after the temperature; "" where that is not known."""
    if result.ece is None:
        return ""
    if result.logit_temperature is None or result.ece_calibrated is None or result.loss_calibrated is None:
        return f"calibration error {result.ece:.2%}, NLL {result.loss:.3f}, not calibrated"
    return (
        f"calibration error {result.ece:.2%} -> {result.ece_calibrated:.2%}, "
        f"NLL {result.loss:.3f} -> {result.loss_calibrated:.3f} "
        f"(temperature {result.logit_temperature:.3g}, {result.calibration})"
    )


def open_line(found: dict[str, Any]) -> str:
    """How pictures of none of the classes are told from the others."""
    shown = {name: f"{found[name]:.2%} ± {found[f'{name}_interval']:.2%}" for name in OPEN if name in found}
    words = ", ".join(f"{OPEN[name]} {value}" for name, value in shown.items())
    return f"none of these: {words} (score: {found['score']})"


def attacked_line(result: Result) -> str:
    """What is left of the accuracy under the attack that was asked for; else ""."""
    found = result.attacked
    if not found:
        return ""
    return f"under {attack_words(found)}: {found['mean']:.2%} ± {found['interval']:.2%}"


def attack_words(found: dict[str, Any]) -> str:
    """pgd of 20 steps on the queries, strength 0.031: an attack, from `Result.attacked`."""
    count = f" of {found['steps']} steps" if found.get("steps", 1) != 1 else ""
    on = {"query": "the queries", "both": "support and queries"}.get(str(found.get("of")), "the support set")
    return f"{found['attack']}{count} on {on}, strength {found.get('strength', math.nan):.3g}"


def finetuned_line(result: Result) -> str:
    """How the backbone was fine-tuned on each support set, and what the rates reached on validation; else ""."""
    found = result.finetuned
    if not found:
        return ""
    said = ", ".join(f"{rate}: {value:.1%}" for rate, value in found["accuracy"].items())
    chosen = f"chosen on {found['episodes']} validation episodes of {found['data']} ({said})"
    how = f"{found['steps']} steps at rate {found['rate']:g}" if found["rate"] else "rate 0, so not at all"
    return f"fine-tuned on each support set: {how}, {chosen}"


def memorisation_line(result: Result) -> str:
    """Whether the run reads its support sets; "" where training labels were not fixed."""
    found = result.memorisation
    if not found:
        return ""
    own, shuffled, gap = (
        f"{found[name]:.2%} ± {found[f'{name}_interval']:.2%}" for name in ("accuracy", "shuffled", "gap")
    )
    return (
        f"training tasks {own}, with support labels shuffled {shuffled} (chance {found['chance']:.1%}): "
        f"memorisation gap {gap}"
    )


def inner_problem_line(result: Result) -> str:
    """How much of an inner problem that should be solved is left, and what to do where it is much; else ""."""
    found = result.inner_problem
    if not found:
        return ""
    each = zip(found["steps"], found["left"], found["interval"], strict=True)
    said = ", ".join(f"after {steps} steps {left:.1%} ± {interval:.1%}" for steps, left, interval in each)
    more = ": not solved, type algo.take_back=true or more algo.inner_steps" if max(found["left"]) > FAR else ""
    return f"gradient of the inner problem, of that at the start: {said}{more}"


def classes_line(result: Result) -> str:
    """What the classes reached, each counting the same, where they recur; else ""."""
    found = result.by_class
    if not found:
        return ""
    means = f"accuracy {found['macro_accuracy']:.2%}, macro-F1 {found['macro_f1']:.2%}"
    return f"mean over {found['classes']} classes: {means} (classes.csv, confusion.csv)"


def instances_line(result: Result) -> str:
    """What a sequence learner reached at the first instances of a class and at the last; else ""."""
    if not result.by_instance:
        return ""
    mean = result.by_instance["mean"]
    places = sorted({*range(min(5, len(mean))), *([9] if len(mean) > 9 else []), len(mean) - 1})
    shown = [f"{k + 1}: {mean[k]:.1%}" if result.metric == "accuracy" else f"{k + 1}: {mean[k]:.3g}" for k in places]
    what = "by instance of a class" if result.metric == "accuracy" else "error by example"
    return f"{what}  {'  '.join(shown)} (instances.png)"


def optimizers_lines(found: dict[str, Any] | None) -> list[str]:
    """Losses after some numbers of steps, of a learned optimizer and of tuned others on the same problems."""
    if not found:
        return []
    lines = [f"loss after {', '.join(map(str, found['steps']))} steps, mean of {found['problems']} problems"]
    for name, said in found.items():
        if isinstance(said, dict):
            rate = f"  rate {said['rate']:.3g}, the best of a grid for these problems" if "rate" in said else ""
            lines.append(f"  {name:<8}{''.join(f'{value:>10.4g}' for value in said['loss'])}{rate}")
    return lines


def likelihood_line(result: Result) -> str:
    """How likely a regression's distributions make the targets; "" where it predicts none."""
    if result.metric != "mse" or result.loss == result.mean:
        return ""
    best = "" if result.best_loss is None else f", of what draws the curves {result.best_loss:.3f}"
    return f"negative log-likelihood a point {result.loss:.3f}{best}"


def best_line(training: Training) -> str:
    """accuracy 97.57%, MSE 0.351, or 2.314 bits a character: the best validation."""
    value = math.nan if training.best_value is None else training.best_value
    if training.metric == "bits":
        return f"{value:.3f} bits a character"
    return f"accuracy {value:.2%}" if training.metric == "accuracy" else f"MSE {value:.3f}"
