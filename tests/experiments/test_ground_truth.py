"""The ground truth keeps its stated rules, and is the same for whoever asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from usermirror_gym.data import TimeSplit
from usermirror_gym.envs import SlateVectorEnv, make_world
from usermirror_gym.errors import ConfigError, RunError, SceneError, UnknownNameError
from usermirror_gym.experiments.transfer import ground_truth as factors_module
from usermirror_gym.experiments.transfer.ground_truth import (
    LatentFactorRatings,
    LatentFactorUser,
    TruthSettings,
)
from usermirror_gym.scenes import Scene, Turn
from usermirror_gym.simulators import UserSimulator
from usermirror_gym.testing.data import tiny_split

SETTINGS = TruthSettings(factors=4, penalty=1.0, iterations=60)


@pytest.fixture(scope="module")
def split() -> TimeSplit:
    return tiny_split()


@pytest.fixture(scope="module")
def user(split: TimeSplit) -> LatentFactorUser:
    return LatentFactorUser.fit(split.dataset, SETTINGS)


def scene(user_id: int, slate: tuple[int, ...], history: tuple[int, ...] = (), **more) -> Scene:
    n = len(history)
    return Scene(user_id, history, (4.0,) * n, (9,) * n, slate, name="scene 7", **more)


def test_it_is_a_user_simulator(user: LatentFactorUser) -> None:
    assert isinstance(user, UserSimulator)
    probs = user.choose([scene(1, (1, 2, 3)), scene(2, (4, 5))]).probs
    assert probs.dtype == np.float64
    assert probs.shape == (2, 4)
    np.testing.assert_allclose(probs.sum(axis=1), 1.0)
    assert probs[1, 2] == 0
    assert (probs[:, -1] > 0).all()


def test_a_scene_is_answered_alike_alone_and_among_others(user: LatentFactorUser) -> None:
    scenes = [
        scene(u, (u, u + 3, 30), tuple(range(10, 10 + u)), turns=(Turn((1, 2), 2),) * (u % 3))
        for u in range(1, 9)
    ]
    together = user.choose(scenes).probs
    for row, one in enumerate(scenes):
        assert (user.choose([one]).probs[0] == together[row]).all()


@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
def test_a_row_of_an_environment_does_not_depend_on_the_others(
    split: TimeSplit, user: LatentFactorUser, mode: str
) -> None:
    world = make_world(split, simulator=user.knowing(split))
    slates = np.arange(1, 41).reshape(8, 5)
    infos = []
    for n in (1, 8):
        env = SlateVectorEnv(n, world, autoreset_mode=mode)
        env.reset(seed=3)
        infos.append([env.step(slates[:n])[4]["probabilities"][0] for _ in range(3)])
    assert (np.array(infos[0]) == np.array(infos[1])).all()


def test_fitted_tastes_are_those_of_the_log(split: TimeSplit, user: LatentFactorUser) -> None:
    none = np.zeros((1, 0), np.int64)
    first, second = np.arange(1, 20)[None], np.arange(21, 40)[None]
    leans = [
        user.utility(np.array([u]), first, none).mean()
        - user.utility(np.array([u]), second, none).mean()
        for u in range(1, 31)
    ]
    # Odd users prefer the first half of the films, even ones the second.
    assert (np.array(leans[::2]) > np.array(leans[1::2])).all()


def test_a_random_list_is_taken_from_as_often_as_stated(split: TimeSplit) -> None:
    for share in (0.3, 0.7):
        user = LatentFactorUser.fit(split.dataset, replace(SETTINGS, random_take=share))
        rng = np.random.default_rng(9)
        scenes = [
            scene(int(rng.integers(1, 31)), tuple((1 + rng.permutation(40)[:5]).tolist()))
            for _ in range(3000)
        ]
        assert 1 - user.choose(scenes).probs[:, -1].mean() == pytest.approx(share, abs=0.03)


def test_nobody_takes_a_film_twice(split: TimeSplit, user: LatentFactorUser) -> None:
    probs = user.choose([
        scene(1, (5, 6, 7), history=(5,)),
        scene(1, (5, 6, 7), turns=(Turn((6, 8), 6), Turn((9, 8), 0))),
        scene(1, (5, 6, 7)),
    ]).probs  # fmt: skip
    assert probs[0, 0] == 0
    assert probs[1, 1] == 0
    assert (probs[2] > 0).all()
    had = split.histories[1].items
    fresh = next(i for i in range(1, 41) if i not in had)
    knowing = user.knowing(split).choose([scene(1, (int(had[0]), fresh))]).probs
    assert knowing[0, 0] == 0
    assert knowing[0, 1] > 0


def test_what_was_shown_but_not_taken_may_be_taken_later(user: LatentFactorUser) -> None:
    again = scene(1, (5, 6), turns=(Turn((5, 6), 0),))
    assert (user.choose([again]).probs == user.choose([scene(1, (5, 6))]).probs).all()


def test_films_like_the_newest_choices_tire(user: LatentFactorUser) -> None:
    like = user.item_factors[1:] @ user.item_factors[1]
    twin, other = 1 + int(np.argsort(-like)[1]), 1 + int(np.argmin(like))
    before = user.choose([scene(1, (twin, other))]).probs[0]
    after = user.choose([scene(1, (twin, other), turns=(Turn((1,), 1),))]).probs[0]
    assert after[0] < before[0]
    calm = replace(user, settings=replace(SETTINGS, satiation=0.0))
    tired = calm.choose([scene(1, (twin, other), turns=(Turn((1,), 1),))]).probs[0]
    assert tired == pytest.approx(calm.choose([scene(1, (twin, other))]).probs[0])


def test_only_so_many_newest_choices_tire(user: LatentFactorUser) -> None:
    slate, newest = (20, 21), tuple(range(2, 2 + SETTINGS.memory))
    short = user.choose([scene(1, slate, history=newest)]).probs
    longer = user.choose([scene(1, slate, history=(35, 36, *newest))]).probs
    assert (short == longer).all()


def test_same_seed_same_user_and_it_survives_the_disk(
    split: TimeSplit, user: LatentFactorUser, tmp_path: Path
) -> None:
    assert LatentFactorUser.fit(split.dataset, SETTINGS).digest == user.digest
    other = LatentFactorUser.fit(split.dataset, replace(SETTINGS, seed=1))
    assert other.digest != user.digest
    back = LatentFactorUser.load(user.save(tmp_path / "truth.npz"))
    assert back.digest == user.digest
    assert back.settings == SETTINGS
    (tmp_path / "truth.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(RunError, match=r"truth\.npz"):
        LatentFactorUser.load(tmp_path / "truth.npz")


def test_strangers_are_refused(user: LatentFactorUser) -> None:
    with pytest.raises(SceneError, match=r"row 0 \(user 99\): user ids .* 1 to 30, got \[99\]"):
        user.choose([scene(99, (1, 2))])
    with pytest.raises(SceneError, match=r"item ids .* 1 to 40, got \[1, 41\]"):
        user.choose([scene(1, (1, 41))])


def neighbours_by_hand(data: np.ndarray, count: int) -> np.ndarray:
    """What :func:`neighbour_tastes` says, one user and item after another."""
    users, items = data.shape
    taste = np.zeros(data.shape)
    for i in range(items):
        near = {
            j: (data[:, i] * data[:, j]).sum()
            / (np.sqrt(data[:, i].sum() * data[:, j].sum()) + 10.0)
            for j in range(items) if j != i
        }  # fmt: skip
        least = sorted(near.values(), reverse=True)[count - 1]
        near = {j: n for j, n in near.items() if n >= least}
        for u in range(users):
            share = sum(n for j, n in near.items() if data[u, j]) / sum(near.values())
            taste[u, i] = np.log(0.05 + share)
    taste -= taste.mean(axis=0)
    taste -= taste.mean(axis=1)[:, None]
    return taste / taste.std()


def test_tastes_may_come_from_neighbours(split: TimeSplit) -> None:
    had = np.zeros((split.dataset.n_users, split.dataset.n_items))
    events = split.dataset.interactions
    had[events["user_id"] - 1, events["item_id"] - 1] = 1
    found = factors_module.neighbour_tastes(split.dataset, 5)
    assert found == pytest.approx(neighbours_by_hand(had, 5))


def test_both_kinds_of_truth_have_one_level_one_spread_and_one_bias(
    split: TimeSplit, user: LatentFactorUser, tmp_path: Path
) -> None:
    other = LatentFactorUser.fit(split.dataset, replace(SETTINGS, kind="neighbours", neighbours=5))
    assert (other.item_bias == user.item_bias).all()
    tastes = [u.user_factors[1:] @ u.item_factors[1:].T for u in (user, other)]
    assert tastes[1].std() == pytest.approx(tastes[0].std())
    assert np.corrcoef(tastes[0].ravel(), tastes[1].ravel())[0, 1] < 0.95
    assert tastes[1] == pytest.approx(
        tastes[0].std() * factors_module.neighbour_tastes(split.dataset, 5)
    )
    rng = np.random.default_rng(9)
    scenes = [
        scene(int(rng.integers(1, 31)), tuple((1 + rng.permutation(40)[:5]).tolist()))
        for _ in range(3000)
    ]
    taken = 1 - other.choose(scenes).probs[:, -1].mean()
    assert taken == pytest.approx(SETTINGS.random_take, abs=0.03)
    back = LatentFactorUser.load(other.save(tmp_path / "truth.npz"))
    assert (back.digest, back.settings) == (other.digest, other.settings)
    assert "neighbours=5" in back.name


def test_an_unknown_kind_of_truth_suggests_a_known_one() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'neighbours'"):
        TruthSettings(kind="neighbors")


def test_too_many_pairs_are_refused(split: TimeSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factors_module, "_MOST_CELLS", 100)
    with pytest.raises(ConfigError, match="30 users times 40 items"):
        LatentFactorUser.fit(split.dataset, SETTINGS)


@pytest.mark.parametrize(
    "wrong",
    [{"factors": 0}, {"temperature": 0.0}, {"temperature": np.nan}, {"satiation": -1.0},
     {"random_take": 1.0}, {"decay": 0.0}, {"penalty": np.inf}],
)  # fmt: skip
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TruthSettings(**wrong)


def test_ratings_follow_taste(split: TimeSplit, user: LatentFactorUser) -> None:
    ratings = LatentFactorRatings(split.dataset, user)
    assert ratings.slope > 0
    uniforms = np.random.default_rng(0).random(500)
    users, films = np.repeat([1, 2], 250), np.tile(np.arange(1, 26) % 20 + 1, 20)
    found = ratings.sample(users, films, uniforms)
    assert set(np.unique(found)) <= {1, 2, 3, 4, 5}
    assert found[:250].mean() > found[250:].mean()  # the first films are what odd users like
    assert (ratings.sample(users, films, uniforms) == found).all()
