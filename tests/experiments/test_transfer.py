"""Curves over training in several worlds, and the points where simulated and true return part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from usermirror_gym.agents.base import Agent
from usermirror_gym.agents.observations import observations_from_split
from usermirror_gym.agents.returns import SessionSettings, play
from usermirror_gym.agents.rollout import plan_episodes
from usermirror_gym.data import TimeSplit
from usermirror_gym.envs import World, make_world
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.experiments.transfer.curves import (
    Checkpoint,
    Curve,
    analyse,
    judge,
    together,
)
from usermirror_gym.experiments.transfer.learners import (
    CLIMBERS,
    FEATURES,
    LinearReinforce,
    Practice,
    make_learner,
)
from usermirror_gym.experiments.transfer.plots import curve_plot, parting_sentence
from usermirror_gym.scenes import SceneBatch
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.testing.data import tiny_split

STEPS = np.arange(0, 1100, 100)
SHORT = SessionSettings(steps=4, slate_size=3)
UP = np.linspace(2, 8, 11)
HACKED = np.array([2, 3, 4, 5, 5.5, 5, 4.5, 4, 3.5, 3, 2.5])


def curve(simulated, true, *, noise: float = 1.0, trainings: int = 3, seed: int = 0) -> Curve:
    """Returns about the given means; users and trainings differ, alike in both worlds."""
    rng = np.random.default_rng(seed)
    users = rng.normal(0, noise, 120)
    of = rng.normal(0, 0.1, (trainings, 1, 1))

    def returns(means) -> np.ndarray:
        luck = rng.normal(0, noise, (trainings, len(STEPS), 120))
        return np.asarray(means)[None, :, None] + users + of + luck

    return Curve(STEPS, {"sim": returns(simulated), "truth": returns(true)}, np.arange(120), "sim")


class TestParting:
    def test_a_hacked_curve_is_marked_where_the_truth_has_fallen(self) -> None:
        found = analyse(curve(UP, HACKED), n_resamples=400)
        assert found["hacked"]["since"] == 400
        assert found["hacked"]["step"] in (500, 600)
        assert found["hacked"]["fall"]["high"] < 0
        assert found["parted"] in (500, 600)
        assert found["best"]["step"] == 400
        assert found["best"]["lost"]["mean"] == pytest.approx(-3.0, abs=0.4)

    def test_an_honest_curve_is_not(self) -> None:
        for seed in range(5):
            found = analyse(curve(UP, UP - 0.5, seed=seed), n_resamples=200)
            assert found["hacked"] is None
            assert found["parted"] is None

    def test_noise_around_a_plateau_is_no_parting(self) -> None:
        flat = np.concatenate([np.linspace(2, 6, 4), np.full(7, 6.0)])
        for seed in range(10):
            found = analyse(curve(flat, flat, seed=seed), n_resamples=200)
            assert found["hacked"] is None

    def test_a_promise_that_is_not_kept_is_no_hacking(self) -> None:
        found = analyse(curve(UP, 2 + (UP - 2) / 3), n_resamples=200)
        assert found["hacked"] is None
        assert found["parted"] == 100
        assert "promises more" in parting_sentence(found)

    def test_both_falling_together_is_no_hacking(self) -> None:
        assert analyse(curve(HACKED, HACKED), n_resamples=200)["hacked"] is None

    def test_a_fall_that_does_not_stay_does_not_count(self) -> None:
        dip = UP.copy()
        dip[6] = 3.0
        assert analyse(curve(UP, dip, noise=0.3), n_resamples=200)["hacked"] is None

    def test_intervals_hold_over_trainings_and_users(self) -> None:
        found = analyse(curve(UP, UP), n_resamples=400)
        one = analyse(curve(UP, UP, trainings=1), n_resamples=400)
        widths = [b["high"] - b["low"] for b in (found["worlds"]["sim"][5],
                                                 one["worlds"]["sim"][5])]  # fmt: skip
        assert 0.1 < widths[0] < widths[1]
        # A training that came out differently widens them more than its users do.
        odd = curve(UP, UP)
        odd.returns["truth"][0] += 4.0
        wide = analyse(odd, n_resamples=400)["worlds"]["truth"][5]
        assert wide["high"] - wide["low"] > 3

    def test_same_seed_same_numbers(self) -> None:
        assert analyse(curve(UP, HACKED), n_resamples=50) == analyse(
            curve(UP, HACKED), n_resamples=50
        )

    def test_returns_without_variation_have_no_interval(self) -> None:
        same = Curve(STEPS[:2], {w: np.ones((2, 2, 5)) for w in ("sim", "truth")}, np.arange(5),
                     "sim")  # fmt: skip
        found = analyse(same, n_resamples=20)
        assert found["gap"][1] == {"mean": 0.0, "low": None, "high": None}
        assert found["parted"] is None


def test_curves_that_do_not_fit_are_refused() -> None:
    good = {w: np.ones((1, 2, 5)) for w in ("sim", "truth")}
    with pytest.raises(UnknownNameError, match="world 'sm'"):
        Curve(STEPS[:2], good, np.arange(5), "sm")
    with pytest.raises(ConfigError, match=r"shape \(1, 2, 5\), expected \(trainings, 3"):
        Curve(STEPS[:3], good, np.arange(5), "sim")
    with pytest.raises(ConfigError, match="ascending steps"):
        Curve(STEPS[[1, 0]], good, np.arange(5), "sim")
    with pytest.raises(UnknownNameError, match="world 'thruth'"):
        analyse(Curve(STEPS[:2], good, np.arange(5), "sim"), truth="thruth")
    rows = {"sim": np.ones((2, 5))}
    with pytest.raises(ConfigError, match="same steps"):
        together([(STEPS[:2], rows), (STEPS[1:3], rows)], np.arange(5), "sim")


@pytest.fixture(scope="module")
def split() -> TimeSplit:
    return tiny_split()


class Likes:
    """Takes an item of its own kind with a high probability: even ids or odd ones."""

    def __init__(self, kind: int) -> None:
        self.kind, self.name = kind, f"likes {kind}"

    def choose(self, scenes):
        slates = SceneBatch.of(scenes).slates
        weights = np.where(slates % 2 == self.kind, 1.0, 0.05) * (slates > 0)
        mass = np.concatenate([weights, np.ones((len(slates), 1))], axis=1)
        return ChoiceBatch(mass / mass.sum(axis=1, keepdims=True))


class ShowsOne:
    """A scripted policy: the first k items of a kind."""

    name = "scripted"

    def __init__(self, kind: int) -> None:
        self.kind = kind

    def fit(self, data):
        return self

    def recommend(self, observations, k: int):
        return np.tile(np.arange(2 - self.kind, 2 - self.kind + 2 * k, 2), (len(
            observations["user_id"]), 1))  # fmt: skip

    def observe(self, transition) -> None: ...


class Scripted:
    """Shows what both like less and less, and what the simulator likes more."""

    name = "scripted"

    def checkpoints(self, world: World, seed: int) -> Iterator[Checkpoint]:
        for step, kind in enumerate((1, 0, 0)):
            yield Checkpoint(step * 10, ShowsOne(kind))


def test_a_scripted_training_is_judged_in_every_world(split: TimeSplit) -> None:
    worlds = {"sim": make_world(split, simulator=Likes(0)),
              "truth": make_world(split, simulator=Likes(1))}  # fmt: skip
    plan = plan_episodes(worlds["sim"].users, 60, 0)
    seen: list[int] = []
    judged = [
        judge(Scripted().checkpoints(worlds["sim"], seed), worlds, plan, SHORT,
              progress=seen.append)
        for seed in (0, 1)
    ]  # fmt: skip
    found = together(judged, plan.user_ids, "sim")
    assert found.returns["truth"].shape == (2, 3, 60)
    assert sum(seen) == 2 * 3 * 2 * 60
    analysed = analyse(found, n_resamples=200)
    assert analysed["hacked"]["step"] == 10
    assert analysed["worlds"]["truth"][0]["mean"] > analysed["worlds"]["truth"][2]["mean"] + 1
    with pytest.raises(UnknownNameError, match="world 'simulator'"):
        together(judged, plan.user_ids, "simulator")
    with pytest.raises(ConfigError, match="no checkpoint"):
        judge([], worlds, plan, SHORT)


def test_the_same_users_have_the_same_luck_whatever_the_batch(split: TimeSplit) -> None:
    world = make_world(split, simulator=Likes(1))
    plan = plan_episodes(world.users, 20, 3)
    whole = play(world, ShowsOne(1), plan, SHORT)
    half = play(world, ShowsOne(1), plan.part(slice(0, 10)), SHORT)
    assert (half.returns == whole.returns[:10]).all()
    assert (whole.lists <= 4).all()
    assert ((whole.left == 0) | (whole.lists >= 3)).all()


class TestLinearReinforce:
    def test_it_climbs_the_world_it_learns_from(self, split: TimeSplit) -> None:
        world = make_world(split, simulator=Likes(1))
        climber = Practice("climber-items", SHORT, users=40, updates=40, evaluations=2)
        plan = plan_episodes(world.users, 100, 0)
        steps, returns = judge(climber.checkpoints(world, 0), {"sim": world}, plan, SHORT)
        assert steps.tolist() == [0, 800, 1600]
        means = returns["sim"].mean(axis=1)
        assert means[2] > means[0] + 0.3

    def test_same_seed_same_training(self, split: TimeSplit) -> None:
        world = make_world(split, simulator=Likes(1))
        climber = Practice("climber", SHORT, users=8, updates=3, evaluations=1)
        runs = [list(climber.checkpoints(world, s))[-1].agent.weights for s in (0, 0, 1)]
        assert (runs[0] == runs[1]).all()
        assert not (runs[0] == runs[2]).all()

    def test_the_policy_is_an_agent_whose_rows_stand_alone(self, split: TimeSplit) -> None:
        policy = LinearReinforce("p", np.array([0.5, 1.0, 0.2, -0.3, 0.1]), repeats=True).fit(split)
        assert isinstance(policy, Agent)
        seen = observations_from_split(split, split.seen_users)
        lists = policy.recommend(seen, 3)
        assert all(len(set(row)) == 3 for row in lists.tolist())
        alone = {name: values[4:5] for name, values in seen.items()}
        assert (policy.recommend(alone, 3)[0] == lists[4]).all()

    def test_features_say_what_they_are_called(self, split: TimeSplit) -> None:
        policy = LinearReinforce("p", np.zeros(5)).fit(split)
        seen = observations_from_split(split, split.seen_users[:1])
        found = dict(zip(FEATURES, policy.features(seen)[0], strict=True))
        history = split.histories[int(split.seen_users[0])].items
        assert set(np.flatnonzero(found["had before"]).tolist()) == set(history.tolist())
        assert np.flatnonzero(found["the newest itself"]).tolist() == [history[-1]]
        assert found["popular"][1:].argmax() == split.popularity[1:].argmax()

    def test_repeats_are_shown_only_if_allowed(self, split: TimeSplit) -> None:
        eager = np.array([0.0, 0.0, 0.0, 50.0, 0.0])
        seen = observations_from_split(split, split.seen_users)
        histories = [set(split.histories[u].items.tolist()) for u in split.seen_users.tolist()]
        for repeats in (True, False):
            policy = LinearReinforce("p", eager, repeats=repeats).fit(split)
            for row, had in zip(policy.recommend(seen, 3).tolist(), histories, strict=True):
                assert (set(row) <= had) if repeats else not set(row) & had

    def test_settings_are_checked(self) -> None:
        with pytest.raises(ConfigError, match="updates must be at least 1, got 0"):
            Practice("climber", updates=0)
        with pytest.raises(ConfigError, match="evaluations is 9, and there are but 3 updates"):
            Practice("climber", updates=3, evaluations=9)


class Practises(ShowsOne):
    """Goes over to the other kind after two iterations."""

    explore = True

    def __init__(self, seed: int) -> None:
        super().__init__(1)
        self.log: list[tuple[bool, int]] = []

    def practise(self, env, users, seeds) -> dict[str, float]:
        self.log.append((self.explore, len(users)))
        env.reset(seed=seeds, options={"user_id": users})
        self.kind = int(len(self.log) < 2)
        return {}


def test_agents_that_practise_are_learners(split: TimeSplit) -> None:
    world = make_world(split, simulator=Likes(1))
    made: list[Practises] = []

    def make(seed: int) -> Practises:
        made.append(Practises(seed))
        return made[-1]

    practice = Practice("mine", SHORT, users=6, updates=4, evaluations=2, make=make)
    kinds = [(c.step, c.agent.kind, c.agent.explore) for c in practice.checkpoints(world, 0)]
    assert kinds == [(0, 1, False), (12, 0, False), (24, 0, False)]
    assert made[0].log == [(True, 6)] * 4


def test_learners_by_name() -> None:
    learner = make_learner("climber-new", SHORT, updates=5, evaluations=12)
    agent = learner.new(0)
    assert isinstance(agent, LinearReinforce)
    assert (agent.repeats, learner.updates, learner.evaluations) == (False, 5, 5)
    assert {n: make_learner(n, SHORT).new(0).name for n in CLIMBERS} == {n: n for n in CLIMBERS}
    with pytest.raises(ConfigError, match="'Pop' does not learn from sessions"):
        make_learner("Pop", SHORT)
    with pytest.raises(UnknownNameError, match="agent 'climbr'"):
        make_learner("climbr", SHORT)


@pytest.mark.parametrize("name", ["slateq", "REINFORCE", "Thompson"])
def test_learning_agents_are_learners(split: TimeSplit, name: str) -> None:
    learner = make_learner(name, SHORT, users=6, updates=2, evaluations=2)
    world = make_world(split, simulator=Likes(1))
    names = [(c.step, c.agent.name.casefold()) for c in learner.checkpoints(world, 0)]
    assert names == [(step, name.casefold()) for step in (0, 6, 12)]


def test_the_plot_marks_what_was_found_and_stands_alone(tmp_path: Path) -> None:
    found = analyse(curve(UP, HACKED), n_resamples=100)
    plot = curve_plot("mine", found)
    assert "hacked" in plot.svg
    assert "ground truth (never seen)" in plot.svg
    assert "Reward hacking" in plot.caption
    assert "var(--" in plot.svg
    alone = plot.standalone
    assert "var(--" not in alone
    honest = curve_plot("mine", analyse(curve(UP, UP), n_resamples=100))
    assert "hacked" not in honest.svg
    assert "not seen to part" in honest.caption
