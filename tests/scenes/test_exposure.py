"""The company of the true item: what may be in it, and where the true item stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare

from usermirror_gym.data import RecDataset, TimeSplit, load_dataset, time_cut
from usermirror_gym.data.dataset import MAX_TIMESTAMP
from usermirror_gym.errors import ConfigError, SceneError, UnknownNameError
from usermirror_gym.scenes import (
    Rankers,
    Scene,
    ScenePlan,
    build_scenes,
    draw_scenes,
    swap_histories,
)
from usermirror_gym.scenes.draw import build as build_module
from usermirror_gym.scenes.draw.columns import SceneColumns
from usermirror_gym.scenes.draw.exposure import GAP, ORIGINS

MIXED = {"uniform": 1.0, "popularity": 1.0, "collaborative": 1.0}


@pytest.fixture(scope="module")
def ml100k() -> TimeSplit:
    return time_cut(load_dataset("ml-100k"))


@pytest.fixture(scope="module")
def rankers(ml100k: TimeSplit) -> Rankers:
    return Rankers(ml100k)


def after(rankers: Rankers, **plan: object) -> SceneColumns:
    return draw_scenes(rankers, ScenePlan(**plan), (rankers.split.t0, None))


def test_the_true_item_is_equally_likely_in_every_slot(rankers: Rankers) -> None:
    columns = after(rankers, count=4000, slate_size=(2, 6), samplers=MIXED)
    sizes = (columns.slates > 0).sum(axis=1)
    assert set(sizes) == {2, 3, 4, 5, 6}
    for size in range(2, 7):
        counts = np.bincount(columns.targets[sizes == size], minlength=size)
        assert counts[-1] > 0  # the last slot too
        assert chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("balance", ["none", "popularity"])
@pytest.mark.parametrize("sampler", ["uniform", "popularity", "collaborative"])
def test_scenes_hold_the_real_choice_and_nothing_else_the_user_touched(
    rankers: Rankers, sampler: str, balance: str
) -> None:
    everything = TimeSplit(rankers.split.dataset, MAX_TIMESTAMP).histories
    plan = ScenePlan(count=150, samplers={sampler: 1.0}, balance=balance)
    for scene in build_scenes(rankers.split, plan, rankers=rankers):
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
    for side in (True, False):
        for s in build_scenes(ml100k, ScenePlan(count=100), after_t0=side):
            assert s.target is not None
            assert ((s.user_id, s.slate[s.target]) in late) is side


def most_popular(rankers: Rankers, columns: SceneColumns) -> float:
    """Accuracy of taking the most popular option."""
    popularity = rankers.split.popularity[columns.slates]
    best = popularity == popularity.max(axis=1, keepdims=True)
    return float((best[np.arange(len(best)), columns.targets] / best.sum(axis=1)).mean())


def test_balanced_lists_do_not_give_the_choice_away_by_popularity(rankers: Rankers) -> None:
    assert most_popular(rankers, after(rankers, count=3000)) > 0.5
    balanced = after(rankers, count=3000, samplers=MIXED, balance="popularity")
    assert abs(most_popular(rankers, balanced) - 0.2) < 0.03
    used = np.bincount(balanced.origins[balanced.slates > 0], minlength=len(ORIGINS))
    shares = used[[ORIGINS.index(name) for name in MIXED]] / used[:-1].sum()
    assert shares == pytest.approx([1 / 3] * 3, abs=0.03)


def test_popularity_is_counted_before_the_cut_only(split: TimeSplit) -> None:
    unseen = np.flatnonzero(split.popularity == 0)[1:]
    assert len(unseen), "the fixture must have an item that appears only after T0"
    columns = after(Rankers(split), count=200, samplers={"popularity": 1.0})
    company = columns.slates[columns.slates != columns.items[:, None]]
    assert not np.isin(company, unseen).any()


def test_a_longer_plan_starts_with_the_shorter_one(split: TimeSplit) -> None:
    few = build_scenes(split, ScenePlan(count=5, seed=4, samplers=MIXED))
    many = build_scenes(split, ScenePlan(count=25, seed=4, samplers=MIXED))
    assert many[:5] == few
    assert build_scenes(split, ScenePlan(count=5, seed=5, samplers=MIXED)) != few


def test_the_batch_a_scene_is_built_in_changes_nothing(
    split: TimeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = ScenePlan(count=40, slate_size=(2, 6), samplers=MIXED, balance="popularity", removed=0.3)
    whole = build_scenes(split, plan)
    monkeypatch.setattr(build_module, "_CHUNK_CELLS", 3 * (split.dataset.n_items + 1))
    assert build_scenes(split, plan) == whole


def test_removed_scenes_lack_the_choice_and_expect_none_of_these(rankers: Rankers) -> None:
    columns = after(rankers, count=2000, removed=0.25, samplers=MIXED)
    gone = columns.removed
    assert gone.mean() == pytest.approx(0.25, abs=0.04)
    sizes = (columns.slates > 0).sum(axis=1)
    assert set(sizes) == {5}
    assert (columns.targets[gone] == 5).all()
    assert (columns.targets[~gone] < 5).all()
    assert not (columns.slates[gone] == columns.items[gone, None]).any()


Toy = Callable[..., TimeSplit]


@pytest.fixture
def toy() -> Toy:
    """Users 1..U, items 1..I; events (user, item, time); cut at ``t0``."""

    def _toy(
        events: list[tuple[int, int, int]], n_items: int, t0: int, **tables: pd.DataFrame
    ) -> TimeSplit:
        frame = pd.DataFrame(events, columns=["user_id", "item_id", "timestamp"])
        items = pd.DataFrame({"item_id": range(1, n_items + 1)})
        items["title"] = [f"T{i}" for i in items["item_id"]]
        if "available_from" in tables:
            items["available_from"] = tables.pop("available_from")
        users = pd.DataFrame({"user_id": sorted(set(frame["user_id"]))})
        data = RecDataset.from_tables(
            "toy", "movie", users=users, items=items, interactions=frame, **tables
        )
        return TimeSplit(data, t0)

    return _toy


def test_content_company_is_nearest_to_the_true_item(toy: Toy) -> None:
    # Items on a circle: the neighbours of item i are i - 1 and i + 1.
    angles = np.arange(21) * 2 * np.pi / 20
    embedding = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    embedding[0] = 0
    split = toy([(1, 1, 1), (1, 3, 2), (1, 12, 9), (2, 5, 1)], 20, 5)
    plan = ScenePlan(slate_size=3, samplers={"content": 1.0}, min_history=2)
    (scene,) = build_scenes(split, plan, rankers=Rankers(split, embedding=embedding))
    assert set(scene.slate) == {11, 12, 13}


def test_social_company_comes_from_friends_before_the_moment(toy: Toy) -> None:
    events = [(1, 1, 1), (1, 2, 2), (1, 3, 9), (2, 4, 3), (2, 5, 10), (3, 6, 3), (3, 4, 3)]
    friends = pd.DataFrame({"user_id": [1, 2], "friend_id": [2, 1]})
    split = toy(events, 8, 5, friends=friends)
    plan = ScenePlan(slate_size=2, samplers={"social": 1.0}, min_history=2)
    (scene,) = build_scenes(split, plan)
    assert set(scene.slate) == {3, 4}  # not 5 (later), not 6 (a stranger's)


def test_items_are_shown_only_once_they_are_published(toy: Toy) -> None:
    published = pd.Series([0, 0, 0, 20, 5, None, 1], dtype="Int64")
    split = toy([(1, 1, 1), (1, 2, 2), (1, 3, 9), (2, 4, 30)], 7, 5, available_from=published)
    plan = ScenePlan(count=1, slate_size=4, min_history=2)
    (scene,) = build_scenes(split, plan)
    assert set(scene.slate) == {3, 5, 6, 7}  # 4 comes later; nobody knows when 6 came


def test_a_choice_before_publication_is_not_used(toy: Toy) -> None:
    published = pd.Series([0, 0, 20, 0, 0], dtype="Int64")
    events = [(1, 1, 1), (1, 2, 2), (1, 3, 9), (1, 4, 10)]
    split = toy(events, 5, 5, available_from=published)
    columns = draw_scenes(Rankers(split), ScenePlan(slate_size=2, min_history=2), (5, None))
    assert columns.items.tolist() == [4]
    assert columns.dropped == {"choice logged before its item was published": 1}
    with pytest.raises(ConfigError, match="choices logged before their item was published: 1"):
        draw_scenes(Rankers(split), ScenePlan(slate_size=2, min_history=2), (5, 10))


def test_a_repeated_item_is_not_a_choice(toy: Toy) -> None:
    # Among items the user never touched, one from the history would give itself away.
    split = toy([(1, 1, 1), (1, 2, 2), (1, 1, 8), (1, 3, 9)], 7, 5)
    (scene,) = build_scenes(split, ScenePlan(slate_size=2, min_history=2))
    assert scene.target is not None
    assert scene.slate[scene.target] == 3
    assert scene.history == (1, 2, 1)


def test_an_exhausted_stratum_is_filled_at_random_and_says_so(toy: Toy) -> None:
    events = [(u, i, u) for u in range(2, 6) for i in (1, 2)]
    split = toy([*events, (1, 1, 1), (1, 3, 2), (1, 2, 9)], 9, 8)
    columns = draw_scenes(
        Rankers(split),
        ScenePlan(slate_size=3, samplers={"popularity": 1.0}, balance="popularity", min_history=2),
        (8, None),
    )
    assert (columns.origins[columns.slates > 0] == ORIGINS.index(GAP)).sum() == 2


def test_swapped_scenes_keep_the_list_and_take_another_users_memory(split: TimeSplit) -> None:
    scenes = build_scenes(split, ScenePlan(count=40))
    swapped = swap_histories(scenes)
    assert [s.slate for s in swapped] == [s.slate for s in scenes]
    assert [s.target for s in swapped] == [s.target for s in scenes]
    assert all(a.user_id != b.user_id for a, b in zip(scenes, swapped, strict=True))
    whole = {s.user_id: [t.history for t in scenes if t.user_id == s.user_id] for s in scenes}
    for own, other in zip(scenes, swapped, strict=True):
        # What is on the list tells nothing: the other's lines of it are left out.
        told = [[i for i in history if i not in own.slate] for history in whole[other.user_id]]
        most = len(own.history)
        assert list(other.history) in [history[max(len(history) - most, 0) :] for history in told]
        assert len(other.ratings) == len(other.ages) == len(other.history)


def test_a_swapped_history_is_as_long_as_the_own_and_ends_where_the_other_does() -> None:
    scenes = [
        Scene(
            user_id=user, history=tuple(range(100 * user, 100 * user + n)), ratings=(3.0,) * n,
            ages=tuple(range(n, 0, -1)), slate=(1, 2), behaviours=tuple(map(str, range(n))),
        )
        for user, n in ((1, 9), (2, 6), (3, 6), (4, 2), (5, 0))
    ]  # fmt: skip
    swapped = swap_histories(scenes, seed=3)
    # Nobody else has nine lines.
    assert [len(scene.history) for scene in swapped] == [6, 6, 6, 2, 0]
    for mine, other in zip(scenes, swapped, strict=True):
        assert other.user_id != mine.user_id
        n, whole = len(other.history), scenes[other.user_id - 1]
        assert other.history == whole.history[len(whole.history) - n :]
        assert other.ages == whole.ages[len(whole.history) - n :]
        assert other.behaviours == whole.behaviours[len(whole.history) - n :]
        assert len(other.ratings) == n
    assert swap_histories(scenes, seed=3) == swapped
    assert swap_histories(scenes[:1]) == scenes[:1]  # alone, there is nobody to swap with


def test_clear_errors(split: TimeSplit) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'uniform'"):
        build_scenes(split, ScenePlan(samplers={"unifrom": 1.0}))
    with pytest.raises(SceneError, match="use shorter lists"):
        build_scenes(split, ScenePlan(slate_size=60))
    mistaken: tuple[Any, ...] = (0, 2.5, "5", (3, 2), (1, 2, 3))
    for size in mistaken:
        with pytest.raises(ConfigError, match="slate_size must be a positive whole number") as told:
            ScenePlan(slate_size=size)
        assert str(told.value).endswith(f"got {size!r}")
    with pytest.raises(ConfigError, match="min_history must not be negative, got -1"):
        ScenePlan(min_history=-1)
    with pytest.raises(ConfigError, match=r"embedding must have the shape .* got \(3, 2\)"):
        Rankers(split, embedding=np.ones((3, 2), np.float32))
    with pytest.raises(ConfigError, match="at least one sampler"):
        build_scenes(split, ScenePlan(samplers={"uniform": 0.0}))
    for share in (-1.0, float("nan"), float("inf"), "much"):
        samplers: dict[str, Any] = {"uniform": 2.0, "popularity": share}
        with pytest.raises(ConfigError, match=f"must be a number, 0 or more, got {share!r}"):
            build_scenes(split, ScenePlan(samplers=samplers))
    with pytest.raises(ConfigError, match="'content' needs item embeddings"):
        build_scenes(split, ScenePlan(samplers={"content": 1.0}))
    with pytest.raises(ConfigError, match="'tiny' has none"):
        build_scenes(split, ScenePlan(samplers={"social": 1.0}))
    with pytest.raises(ConfigError, match="no event in 'tiny' from"):
        build_scenes(split, ScenePlan(min_history=10_000))


def test_balanced_content_company_does_not_centre_on_the_true_item() -> None:
    """Content alone: the true item stands anywhere in a chain of neighbours."""
    rng = np.random.default_rng(0)
    n_items, n_users = 400, 900
    embedding = rng.standard_normal((n_items + 1, 8)).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    events = pd.DataFrame(
        [(u, int(i), t) for u in range(n_users) for t, i in enumerate(rng.permutation(400)[:4])],
        columns=["user_id", "item_id", "timestamp"],
    )
    data = RecDataset.from_tables(
        "toy",
        "movie",
        users=pd.DataFrame({"user_id": range(n_users)}),
        items=pd.DataFrame({"item_id": range(n_items), "title": [f"T{i}" for i in range(n_items)]}),
        interactions=events,
    )
    rankers = Rankers(TimeSplit(data, 3), embedding=embedding)

    def central(balance: str) -> float:
        columns = after(rankers, count=n_users, samplers={"content": 1.0}, balance=balance)
        vectors = embedding[columns.slates]
        likeness = np.einsum("bkd,bjd->bkj", vectors, vectors).sum(axis=2)
        return float((likeness.argmax(axis=1) == columns.targets).mean())

    assert central("none") > 0.6
    assert central("popularity") < 0.35
