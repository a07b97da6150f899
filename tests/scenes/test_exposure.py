"""The company of the true item: what may be in it, and where the true item stands."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from usermirror_gym.data import TimeSplit, histories, load_dataset, time_cut
from usermirror_gym.errors import ConfigError, SceneError, UnknownNameError
from usermirror_gym.scenes import ScenePlan, build_scenes, sample_distractors, swap_histories


@pytest.fixture(scope="module")
def ml100k() -> TimeSplit:
    return time_cut(load_dataset("ml-100k"))


def test_the_true_item_is_equally_likely_in_every_slot(ml100k: TimeSplit) -> None:
    scenes = build_scenes(ml100k, ScenePlan(count=2000, slate_size=5))
    counts = np.bincount([s.target for s in scenes], minlength=5)
    assert counts.min() > 0
    assert chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("sampler", ["uniform", "popularity"])
def test_scenes_hold_the_real_choice_and_nothing_else_the_user_touched(
    ml100k: TimeSplit, sampler: str
) -> None:
    everything = histories(ml100k.dataset.interactions)
    for scene in build_scenes(ml100k, ScenePlan(count=200, sampler=sampler)):
        touched = set(everything[scene.user_id].items.tolist())
        assert scene.target is not None
        assert scene.slate[scene.target] in touched
        assert not touched & (set(scene.slate) - {scene.slate[scene.target]})
        assert len(set(scene.slate)) == len(scene.slate) == 5
        assert scene.slate[scene.target] not in scene.history
        assert 3 <= len(scene.history) <= 10
        assert min(scene.ages) > 0  # strictly earlier than the choice


def test_scenes_are_on_the_chosen_side_of_the_cut(ml100k: TimeSplit) -> None:
    late = {(u, i) for u, i in ml100k.after[["user_id", "item_id"]].itertuples(index=False)}
    for after in (True, False):
        for s in build_scenes(ml100k, ScenePlan(count=100), after_t0=after):
            assert s.target is not None
            assert ((s.user_id, s.slate[s.target]) in late) is after


def test_popularity_is_counted_before_the_cut_only(split: TimeSplit) -> None:
    unseen = np.flatnonzero(split.popularity == 0)[1:]
    assert len(unseen), "the fixture must have an item that appears only after T0"
    rng = np.random.default_rng(0)
    drawn = [sample_distractors(split, "popularity", 5, np.array([1]), rng) for _ in range(200)]
    assert not np.isin(drawn, unseen).any()
    assert not np.isin(drawn, [0, 1]).any()


def test_a_longer_plan_starts_with_the_shorter_one(split: TimeSplit) -> None:
    few = build_scenes(split, ScenePlan(count=5, seed=4))
    many = build_scenes(split, ScenePlan(count=25, seed=4))
    assert many[:5] == few
    assert build_scenes(split, ScenePlan(count=5, seed=5)) != few


def test_swapped_scenes_keep_the_list_and_take_another_users_memory(split: TimeSplit) -> None:
    scenes = build_scenes(split, ScenePlan(count=40))
    swapped = swap_histories(scenes)
    assert [s.slate for s in swapped] == [s.slate for s in scenes]
    assert [s.target for s in swapped] == [s.target for s in scenes]
    assert all(a.user_id != b.user_id for a, b in zip(scenes, swapped, strict=True))
    assert sorted(s.history for s in swapped) == sorted(s.history for s in scenes)


def test_clear_errors(split: TimeSplit) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UnknownNameError, match="Did you mean 'uniform'"):
        sample_distractors(split, "unifrom", 3, np.array([1]), rng)
    with pytest.raises(SceneError, match="use shorter lists"):
        sample_distractors(split, "uniform", 60, np.array([1]), rng)
    with pytest.raises(ConfigError, match="slate_size must be at least 1, got 0"):
        ScenePlan(slate_size=0)
    with pytest.raises(ConfigError, match="no event after T0"):
        build_scenes(split, ScenePlan(min_history=10_000))
