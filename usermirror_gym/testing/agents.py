"""Contract tests that every agent should inherit.

In a test module::

    from usermirror_gym.testing.agents import AgentContract

    class TestMyAgent(AgentContract):
        def make_agent(self):
            return MyAgent()

pytest collects the inherited tests.  Override :meth:`AgentContract.make_split` for other data.
"""

from __future__ import annotations

import numpy as np
import pytest

from usermirror_gym.agents.base import Agent, Transition
from usermirror_gym.agents.observations import observations_from_split
from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import AgentError
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.types import IntArray, Observation

K = 5
HISTORY = 12


_splits: dict[type, TimeSplit] = {}
_agents: dict[type, Agent] = {}


class AgentContract:
    """What :class:`usermirror_gym.agents.Agent` promises, as tests; override :meth:`make_agent`."""

    def make_agent(self) -> Agent:
        """A new agent, not fitted; equal calls give equal agents."""
        raise NotImplementedError("override make_agent() to return an unfitted agent")

    def make_split(self) -> TimeSplit:
        """Data with at least 20 items and some users that appear only after T0."""
        return tiny_split()

    @pytest.fixture
    def split(self) -> TimeSplit:
        """The data, built once per class."""
        if type(self) not in _splits:
            _splits[type(self)] = self.make_split()
        return _splits[type(self)]

    @pytest.fixture
    def agent(self, split: TimeSplit) -> Agent:
        """One fitted agent for all tests of a class; they may only call ``recommend``."""
        if type(self) not in _agents:
            _agents[type(self)] = self.make_agent().fit(split)
        return _agents[type(self)]

    def test_is_an_agent_with_a_name(self) -> None:
        agent = self.make_agent()
        assert isinstance(agent, Agent)
        assert isinstance(agent.name, str)
        assert agent.name

    @pytest.mark.parametrize("k", [1, K])
    def test_slates_are_distinct_items_of_the_catalog(
        self, agent: Agent, split: TimeSplit, k: int
    ) -> None:
        slates = agent.recommend(_observe(split, _everybody(split)), k)
        assert slates.shape == (split.dataset.n_users, k)
        assert np.issubdtype(slates.dtype, np.integer)
        assert slates.min() >= 1
        assert slates.max() <= split.dataset.n_items
        assert all(len(set(row)) == k for row in slates.tolist())

    def test_a_row_does_not_depend_on_the_others(self, agent: Agent, split: TimeSplit) -> None:
        users = _everybody(split)
        together = agent.recommend(_observe(split, users), K)
        backwards = agent.recommend(_observe(split, users[::-1]), K)[::-1]
        alone = [agent.recommend(_observe(split, users[i : i + 1]), K)[0] for i in range(0, 30, 7)]
        np.testing.assert_array_equal(together, backwards)
        np.testing.assert_array_equal(together[0:30:7], alone)

    def test_asking_twice_gives_the_same(self, agent: Agent, split: TimeSplit) -> None:
        observations = _observe(split, _everybody(split))
        first = agent.recommend(observations, K)
        np.testing.assert_array_equal(agent.recommend(observations, K), first)

    def test_two_fits_give_the_same(self, agent: Agent, split: TimeSplit) -> None:
        observations = _observe(split, _everybody(split))
        again = self.make_agent().fit(split)
        np.testing.assert_array_equal(
            again.recommend(observations, K), agent.recommend(observations, K)
        )

    def test_observations_are_left_alone(self, agent: Agent, split: TimeSplit) -> None:
        observations = _observe(split, _everybody(split))
        copies = {key: value.copy() for key, value in observations.items()}
        agent.recommend(observations, K)
        for key, value in copies.items():
            np.testing.assert_array_equal(observations[key], value, err_msg=key)

    def test_not_fitted_is_an_error_that_says_so(self, split: TimeSplit) -> None:
        with pytest.raises(AgentError, match=r"not fitted.*fit"):
            self.make_agent().recommend(_observe(split, _everybody(split)), K)

    @pytest.mark.parametrize("excess", [1, 1000])
    def test_too_many_items_is_an_error(self, agent: Agent, split: TimeSplit, excess: int) -> None:
        k = split.dataset.n_items + excess
        with pytest.raises(AgentError, match=str(k)):
            agent.recommend(_observe(split, _everybody(split)), k)

    def test_an_empty_history_gets_a_slate(self, agent: Agent, split: TimeSplit) -> None:
        late = np.setdiff1d(_everybody(split), split.users_with_history(1))
        assert len(late), "make_split() must have users that appear only after T0"
        slates = agent.recommend(_observe(split, late), K)
        assert all(len(set(row)) == K for row in slates.tolist())

    def test_a_user_unseen_in_training_with_a_history(self, agent: Agent, split: TimeSplit) -> None:
        late = np.setdiff1d(_everybody(split), split.users_with_history(1))
        observations = _observe(split, late)
        observations["history_items"][:, :3] = [1, 2, 3]
        observations["history_ratings"][:, :3] = 4.0
        observations["history_length"][:] = 3
        slates = agent.recommend(observations, K)
        assert slates.shape == (len(late), K)
        assert not np.isin(slates, [1, 2, 3]).any()

    def test_what_was_chosen_is_not_shown_again(self, agent: Agent, split: TimeSplit) -> None:
        users = _everybody(split)
        observations = _observe(split, users)
        first = agent.recommend(observations, K)
        grown = grow(observations, first[:, 0])
        second = agent.recommend(grown, K)
        assert not (second == first[:, :1]).any()

    def test_what_was_seen_before_the_cut_is_not_shown(
        self, agent: Agent, split: TimeSplit
    ) -> None:
        users = split.users_with_history(1)
        slates = agent.recommend(_observe(split, users), K)
        for user, slate in zip(users.tolist(), slates, strict=True):
            assert not np.isin(slate, split.histories[user].items).any()

    def test_fit_returns_the_agent_which_takes_transitions(self, split: TimeSplit) -> None:
        agent = self.make_agent()
        assert agent.fit(split) is agent
        users = _everybody(split)
        observations = _observe(split, users)
        slates = agent.recommend(observations, K)
        n = len(users)
        agent.observe(
            Transition(
                observations=observations,
                slates=slates,
                choices=np.zeros(n, np.int64),
                rewards=np.ones(n),
                next_observations=grow(observations, slates[:, 0]),
                terminated=np.zeros(n, bool),
                truncated=np.zeros(n, bool),
            )
        )
        assert agent.recommend(observations, K).shape == (n, K)


def grow(observations: Observation, items: IntArray) -> Observation:
    """Observations after every user chose one item: it joins the history, turns go up by one.

    A full history drops its oldest item.
    """
    grown = {key: value.copy() for key, value in observations.items()}
    width = grown["history_items"].shape[1]
    for row, item in enumerate(items):
        length = int(grown["history_length"][row])
        if length == width:
            for key in ("history_items", "history_ratings"):
                grown[key][row, :-1] = grown[key][row, 1:]
            length -= 1
        grown["history_items"][row, length] = item
        grown["history_ratings"][row, length] = 4.0
        grown["history_length"][row] = length + 1
    grown["turns"] = grown["turns"] + 1
    return grown


def _everybody(split: TimeSplit) -> IntArray:
    return np.arange(1, split.dataset.n_users + 1)


def _observe(split: TimeSplit, users: IntArray) -> Observation:
    return observations_from_split(split, users, history_size=HISTORY, slate_size=K)
