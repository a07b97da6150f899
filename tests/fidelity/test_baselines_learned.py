"""Choice models that know the items and nobody."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from usermirror_gym.data import RecDataset, TimeSplit
from usermirror_gym.fidelity.baselines import learned
from usermirror_gym.fidelity.baselines.base import Past, Stages
from usermirror_gym.fidelity.baselines.learned import ListModel, NonPersonal, list_columns
from usermirror_gym.fidelity.baselines.registry import Pop
from usermirror_gym.measures.choice_scores import ObservedChoices
from usermirror_gym.scenes import Scene, SceneBatch

N, DAY = 30, 86_400
T0 = 400 * DAY


def world() -> TimeSplit:
    """All items are taken equally often; the higher their number, the better they are rated.

    Even ones are comedies.
    """
    rng = np.random.default_rng(0)
    events = pd.DataFrame(
        [
            (user, item, int(rng.integers(0, 500 * DAY)), 1 + 4 * item / N)
            for user in range(1, 21)
            for item in range(1, N + 1)
        ],
        columns=["user_id", "item_id", "timestamp", "rating"],
    )
    items = pd.DataFrame({"item_id": range(1, N + 1), "title": [f"T{i}" for i in range(N)]})
    items["genres"] = np.where(items["item_id"] % 2, "drama", "comedy")
    items["year"] = 1950 + items["item_id"] * 7 % 40
    data = RecDataset.from_tables(
        "w", "movie", users=pd.DataFrame({"user_id": range(1, 21)}), items=items,
        interactions=events,
    )  # fmt: skip
    return TimeSplit(data, T0)


def choices(taste: np.ndarray, n: int = 1500) -> ObservedChoices:
    """Lists whose choice depends on the items alone, at a moment each before T0."""
    rng = np.random.default_rng(1)
    scenes = []
    for number in range(n):
        slate = 1 + rng.permutation(N)[:5]
        mass = np.exp(taste[slate])
        target = int(rng.choice(5, p=mass / mass.sum()))
        scenes.append(Scene(number % 20 + 1, (), (), (), tuple(slate.tolist()), target=target))
    made = ObservedChoices.of(scenes)
    return ObservedChoices(
        made.users, made.shown, made.targets, scenes, np.sort(rng.integers(DAY, T0, n))
    )


def stages(found: ObservedChoices) -> Stages:
    split, cut = world(), 300 * DAY
    assert found.times is not None
    early = found.times < cut
    inner = Past(TimeSplit(split.dataset, cut), found.select(early), 0)
    return Stages(inner, found.select(~early), Past(split, found, 0))


@pytest.fixture(scope="module")
def split() -> TimeSplit:
    return world()


def test_ratings_tell_what_counts_do_not() -> None:
    made = stages(choices(np.arange(N + 1) / 5))
    popular, appealing = Pop().settle(made), NonPersonal().settle(made)
    assert popular.loss == pytest.approx(np.log(5), abs=0.05)
    assert appealing.loss < popular.loss - 0.4


def test_the_list_model_knows_words_numbers_and_ranks() -> None:
    taste = 1.5 * (np.arange(N + 1) % 2 == 0)
    trial = ListModel().settle(stages(choices(taste)))
    assert trial.loss < np.log(5) - 0.15  # comedies; no number says so
    assert NonPersonal().settle(stages(choices(taste))).loss > trial.loss + 0.1


def test_numbers_stand_beside_the_rest_of_the_list(split: TimeSplit) -> None:
    rated = split.before.groupby("item_id")["rating"].mean()
    assert rated.is_monotonic_increasing
    lists = SceneBatch.of([Scene(1, (), (), (), (1, 15, 30)), Scene(1, (), (), (), (30,))])
    values = list_columns(split)(lists)
    assert values.shape[:2] == (2, 3)
    assert (values[1, 1:] == 0).all()
    ranks = [tuple(column) for column in values[0].T]
    assert (-1.0, 0.0, 1.0) in ranks
    alone = list_columns(split)(SceneBatch.of([lists[1]]))
    assert (alone[0, 0] == values[1, 0]).all()


def test_a_train_choice_does_not_count_for_itself(
    split: TimeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts: list[int] = []

    def columns(cut: TimeSplit) -> object:
        cuts.append(cut.t0)
        return list_columns(cut)

    monkeypatch.setattr(learned, "list_columns", columns)
    found = ListModel().examples(Past(split, choices(np.zeros(N + 1)), 0))
    ends = [*cuts[1:], T0]
    assert len(found) == len(cuts) == 4
    for cut, end, (own, values) in zip(cuts, ends, found, strict=True):
        assert own.times is not None
        assert cut <= own.times.min() <= own.times.max() < end
        assert len(values) == len(own)
    assert sum(len(own) for own, _ in found) == pytest.approx(0.8 * 1500, abs=5)
