"""Order of the list: found where there is an effect, nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from usermirror_gym.fidelity.checks.base import Answered, CardSizes, Context
from usermirror_gym.fidelity.checks.order import (
    averaged,
    order_sensitivity,
    permuted,
    random_orders,
    repeat_difference,
    restored,
)
from usermirror_gym.measures.choice_scores import ObservedChoices
from usermirror_gym.scenes import Scene
from usermirror_gym.simulators import ChoiceBatch
from usermirror_gym.types import FloatArray


def scenes(n: int = 60) -> list[Scene]:
    rng = np.random.default_rng(0)
    return [
        Scene(i // 3, (), (), (), tuple((1 + rng.permutation(30)[: 3 + i % 3]).tolist()),
              target=i % 3, notes=(), name=f"scene {i}")
        for i in range(n)
    ]  # fmt: skip


def chooser(by_place: Sequence[float] = (1, 1, 1, 1, 1)) -> Callable[..., FloatArray]:
    """Weight of an item is its id times that of its place; *none of these* has weight 5."""

    def ask(asked: Sequence[Scene], what: str = "") -> FloatArray:
        probs = np.zeros((len(asked), max(len(s.slate) for s in asked) + 1))
        for row, scene in zip(probs, asked, strict=True):
            k = len(scene.slate)
            row[:k] = np.array(scene.slate) * np.array(by_place[:k])
            row[-1] = 5
        return probs / probs.sum(axis=1, keepdims=True)

    return ask


class Asked:
    """A simulator by its answers."""

    name = "asked"

    def __init__(self, ask: Callable[..., FloatArray]) -> None:
        self.ask = ask

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        return ChoiceBatch(self.ask(scenes))


def context(
    ask: Callable[..., FloatArray],
    asked: list[Scene],
    permutations: int,
    n_resamples: int,
    seed: int,
) -> Context:
    sizes = CardSizes(order=len(asked), permutations=permutations, n_resamples=n_resamples)
    answered = [Answered("own", "simulator", ask(asked))]
    return Context(ObservedChoices.of(asked), answered, Asked(ask), sizes=sizes, seed=seed)


def sensitivity(ask: Callable[..., FloatArray], n: int = 4) -> dict:
    found = order_sensitivity(context(ask, scenes(), n, 200, seed=1))
    assert found is not None
    return found


def test_who_looks_at_the_items_alone_is_not_moved() -> None:
    found = sensitivity(chooser())
    assert found["mean_change"]["mean"] < 1e-15
    assert found["argmax_flips"]["mean"] == 0
    assert [row["r"] for row in found["averaged"]] == [1, 2, 4]
    assert found["averaged"][0]["accuracy"] == pytest.approx(found["averaged"][2]["accuracy"])


def test_who_likes_the_first_place_is_found_out() -> None:
    found = sensitivity(chooser((9, 1, 1, 1, 1)), n=8)
    assert found["mean_change"]["low"] > 0.05
    assert found["argmax_flips"]["low"] > 0.2
    shares = [place["mean"] for place in found["positions"]]
    assert len(shares) == 3  # the commonest length; of equally common ones the shortest
    assert sum(shares) == pytest.approx(1)
    assert found["positions"][0]["low"] > 0.5
    # Averaging over orders takes the effect out of the answers.
    changes = [row["mean_change"] for row in found["averaged"]]
    assert changes[0] > 1.5 * changes[2]
    assert changes[3] is None


def test_the_change_by_hand() -> None:
    """Two options with 0.8 for the first place: one order of two leaves, one swaps."""
    pair = [Scene(u, (), (), (), (1, 2), target=0, name=f"pair {u}") for u in range(40)]

    def ask(asked: Sequence[Scene], what: str = "") -> FloatArray:
        return np.tile([0.8, 0.2, 0.0], (len(asked), 1))

    found = order_sensitivity(context(ask, pair, 3, 50, seed=0))
    assert found is not None
    swapped = np.mean(
        [[order == (1, 0) for order in orders] for orders in random_orders(pair, 3, 0)]
    )
    assert 0.3 < swapped < 0.7
    # Both options change by 0.6 and none of these by 0 where the list is turned round.
    assert found["mean_change"]["mean"] == pytest.approx(0.4 * swapped)
    assert found["argmax_flips"]["mean"] == pytest.approx(swapped)
    assert [p["mean"] for p in found["positions"]] == pytest.approx([0.8, 0.2])


def test_an_order_is_undone() -> None:
    asked = scenes(9)
    ask = chooser()
    for orders in random_orders(asked, 3, seed=5):
        turned = [permuted(s, o) for s, o in zip(asked, orders, strict=True)]
        np.testing.assert_allclose(restored(ask(turned), orders), ask(asked))


def test_targets_and_notes_follow_their_items() -> None:
    scene = Scene(1, (), (), (), (7, 8, 9), target=2, notes=("a", "b", "c"))
    turned = permuted(scene, (2, 0, 1))
    assert (turned.slate, turned.notes, turned.target) == ((9, 7, 8), ("c", "a", "b"), 0)
    assert permuted(replace(scene, target=3), (2, 0, 1)).target == 3  # none of these stays
    assert permuted(replace(scene, target=None, notes=()), (2, 0, 1)).target is None


def test_orders_belong_to_the_scene_and_the_seed() -> None:
    asked = scenes(12)
    whole = random_orders(asked, 5, seed=3)
    short = [s for s in asked if len(s.slate) == 3]  # whatever the longest list beside them
    found = [[o for o in orders if len(o) == 3] for orders in whole]
    assert random_orders(short, 5, seed=3) == found
    assert random_orders(asked[::-1], 5, seed=3) == [orders[::-1] for orders in whole]
    assert random_orders(asked, 5, seed=4) != whole
    first = {order[0] for orders in random_orders(scenes(60), 20, 0) for order in orders}
    assert first == {0, 1, 2, 3, 4}
    for orders in whole:
        assert all(
            sorted(o) == list(range(len(s.slate))) for o, s in zip(orders, asked, strict=True)
        )


def test_asking_twice_tells_what_the_batch_does() -> None:
    asked = scenes(10)
    ask = chooser()
    assert repeat_difference(context(ask, asked, 1, 10, seed=0), asked, ask(asked)) == 0

    def moody(again: Sequence[Scene], what: str = "") -> FloatArray:
        probs = ask(again)
        probs[0, :2] += (0.01, -0.01)  # the first of a batch, which is the last scene now
        return probs

    assert repeat_difference(
        context(moody, asked, 1, 10, seed=0), asked, ask(asked)
    ) == pytest.approx(0.01)


def test_averages_of_orders_by_hand() -> None:
    choices = ObservedChoices(np.array([1]), np.ones((1, 2), bool), np.array([0]))
    answers = np.array([[[0.9, 0.1, 0.0]], [[0.3, 0.7, 0.0]]])
    one, two = averaged(answers, choices)
    assert one["accuracy"] == 0.5
    assert one["log_loss"] == pytest.approx(-np.log([0.9, 0.3]).mean())
    assert one["mean_change"] == pytest.approx(0.4)
    assert two == {"r": 2, "accuracy": 1.0, "log_loss": pytest.approx(-np.log(0.6)),
                   "mean_change": None}  # fmt: skip
