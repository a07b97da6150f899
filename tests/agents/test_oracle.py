"""The oracle finds what its simulator likes, in one list or in several."""

from __future__ import annotations

import numpy as np
import pytest

from usermirror_gym.agents import OracleAgent, RandomAgent, make_agent, observations_from_split
from usermirror_gym.errors import ConfigError
from usermirror_gym.scenes import SceneBatch
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.testing.agents import AgentContract
from usermirror_gym.testing.data import tiny_split


class Logit:
    """A conditional logit whose utility grows with the item id; remembers what it was asked."""

    name = "logit"

    def __init__(self, outside: float = 0.0) -> None:
        self.outside = outside
        self.asked: list[SceneBatch] = []

    def choose(self, scenes):
        batch = SceneBatch.of(scenes)
        self.asked.append(batch)
        weights = np.where(batch.slates > 0, np.exp(batch.slates / 20.0), 0.0)
        weights = np.c_[weights, np.full(len(batch), np.exp(self.outside))]
        if np.isneginf(self.outside):
            weights[:, -1] = 0.0
        return ChoiceBatch(weights / weights.sum(axis=1, keepdims=True))


class TestOracleAgent(AgentContract):
    def make_agent(self):
        return OracleAgent(Logit(), candidates=20)


class TestOracleInLists(AgentContract):
    def make_agent(self):
        return OracleAgent(Logit(), candidates=20, list_size=6)


@pytest.fixture(scope="module")
def split():
    return tiny_split()


@pytest.fixture
def seen(split):
    return observations_from_split(split, np.arange(1, 31), history_size=12, slate_size=5)


def test_shows_the_most_probable_candidates_first(split, seen):
    agent = OracleAgent(Logit(), candidates=15).fit(split)
    candidates = agent.source.recommend(seen, 15)
    np.testing.assert_array_equal(
        agent.recommend(seen, 4), np.sort(candidates, axis=1)[:, ::-1][:, :4]
    )


@pytest.mark.parametrize("outside", [0.0, 8.0])
@pytest.mark.parametrize("list_size", [1, 4, 7, 26])
def test_lists_do_not_change_the_answer_of_a_logit(split, seen, list_size, outside):
    whole = OracleAgent(Logit(outside), candidates=15).fit(split).recommend(seen, 5)
    simulator = Logit(outside)
    parts = OracleAgent(simulator, candidates=15, list_size=list_size).fit(split)
    np.testing.assert_array_equal(parts.recommend(seen, 5), whole)
    assert len(simulator.asked) == 1
    assert simulator.asked[0].slate_size <= list_size


def test_forced_choice_in_one_list(split, seen):
    forced = OracleAgent(Logit(-np.inf), candidates=15).fit(split).recommend(seen, 5)
    np.testing.assert_array_equal(
        forced, OracleAgent(Logit(), candidates=15).fit(split).recommend(seen, 5)
    )


def test_scenes_hold_the_observed_memory(split, seen):
    simulator = Logit()
    OracleAgent(simulator, candidates=8, list_size=3).fit(split).recommend(seen, 3)
    scenes = simulator.asked[0]
    user = 7
    mine = [s for s in scenes if s.user_id == user]
    n = int(seen["history_length"][user - 1])
    assert len(mine) == 3
    assert sorted(i for s in mine for i in s.slate) == sorted(
        make_agent("Pop").fit(split).recommend(seen, 8)[user - 1].tolist()
    )
    for scene in mine:
        assert list(scene.history) == seen["history_items"][user - 1, :n].tolist()
        assert scene.ages == (0,) * n
        assert scene.turns == ()


def test_candidates_come_from_the_source(split, seen):
    agent = OracleAgent(Logit(), candidates=5, source=RandomAgent(4)).fit(split)
    source = RandomAgent(4).fit(split).recommend(seen, 5)
    np.testing.assert_array_equal(np.sort(agent.recommend(seen, 5)), np.sort(source))


def test_asks_for_more_candidates_when_the_slate_is_longer(split, seen):
    assert OracleAgent(Logit(), candidates=3).fit(split).recommend(seen, 6).shape == (30, 6)


@pytest.mark.parametrize("option", [{"candidates": 0}, {"list_size": 0}])
def test_bad_sizes_are_named(option):
    with pytest.raises(ConfigError, match=next(iter(option))):
        OracleAgent(Logit(), **option)
