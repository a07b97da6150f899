"""What is counted of sessions that are played."""

from __future__ import annotations

import numpy as np
import pytest

from usermirror_gym.agents import PopAgent
from usermirror_gym.agents.returns import SHOWN_BEFORE, SessionSettings, play
from usermirror_gym.agents.rollout import plan_episodes
from usermirror_gym.envs import make_world
from usermirror_gym.scenes.scene import SceneBatch
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.testing.data import tiny_split


class Refuser:
    """Takes nothing as a rule, and the item in the n-th place with n per cent."""

    name = "refuser"

    def choose(self, scenes):
        batch = SceneBatch.of(scenes)
        items = np.tile(np.arange(1, batch.slate_size + 1) / 100, (len(batch), 1))
        return ChoiceBatch(np.column_stack([items, 1 - items.sum(axis=1)]))


class Fixed(PopAgent):
    """Shows these lists, one after another."""

    name = "Fixed"
    lists = ((1, 2), (2, 3), (1, 2), (3, 4))

    def recommend(self, observations, k):
        turns = observations["turns"][:, 0].astype(int)
        return np.array(self.lists)[np.minimum(turns, 3)]


def test_takes_by_list_and_by_times_shown_before() -> None:
    split = tiny_split(n_users=30, n_items=60)
    world = make_world(split, simulator=Refuser())
    plan = plan_episodes(world.users, 200, 0)
    played = play(world, Fixed().fit(split), plan, SessionSettings(4, 2, 3, "click"))
    there = np.arange(4) < played.lists[:, None]
    assert (np.isfinite(played.takes) == there).all()
    assert not there.all()  # somebody leaves after three lists without a take
    assert played.takes[there] == pytest.approx(0.03)
    assert played.expected == pytest.approx(0.03 * played.lists)
    assert played.first == pytest.approx(0.03)
    assert played.item_lists.shape == (200, SHOWN_BEFORE)
    # List by list: 1 2 new; 2 again, 3 new; 1 again and 2 a third time; 3 again and 4 new.
    new, again, third = [0.01 + 0.02 + 0.02, 0.01 + 0.01, 0.02]
    short, long = played.lists == 3, played.lists == 4
    assert short.any()
    assert long.any()
    assert played.item_lists[short].tolist() == [[3, 2, 1, 0, 0, 0]] * short.sum()
    assert played.item_takes[short, :3] == pytest.approx(
        np.tile([new, again, third], (short.sum(), 1))
    )
    assert played.item_lists[long].tolist() == [[4, 3, 1, 0, 0, 0]] * long.sum()
    assert played.item_takes[long, :2] == pytest.approx(
        np.tile([new + 0.02, again + 0.01], (long.sum(), 1))
    )
    assert (played.item_takes[:, 3:] == 0).all()
