"""Random and Pop keep the contract, and do what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from usermirror_gym.agents import PopAgent, RandomAgent, observations_from_split
from usermirror_gym.agents.ranking import SeenItems, top_k
from usermirror_gym.testing.agents import AgentContract, grow
from usermirror_gym.testing.data import tiny_split


class TestRandomAgent(AgentContract):
    def make_agent(self):
        return RandomAgent(seed=3)


class TestPopAgent(AgentContract):
    def make_agent(self):
        return PopAgent()


@pytest.fixture(scope="module")
def split():
    return tiny_split()


def _observe(split, users):
    return observations_from_split(split, np.array(users), history_size=12, slate_size=5)


def test_random_changes_with_seed_turn_and_user(split):
    seen = _observe(split, [1, 2])
    agent = RandomAgent(0).fit(split)
    slates = agent.recommend(seen, 5)
    later = agent.recommend({**seen, "turns": seen["turns"] + 1}, 5)
    other = RandomAgent(1).fit(split).recommend(seen, 5)
    assert slates[0].tolist() != slates[1].tolist()
    assert slates.tolist() != later.tolist()
    assert slates.tolist() != other.tolist()


def test_random_is_uniform_over_unseen_items(split):
    late = 10  # nothing before T0
    seen = _observe(split, [late] * 4000)
    seen["turns"] = np.arange(4000)
    slates = RandomAgent(0).fit(split).recommend(seen, 5)
    counts = np.bincount(slates.ravel(), minlength=41)[1:]
    expected = 4000 * 5 / 40
    # 5 standard deviations of a binomial count.
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    first = np.bincount(slates[:, 0], minlength=41)[1:]
    assert np.abs(first - 100).max() < 5 * np.sqrt(100)


def test_pop_shows_the_most_popular_first(split):
    slate = PopAgent().fit(split).recommend(_observe(split, [10]), 5)[0]
    assert split.popularity[slate].tolist() == np.sort(split.popularity)[::-1][:5].tolist()


def test_pop_does_not_look_past_the_cut(split):
    only_after = 40
    assert split.popularity[only_after] == 0
    whole = PopAgent().fit(split).recommend(_observe(split, [10]), 40)[0]
    assert whole[-1] == only_after


def test_items_older_than_the_observed_history_stay_hidden(split):
    user = int(split.users_with_history(8)[0])
    short = observations_from_split(split, np.array([user]), history_size=2, slate_size=5)
    slate = PopAgent().fit(split).recommend(short, 10)[0]
    assert not np.isin(slate, split.histories[user].items).any()


@pytest.mark.parametrize("agent", [RandomAgent(0), PopAgent()], ids=lambda a: a.name)
def test_when_everything_was_seen_slates_are_still_filled(agent, split):
    seen = observations_from_split(split, np.array([1]), history_size=40, slate_size=5)
    seen["history_items"][0] = np.arange(1, 41)
    seen["history_length"][0] = 38  # items 39 and 40 are not seen, unless before T0
    unseen = {39, 40} - set(split.histories[1].items.tolist())
    slate = agent.fit(split).recommend(seen, 5)[0].tolist()
    assert len(set(slate)) == 5
    assert set(slate[: len(unseen)]) == unseen


def test_garbage_behind_the_history_length_is_ignored(split):
    seen = _observe(split, [10])
    seen["history_items"][0, 0] = int(split.popularity.argmax())
    slate = PopAgent().fit(split).recommend(seen, 1)
    assert slate[0, 0] == split.popularity.argmax()


def test_a_user_id_outside_the_data_set_is_a_new_user(split):
    seen = _observe(split, [10, 10])
    seen["user_id"] = np.array([10_000, 0])
    slates = PopAgent().fit(split).recommend(seen, 5)
    assert slates[0].tolist() == slates[1].tolist()


def test_seen_rows_are_the_histories(split):
    seen = SeenItems.of(split)
    users = np.array([3, 10, 1])
    row, items = seen.rows(users)
    for i, user in enumerate(users.tolist()):
        expected = split.histories[user].items.tolist() if user in split.histories else []
        assert items[row == i].tolist() == expected


def test_top_k_sorts_and_prefers_unseen():
    scores = np.array([[9.0, 1.0, 5.0, 3.0, -np.inf]])
    seen = np.array([[True, False, True, False, False]])
    assert top_k(scores, seen, 2).tolist() == [[3, 1]]
    assert top_k(scores, seen, 3).tolist() == [[3, 1, 2]]


def test_grow_drops_the_oldest_when_full(split):
    seen = observations_from_split(split, np.array([1]), history_size=3, slate_size=5)
    grown = grow(seen, np.array([40]))
    assert grown["history_items"][0].tolist() == [*seen["history_items"][0, 1:].tolist(), 40]
    assert grown["history_length"][0] == 3
