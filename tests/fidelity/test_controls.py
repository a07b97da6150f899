"""Controls: each knows exactly what its name says, and that as well as it can be known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from usermirror_gym.data import TimeSplit
from usermirror_gym.fidelity.baselines.controls import (
    HistoryHidden,
    hide_history,
    list_controls,
    popularity_only,
    position_only,
)
from usermirror_gym.measures.choice_scores import ObservedChoices, scores_given_click
from usermirror_gym.scenes import Scene, ScenePlan, Turn, build_scenes
from usermirror_gym.simulators import ChoiceBatch
from usermirror_gym.testing.data import tiny_split


def lists(weights: Sequence[float], n: int = 3000, removed: float = 0.0) -> list[Scene]:
    """Lists of as many items as weights, chosen by place alone, or of nothing right."""
    k, rng = len(weights), np.random.default_rng(len(weights))
    places = rng.choice(k, n, p=np.array(weights) / sum(weights))
    gone = rng.random(n) < removed
    return [
        Scene(i % 50, (), (), (), tuple((1 + rng.permutation(20)[:k]).tolist()),
              target=k if lost else int(place))
        for i, (place, lost) in enumerate(zip(places, gone, strict=True))
    ]  # fmt: skip


def test_who_knows_the_place_alone_learns_how_often_it_is_right() -> None:
    chooser = position_only(lists([0.1, 0.2, 0.3, 0.4], removed=0.2))
    probs = chooser.choose(lists([1, 1, 1, 1], n=5)).probs
    assert (probs == probs[0]).all()  # whatever the items
    assert probs[0] == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.2], abs=0.03)


def test_the_last_place_is_known_in_lists_of_any_length() -> None:
    """A generator that never puts the true item last is seen through at once."""
    train = [s for k in (2, 3, 4, 5) for s in lists([1] * (k - 1) + [1e-9], n=600)]
    chooser = position_only(train)
    for k in (3, 5):
        probs = chooser.choose(lists([1] * k, n=1)).probs[0]
        assert probs[k - 1] < 0.02
        assert probs[-1] == 0  # it never saw a list without the true item
    longer = chooser.choose(lists([1] * 8, n=1)).probs[0]  # than it has ever seen
    assert longer.sum() == pytest.approx(1)
    assert longer[7] < longer[:5].min()


@pytest.fixture(scope="module")
def split() -> TimeSplit:
    return tiny_split(n_users=80, n_items=50)


def test_popularity_is_weighed_by_its_logarithm(split: TimeSplit) -> None:
    """One slope for all items: log-odds are in proportion to the distance of log(1 + count)."""
    train = build_scenes(split, ScenePlan(count=400, slate_size=5), after_t0=False)
    chooser = popularity_only(split, train)
    ranked = np.argsort(split.popularity[1:])[[0, 10, 30, 48]] + 1
    scene = Scene(1, (), (), (), tuple(ranked.tolist()))
    probs = chooser.choose([scene]).probs[0, :4]
    slopes = np.diff(np.log(probs)) / np.diff(np.log1p(split.popularity[ranked]))
    assert slopes == pytest.approx([slopes[0]] * 3)
    assert slopes[0] > 0.3  # company is uniform, choices are popular


def test_a_train_choice_does_not_count_for_itself(split: TimeSplit) -> None:
    """Where popularity tells nothing, train choices that are among the counts seem to say it does:
    an item that was taken once is never wrong in its own scene."""
    train = build_scenes(split, ScenePlan(count=400, slate_size=5, balance="popularity"),
                         after_t0=False)  # fmt: skip
    fair = build_scenes(split, ScenePlan(count=150, slate_size=5, balance="popularity", seed=1))
    choices = ObservedChoices.of(fair)
    probs = popularity_only(split, train).choose(fair).probs
    loss = scores_given_click(probs, choices)[:, 2].mean()
    assert loss < np.log(5) + 0.05


def test_hiding_the_history_hides_everything_about_the_user() -> None:
    scene = Scene(7, (1, 2), (5.0, 4.0), (10, 20), (3, 4), turns=(Turn((1, 3), 3),), target=1,
                  name="s", behaviours=("a", "b"), notes=("", "new"))  # fmt: skip
    hidden = hide_history(scene)
    assert (hidden.user_id, hidden.history, hidden.ratings, hidden.ages) == (0, (), (), ())
    assert (hidden.turns, hidden.behaviours) == ((), ())
    # The list is as it was.
    assert (hidden.slate, hidden.notes, hidden.target, hidden.name) == ((3, 4), ("", "new"), 1, "s")


def test_list_only_asks_the_same_simulator() -> None:
    asked: list[Scene] = []

    class Listening:
        name = "listening"

        def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
            asked.extend(scenes)
            return ChoiceBatch(np.full((len(scenes), 3), 1 / 3))

    control = HistoryHidden(Listening())
    assert control.name == "listening, list only"
    control.choose([Scene(7, (1,), (5.0,), (10,), (3, 4))])
    assert asked == [Scene(0, (), (), (), (3, 4))]


def test_controls_leave_as_often_as_train_choices_do(split: TimeSplit) -> None:
    train = build_scenes(split, ScenePlan(count=300, slate_size=5, removed=0.2), after_t0=False)
    controls = list_controls(split, train)
    assert list(controls) == ["uniform", "position only", "popularity only"]
    share = float((~ObservedChoices.of(train).contains_choice).mean())
    for control in controls.values():
        assert control.choose(train).probs[:, -1].mean() == pytest.approx(share, abs=0.02)


def test_what_cannot_be_fitted_is_left_out(split: TimeSplit) -> None:
    train = build_scenes(split, ScenePlan(count=100), after_t0=False)
    assert list(list_controls(split, [])) == ["uniform"]
    assert list(list_controls(None, train)) == ["uniform", "position only"]
