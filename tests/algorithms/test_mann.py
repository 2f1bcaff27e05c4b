"""MANN: labels come one step late, and the memory is the paper's, by hand."""

from __future__ import annotations

import pytest
import torch
from conftest import Pixels

from fsl_cli.algorithms.mann import MANN
from fsl_cli.algorithms.sequence.labels import STRINGS, drawn
from fsl_cli.algorithms.sequence.memory import Memory, Slots
from fsl_cli.algorithms.sequence.order import shuffled
from fsl_cli.episodes import Episodes, Examples
from fsl_cli.experiment.by_instance import first_at_most, scores

WAY, D = 3, 4


def built(**more: object) -> MANN:
    torch.manual_seed(0)
    words = {"hidden": 12, "memory": 6, "width": 5, "heads": 2, **more}
    return MANN(Pixels(D, 1, 1), WAY, **words)  # type: ignore[arg-type]


def task(length: int = 9) -> Examples:
    torch.manual_seed(1)
    return Examples(
        torch.rand(2, length, D, 1, 1), torch.stack([torch.arange(length) % WAY, torch.arange(length) // 3])
    )


@pytest.mark.parametrize("more", [{}, {"memory": 0}, {"labels": "letters"}, {"write": "separate"}])
def test_a_label_changes_no_answer_that_came_before_it(more: dict[str, object]) -> None:
    model, examples = built(**more), task()
    said = model.sequence(examples)
    for place in range(examples.y.shape[1] - 1):
        y = examples.y.clone()
        y[:, place] = (y[:, place] + 1) % WAY
        other = model.sequence(Examples(examples.x, y))
        assert torch.equal(other[:, : place + 1], said[:, : place + 1])
        assert not torch.equal(other[:, place + 1], said[:, place + 1])


@pytest.mark.parametrize("more", [{}, {"memory": 0}, {"labels": "letters"}])
def test_a_query_is_what_would_come_next(more: dict[str, object], float64: None) -> None:
    model, examples = built(**more), task()
    support = Examples(examples.x[:, :8], examples.y[:, :8])
    queries = torch.cat([examples.x[:, 8:], torch.rand(2, 3, D, 1, 1)], 1)
    torch.testing.assert_close(model.adapt(support)(queries)[:, 0], model.sequence(examples)[:, 8, :WAY])


def test_every_image_is_predicted_in_an_order_of_the_episode() -> None:
    examples = task()
    parts = [Examples(examples.x[:, part], examples.y[:, part]) for part in (slice(0, 3), slice(3, None))]
    both, alone = (
        shuffled(Episodes(*(Examples(*(each[rows] for each in part)) for part in parts), torch.zeros(2, 3), index))
        for rows, index in ((slice(None), torch.tensor([4, 7])), (slice(1, None), torch.tensor([7])))
    )
    assert torch.equal(both.x[1], alone.x[0]) and torch.equal(both.y[1], alone.y[0])
    assert not torch.equal(both.y[1], examples.y[1])
    assert torch.equal(both.y.sort()[0], examples.y.sort()[0])


def memory(heads: int, slots: int = 3, width: int = 2, decay: float = 0.5) -> Memory:
    return Memory(2, slots, width, heads, decay, 1.0, "key")


def test_a_step_of_three_slots_by_hand(float64: None) -> None:
    one = memory(1)
    with torch.no_grad():
        one.keys.weight.copy_(torch.eye(2))
        one.keys.bias.zero_()
        one.gate.fill_(torch.logit(torch.tensor(0.25)))
    last = Slots(
        torch.tensor([[[1.0, 0], [0, 1], [3, 4]]]),
        torch.tensor([[0.3, 0.1, 0.2]]),
        torch.tensor([[[1.0, 0, 0]]]),
        torch.zeros(1, 1, 2),
    )
    key = torch.tensor([0.6, 0.8])  # of length 1
    found = one(torch.atanh(key).unsqueeze(0), last)
    content = torch.stack([torch.tensor([1.0, 0]) + 0.25 * key, 0.75 * key, torch.tensor([3.0, 4])])  # slot 1 emptied
    first = content[0] / content[0].norm()
    weights = torch.stack([first @ key, torch.tensor(1.0), torch.tensor(1.0)]).softmax(0)
    torch.testing.assert_close(found.content, content.unsqueeze(0))
    torch.testing.assert_close(found.weights, weights.view(1, 1, 3))
    torch.testing.assert_close(found.read, (weights @ content).view(1, 1, 2))
    torch.testing.assert_close(
        found.usage, (torch.tensor([0.15, 0.05, 0.1]) + weights + torch.tensor([0.25, 0.75, 0])).unsqueeze(0)
    )


def test_usage_adds_up_as_one_slot_a_head_does(float64: None) -> None:
    heads, decay = 4, 0.95
    one = Memory(2, 16, 3, heads, decay, 1.0, "key")
    state = one.start(torch.zeros(1, 2))
    for _ in range(9):
        state = one(torch.randn(1, 2), state)
    expected = decay**9 + 2 * heads * (1 - decay**9) / (1 - decay)
    assert float(state.usage.detach().sum()) == pytest.approx(expected, rel=1e-12)


def test_with_the_gate_shut_each_head_writes_into_its_least_used_slot() -> None:
    one = memory(2, slots=4)
    with torch.no_grad():
        one.gate.fill_(-torch.inf)
    last = one.start(torch.zeros(1, 2))._replace(usage=torch.tensor([[0.2, 0.0, 0.5, 0.1]]))
    found = one(torch.randn(1, 2), last)
    changed = (found.content - last.content).abs().sum(-1) > 1e-4
    assert changed.tolist() == [[False, True, False, True]]


def test_strings_are_different_and_the_tasks_own() -> None:
    several = drawn([3, 4], 15, torch.device("cpu")).strings
    assert torch.equal(several[1], drawn([4], 15, torch.device("cpu")).strings[0])
    numbers = (several * 5 ** torch.arange(5)).sum(-1)
    assert len(numbers[0].unique()) == 15 and numbers.max() < STRINGS
    assert not torch.equal(numbers[0], numbers[1])


def test_a_string_is_as_likely_as_its_letters_and_others_have_a_column() -> None:
    codes = drawn([0], 4, torch.device("cpu"))
    letters = torch.zeros(1, 1, 25)
    torch.testing.assert_close(codes.logits(letters).exp(), torch.full((1, 1, 4), 1 / STRINGS))
    right = 20 * codes.read(torch.tensor([[2]]))
    assert codes.logits(right, others=True).argmax() == 2
    wrong = right.clone()
    wrong[..., :5] = wrong[..., :5].roll(1, -1)  # one letter of five is another
    assert codes.logits(wrong, others=True).argmax() == 4
    assert float(codes.loss(right, torch.tensor([[2]]))) < 1e-6 < float(codes.loss(wrong, torch.tensor([[2]])))


def test_more_classes_than_outputs_are_refused_but_by_letters() -> None:
    from fsl_cli.errors import UserError

    examples = Examples(torch.rand(1, 4, D, 1, 1), torch.arange(4).unsqueeze(0))
    with pytest.raises(UserError, match="labels of 3 classes, and the episodes have 4"):
        built().adapt(examples)
    assert built(labels="letters").adapt(examples)(examples.x).shape == (1, 4, 4)


def signs(count: int, first: int, way: int = 2, each: int = 5) -> Episodes:
    """Tasks of classes that are vectors of signs, drawn anew for each."""
    dice = torch.Generator().manual_seed(first)
    classes = (torch.rand(count, way, 6, generator=dice) > 0.5).float() * 2 - 1
    y = torch.arange(way).repeat(each).expand(count, -1)
    x = classes.gather(1, y.unsqueeze(-1).expand(-1, -1, 6))[..., None, None]
    parts = Examples(x[:, :way], y[:, :way]), Examples(x[:, way:], y[:, way:])
    return Episodes(*parts, torch.zeros(count, way), torch.arange(first, first + count))


@pytest.mark.slow
@pytest.mark.parametrize("memory", [0, 8])
def test_it_learns_to_remember_and_nothing_before_it_was_told(memory: int) -> None:
    torch.manual_seed(0)
    model = MANN(Pixels(6, 1, 1), 2, hidden=48, memory=memory, width=12, heads=1, sharpness=10)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for step in range(600):
        optimizer.zero_grad()
        model.loss(signs(32, 32 * step)).backward()
        optimizer.step()
    examples = shuffled(signs(400, 10**6))
    first, *later = scores(model.sequence(examples), examples.y).mean(0).tolist()
    assert first <= first_at_most(2) + 0.04  # two deviations of 800 guesses
    assert min(later) > 0.9
