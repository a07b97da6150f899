"""The world behind the environments: whose sessions are simulated, from what, by whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np

from usermirror_gym.configs.session import DEFAULT_SIMULATOR, MIN_HISTORY
from usermirror_gym.data import Memory, RecDataset, TimeSplit, load_dataset, time_cut
from usermirror_gym.errors import ConfigError
from usermirror_gym.scenes.words.template import DomainText, domain_text
from usermirror_gym.simulators.base import UserSimulator, fingerprint, history_lines
from usermirror_gym.simulators.ratings import BiasRatings, RatingModel
from usermirror_gym.simulators.registry import make_simulator
from usermirror_gym.types import IntArray


@dataclass(frozen=True)
class World:
    """Everything that all rows of an environment share.

    Attributes:
        split: the data set and its T0; sessions start at T0 from the real history.
        simulator: plays the users.
        users: ids of the users whose sessions may be started.
        history_size: H, how many past items an observation holds at most, and a scene unless the
            simulator reads more (``history_lines``).
        ratings: draws the rating of a chosen item.
    """

    split: TimeSplit
    simulator: UserSimulator
    users: IntArray
    history_size: int
    ratings: RatingModel

    @cached_property
    def memory(self) -> Memory:
        """Memory at T0 of every user, row = user id (row 0 is empty)."""
        return self.split.memory(np.arange(self.split.dataset.n_users + 1), self.history_size)

    @cached_property
    def known_ratings(self) -> np.ndarray:
        """``memory.ratings`` with 0 where the log has none: what agents observe."""
        return np.nan_to_num(self.memory.ratings)

    def remembered(self, users: IntArray) -> Callable[[str], np.ndarray]:
        """Columns of the memory at T0 of these users, by name, as scenes hold it: a simulator may
        read more of it than observations show."""
        lines = history_lines(self.simulator)
        if not self.shows_whole:
            return lambda name: getattr(self.memory, name)[users]

        @cache
        def wide() -> Memory:
            known = (self.split.histories.get(user) for user in users.tolist())
            longest = max((len(history) for history in known if history is not None), default=1)
            return self.split.memory(users, min(lines, longest))

        return lambda name: getattr(wide(), name)

    @cached_property
    def shows_whole(self) -> bool:
        """Whether scenes hold more of the memory than observations show: all that the simulator
        reads."""
        return history_lines(self.simulator) > self.history_size

    @property
    def inputs(self) -> dict[str, str]:
        """What tells the data and the simulator from others: see ``run_folder.run_folder``."""
        data = self.split.dataset
        return {
            "data": f"{data.name} {data.digest} cut at {self.split.t0}",
            "simulator": fingerprint(self.simulator),
        }

    @cached_property
    def text(self) -> DomainText:
        return domain_text(self.split.dataset)


def make_world(
    dataset: str | RecDataset | TimeSplit = "ml-100k",
    *,
    data_folder: str | Path | None = None,
    simulator: str | UserSimulator = DEFAULT_SIMULATOR,
    simulator_options: dict | None = None,
    history_size: int = 50,
    min_history: int = MIN_HISTORY,
    users: IntArray | list[int] | None = None,
    ratings: RatingModel | None = None,
) -> World:
    """Put a world together from names or from objects.

    Args:
        dataset: a name, a data set (cut at 80 % of its events), or a split.
        data_folder: where the raw files are, for data sets that need it.
        simulator: a preset (see :func:`usermirror_gym.simulators.available_simulators`), the name
            or folder of a checkpoint, or any object with ``choose``.
        simulator_options: keyword arguments that override the preset's.
        history_size: H of the observation.
        min_history: users with fewer interactions before T0 start no session.
        users: the ids that may start sessions, instead of ``min_history``.
        ratings: how chosen items are rated; by default :class:`BiasRatings`.

    Raises:
        ConfigError: no user is left, an id does not exist, or ``history_size`` < 1.
    """
    if history_size < 1:
        raise ConfigError(f"history_size must be at least 1, got {history_size}")
    split = _split(dataset, data_folder)
    if isinstance(simulator, str):
        simulator = make_simulator(simulator, split, **(simulator_options or {}))
    return World(
        split=split,
        simulator=simulator,
        users=_users(split, users, min_history),
        history_size=history_size,
        ratings=ratings or BiasRatings(split),
    )


def _split(dataset: str | RecDataset | TimeSplit, folder: str | Path | None) -> TimeSplit:
    if isinstance(dataset, TimeSplit):
        return dataset
    if isinstance(dataset, RecDataset):
        return time_cut(dataset)
    return _load_split(dataset, None if folder is None else str(folder))


@lru_cache(maxsize=4)
def _load_split(name: str, folder: str | None) -> TimeSplit:
    return time_cut(load_dataset(name, folder))


def _users(split: TimeSplit, users: IntArray | list[int] | None, min_history: int) -> IntArray:
    if users is None:
        ids = split.users_with_history(min_history)
        if not len(ids):
            raise ConfigError(
                f"no user of {split.dataset.name!r} has {min_history} interactions before T0; "
                "lower min_history"
            )
        return ids
    if np.ndim(users) != 1 or not len(users):
        raise ConfigError(
            f"users must be a non-empty list of user ids, got shape {np.shape(users)}"
        )
    return check_users(users, split.dataset.n_users)


def check_users(ids: object, n_users: int) -> IntArray:
    """User ids as an array.

    Raises:
        ConfigError: one is no integer, or outside 1..n_users.
    """
    array = np.asarray(ids)
    if array.dtype.kind not in "iu":
        raise ConfigError(f"user ids are integers in 1..{n_users}, got {ids!r}")
    bad = array[(array < 1) | (array > n_users)]
    if len(bad):
        raise ConfigError(f"user id {bad[0]} is not in 1..{n_users}")
    return array.astype(np.int64)
