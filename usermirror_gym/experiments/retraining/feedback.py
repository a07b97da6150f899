"""Feedback for the interaction experiment: the same users, equal amounts, from several sources.

Time is cut twice.  Recommenders and simulated users know what was before T0; real feedback is from
between T0 and T1; what was new to a user from T1 on is the test, later than everything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd

from usermirror_gym.agents import Agent, Transition, make_agent
from usermirror_gym.agents.returns import SessionSettings
from usermirror_gym.agents.rollout import Clock, Episodes, roll_out
from usermirror_gym.data import TimeSplit, time_cut
from usermirror_gym.envs import World
from usermirror_gym.errors import ConfigError, DataError
from usermirror_gym.types import ITEM_ID, RATING, TIMESTAMP, USER_ID, IntArray, Observation

ARMS = ("nothing", "simulated", "listed", "random", "popular", "real")
"""Where feedback comes from: nowhere; what the simulated user chose; items of the same lists, drawn
evenly; items of the catalogue, drawn evenly; the most popular ones; what the user did next."""

Items = dict[int, list[int]]
"""Item ids by user id, oldest first."""
Feedback = dict[str, Items]
"""By arm; every arm but ``nothing`` has the same users and the same number of items of each."""


@dataclass(frozen=True)
class Timeline:
    """Who is in the experiment.

    Attributes:
        split: cut at T0.
        t1: seconds; the test begins.
        real: what each user took for the first time between T0 and T1.
        later: what each user took for the first time from T1 on; users without any are absent.
    """

    split: TimeSplit
    t1: int
    real: Items
    later: Items

    @classmethod
    def of(cls, split: TimeSplit, until: float, min_history: int) -> Self:
        """Cut a split once more.

        Args:
            until: share of all interactions that are before T1.
            min_history: users with fewer interactions before T0 are left out.

        Raises:
            ConfigError: T1 is not behind T0.
            DataError: no user has all that is needed.
        """
        t1 = time_cut(split.dataset, until).t0
        if t1 <= split.t0:
            raise ConfigError(f"until = {until} gives no time behind T0; choose a larger share")
        known = set(split.users_with_history(min_history).tolist())
        real: Items = {}
        later: Items = {}
        events = split.after[[USER_ID, ITEM_ID, TIMESTAMP]].drop_duplicates([USER_ID, ITEM_ID])
        for user, item, moment in events.itertuples(index=False, name=None):
            if user in known and item not in split.histories[user].items:
                (real if moment < t1 else later).setdefault(user, []).append(item)
        if not set(real) & set(later):
            raise DataError(
                f"nobody in {split.dataset.name!r} has {min_history} interactions before T0, and "
                "new items both between T0 and T1 and after; move the cuts"
            )
        return cls(split, t1, real, later)

    @property
    def users(self) -> IntArray:
        """Ids, ascending, of those who get feedback: who have some real one."""
        return np.array(sorted(self.real), np.int64)

    def with_feedback(self, feedback: Mapping[int, Sequence[int]]) -> TimeSplit:
        """What was before T0 and the feedback behind it, all before T1.

        Feedback has no rating in any arm: of one of them it would be made up.
        """
        split = self.split
        rows = [
            (user, item, min(split.t0 + number, self.t1 - 1), np.nan)
            for user, items in feedback.items()
            for number, item in enumerate(items)
        ]
        columns = [USER_ID, ITEM_ID, TIMESTAMP, RATING]
        more = pd.DataFrame(rows, columns=columns).astype(split.before[columns].dtypes)
        events = pd.concat([split.before[columns], more]).sort_values(TIMESTAMP, kind="stable")
        dataset = replace(
            split.dataset, interactions=events.reset_index(drop=True), impressions=None
        )
        return TimeSplit(dataset, self.t1)

    def tests(self, feedback: Feedback) -> dict[int, IntArray]:
        """New items from T1 on by user, without those that any arm has been given for that user.

        An arm would be shown the answer, or keep an item from being recommended that the others
        may recommend.
        """
        given = _given(feedback)
        left = {
            user: [item for item in self.later.get(user, []) if item not in given[user]]
            for user in sorted(given)
        }
        return {user: np.array(items, np.int64) for user, items in left.items() if items}

    def blocked(self, feedback: Feedback, users: Sequence[int]) -> np.ndarray:
        """``(U, n_items + 1)`` true for what nobody may recommend in any arm: what a user had
        before T1, and what any arm was given for that user."""
        mask = np.zeros((len(users), self.split.dataset.n_items + 1), np.bool_)
        mask[:, 0] = True
        given = _given(feedback)
        for row, user in enumerate(users):
            mask[row, self.split.histories[user].items] = True
            mask[row, self.real[user]] = True
            mask[row, list(given[user])] = True
        return mask


class Mixture:
    """Lists whose places go to several agents in turn; what is there already is passed over."""

    def __init__(self, agents: Sequence[Agent]) -> None:
        self.agents = tuple(agents)
        self.name = " + ".join(agent.name for agent in agents)

    def fit(self, data: TimeSplit) -> Self:
        """Fits all of them."""
        for agent in self.agents:
            agent.fit(data)
        return self

    def observe(self, transition: Transition) -> None:
        """Nothing is learned."""

    def recommend(self, observations: Observation, k: int) -> IntArray:
        """See :class:`usermirror_gym.agents.Agent`."""
        lists = np.stack([agent.recommend(observations, k) for agent in self.agents], axis=2)
        rows = lists.reshape(len(lists), -1).tolist()
        return np.array([list(dict.fromkeys(row))[:k] for row in rows], np.int64).reshape(-1, k)


def draw_feedback(
    timeline: Timeline, world: World, logging_policy: Agent, *, amount: int, lists: int,
    slate_size: int, seed: int,
) -> Feedback:  # fmt: skip
    """Let the simulated users choose, and give every control as much as they chose.

    A user's amount is the smallest of ``amount``, what was chosen, and what is known of the user's
    real next interactions; users without any of these are left out of all arms.

    Args:
        world: whose simulator chooses; cut at the timeline's T0.
        logging_policy: a fitted agent that makes the lists.
        lists: shown to each user, at most.
        seed: of the choices and of the drawn controls.
    """
    rng = np.random.default_rng([seed, 1])
    users = timeline.users
    candidates = np.flatnonzero(timeline.split.popularity)
    order = candidates[np.argsort(-timeline.split.popularity[candidates], kind="stable")]
    feedback: Feedback = {arm: {} for arm in ARMS}
    for user, shown in _sessions(world, logging_policy, users, lists, slate_size, seed).items():
        had = timeline.split.histories[user].items
        chosen = [item for item in dict.fromkeys(item for _, item in shown) if item not in had]
        real = timeline.real[user][:amount]
        count = min(len(real), len(chosen))
        if not count:
            continue
        seen = dict.fromkeys(i for slate, item in shown if item in chosen[:count] for i in slate)
        listed = np.setdiff1d(list(seen), had)
        new = np.setdiff1d(candidates, had)
        feedback["simulated"][user] = chosen[:count]
        feedback["listed"][user] = rng.choice(listed, count, replace=False).tolist()
        feedback["random"][user] = rng.choice(new, count, replace=False).tolist()
        feedback["popular"][user] = order[~np.isin(order, had)][:count].tolist()
        feedback["real"][user] = real[:count]
    return feedback


def make_logging_policy(kind: str, agent: Agent, split: TimeSplit, seed: int) -> Agent:
    """Who makes the lists: the recommender itself (``"model"``), or in turn it, popularity and
    chance (``"mixture"``)."""
    if kind == "model":
        return agent
    others = [make_agent(name, seed=seed).fit(split) for name in ("Pop", "Random")]
    return Mixture([agent, *others])


def taken_later(timeline: Timeline, items: Items) -> tuple[int, int]:
    """How many of the items given for users these really took after T0, and of how many."""
    taken = [
        item in timeline.real[user] or item in timeline.later.get(user, [])
        for user, own in items.items()
        for item in own
    ]
    return sum(taken), len(taken)


def _sessions(
    world: World, logging_policy: Agent, users: IntArray, lists: int, slate_size: int, seed: int
) -> dict[int, list[tuple[list[int], int]]]:
    """By user, the lists with a choice and the chosen item, in order."""
    env = SessionSettings(lists, slate_size, "stay").env(world, len(users))
    seeds = np.random.default_rng([seed, 0]).integers(2**31, size=len(users))
    log = roll_out(env, logging_policy, Episodes(np.arange(len(users)), users, seeds), Clock())
    shown: dict[int, list[tuple[list[int], int]]] = {user: [] for user in users.tolist()}
    for row in log:
        if row["item"]:
            shown[row["user_id"]].append((row["slate"], row["item"]))
    return shown


def _given(feedback: Feedback) -> dict[int, set[int]]:
    """All that any arm was given, by user."""
    return {
        user: {item for items in feedback.values() for item in items.get(user, [])}
        for user in feedback["real"]
    }
