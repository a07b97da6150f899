"""Adversarial agents do what they say, and the judgement names who is fooled."""

from __future__ import annotations

import numpy as np
import pytest

from usermirror_gym.agents import PopAgent
from usermirror_gym.agents.base import Agent
from usermirror_gym.agents.observations import observations_from_split
from usermirror_gym.agents.returns import SessionSettings, play
from usermirror_gym.agents.rollout import plan_episodes
from usermirror_gym.data import TimeSplit
from usermirror_gym.envs import make_world
from usermirror_gym.errors import AgentError, ConfigError
from usermirror_gym.experiments.transfer.adversaries import (
    AllBadAgent,
    MixtureAgent,
    MostClickedAgent,
    RepeatAgent,
    adversarial_agents,
    adversary_rows,
)
from usermirror_gym.experiments.transfer.ground_truth import LatentFactorUser, TruthSettings
from usermirror_gym.scenes import SceneBatch
from usermirror_gym.simulators import PopularityChooser
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.testing.data import tiny_split

K = 4


@pytest.fixture(scope="module")
def split() -> TimeSplit:
    return tiny_split()


@pytest.fixture(scope="module")
def seen(split: TimeSplit):
    return observations_from_split(split, split.seen_users)


class LikesRepeats:
    """Takes what it has had, nine times of ten; else nothing."""

    name = "likes repeats"

    def choose(self, scenes):
        batch = SceneBatch.of(scenes)
        again = (batch.slates[:, :, None] == batch.history[:, None, :]).any(axis=2)
        again &= batch.slates > 0
        probs = np.zeros((len(batch), batch.slate_size + 1))
        probs[:, :-1] = 0.9 * again / np.maximum(again.sum(axis=1, keepdims=True), 1)
        probs[:, -1] = 1 - probs[:, :-1].sum(axis=1)
        return ChoiceBatch(probs)


def test_repeats_are_the_newest_choices_first(split: TimeSplit, seen) -> None:
    lists = RepeatAgent().fit(split).recommend(seen, K)
    for row, user in enumerate(split.seen_users.tolist()):
        assert lists[row].tolist() == split.histories[user].items[::-1][:K].tolist()
    one = RepeatAgent(1, PopAgent()).fit(split)
    lists, base = one.recommend(seen, K), PopAgent().fit(split).recommend(seen, K)
    assert one.name == "Pop+repeat1"
    for row, user in enumerate(split.seen_users.tolist()):
        assert lists[row, 0] == split.histories[user].items[-1]
        assert lists[row, 1:].tolist() == base[row, : K - 1].tolist()


def test_repeats_for_a_user_without_history_are_the_base_policy(split: TimeSplit) -> None:
    newcomer = next(u for u in range(1, 31) if u not in split.histories)
    new = observations_from_split(split, np.array([newcomer]))
    base = PopAgent().fit(split).recommend(new, K)
    assert (RepeatAgent().fit(split).recommend(new, K) == base).all()


def test_all_bad_shows_what_nobody_took(split: TimeSplit, seen) -> None:
    bad, good = (a.fit(split).recommend(seen, K) for a in (AllBadAgent(), PopAgent()))
    assert split.popularity[bad].mean() < split.popularity[good].mean() / 2


def test_most_clicked_finds_what_the_simulator_takes(split: TimeSplit, seen) -> None:
    agent = MostClickedAgent(PopularityChooser(split)).fit(split)
    lists = agent.recommend(seen, K)
    shown, mean = split.popularity[lists].mean(), split.popularity[1:].mean()
    assert shown > 1.5 * mean
    again = MostClickedAgent(PopularityChooser(split)).fit(split).recommend(seen, K)
    assert (lists == again).all()


def test_a_mixture_is_random_as_often_as_it_says(split: TimeSplit) -> None:
    base = PopAgent().fit(split)
    many = observations_from_split(split, np.tile(split.seen_users, 40))
    many["turns"] = np.arange(len(many["user_id"]))[:, None]
    same = base.recommend(many, K)
    for epsilon, wanted in ((0.0, 0.0), (0.3, 0.3), (1.0, 1.0)):
        mixed = MixtureAgent(base, epsilon).fitted(split).recommend(many, K)
        share = (mixed != same).any(axis=1).mean()
        assert share == pytest.approx(wanted, abs=0.05)
    assert MixtureAgent(base, 0.3).name == "Pop~0.3"


@pytest.mark.parametrize("make", [
    RepeatAgent, AllBadAgent, lambda: MixtureAgent(PopAgent(), 0.5), lambda: RepeatAgent(1),
])  # fmt: skip
def test_rows_do_not_depend_on_each_other_and_lists_are_valid(split, seen, make) -> None:
    agent = make().fit(split)
    assert isinstance(agent, Agent)
    lists = agent.recommend(seen, K)
    assert lists.shape == (len(seen["user_id"]), K)
    assert all(len(set(row)) == K for row in lists.tolist())
    assert lists.min() >= 1
    for row in (0, 5):
        alone = {name: values[row : row + 1] for name, values in seen.items()}
        assert (agent.recommend(alone, K)[0] == lists[row]).all()
    with pytest.raises(AgentError):
        make().recommend(seen, K)
    with pytest.raises(AgentError, match="k = 41"):
        agent.recommend(seen, 41)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"epsilon .* got 1\.5"):
        MixtureAgent(PopAgent(), 1.5)
    with pytest.raises(ConfigError, match=r"copies .* got 0"):
        RepeatAgent(0)


def test_a_user_who_likes_repeats_is_found_out(split: TimeSplit) -> None:
    user = LatentFactorUser.fit(split.dataset, TruthSettings(factors=4, iterations=30))
    worlds = [make_world(split, simulator=s) for s in (LikesRepeats(), user.knowing(split))]
    plan, settings = plan_episodes(worlds[0].users, 40, 0), SessionSettings(steps=5, slate_size=K)
    base = PopAgent().fit(split)
    agents = [base, *adversarial_agents(worlds[0].simulator, base, split)]
    played = [{a.name: play(w, a, plan, settings) for a in agents} for w in worlds]
    rows = {r["name"]: r for r in adversary_rows(*played, "Pop", plan.user_ids, n_resamples=300)}
    assert set(rows) == {"Repeat", "Pop+repeat1", "MostClicked", "AllBad", "Oracle"}
    repeat = rows["Repeat"]
    assert repeat["overpaid"]
    assert repeat["exploited"]
    assert repeat["simulated"]["mean"] > 4  # of five lists
    assert repeat["true"]["mean"] == 0  # nobody takes a film twice
    assert repeat["true_gain"]["high"] < 0
    assert not rows["AllBad"]["exploited"]
    # The same user in both worlds is fooled by nothing.
    honest = adversary_rows(played[1], played[1], "Pop", plan.user_ids, n_resamples=100)
    assert not any(row["overpaid"] or row["exploited"] for row in honest)
