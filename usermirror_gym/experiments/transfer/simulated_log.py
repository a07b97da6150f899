"""A log in which the users of a ground truth browse: what a simulator of them may learn from.

The log has the real items' texts and the real users' profiles, and no real choice: who took what,
when, and how they rated it is drawn from the truth, and the lists they took it from come from a
logging policy that knows nothing but this log up to that moment.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml

from usermirror_gym.configs.session import SLATE_SIZE, RunConfig
from usermirror_gym.configs.settings import Positive
from usermirror_gym.data import RecDataset
from usermirror_gym.data.dataset import Impressions
from usermirror_gym.envs.core import inverse_transform
from usermirror_gym.errors import ConfigError, DataError
from usermirror_gym.experiments.transfer.ground_truth import LatentFactorRatings, LatentFactorUser
from usermirror_gym.files import write_parquet, write_text
from usermirror_gym.types import (
    AVAILABLE_FROM,
    ITEM_ID,
    PAD,
    RATING,
    TIMESTAMP,
    TITLE,
    TOKEN,
    USER_ID,
    BoolArray,
    FloatArray,
    IntArray,
)

POLICIES = ("popular", "neighbours", "random")
"""What a list of the log may come from, in the order of ``LogSettings.shares``."""
MAPPING = "truth-log.yaml"
"""In the folder of a saved log: what ``load_dataset`` and a training's source are given."""
_IN = 0.85
"""Users arrive during this share of the log's time."""


@dataclass(frozen=True)
class LogSettings(RunConfig):
    """How the users browse."""

    ticks: Positive = 600
    """The clock: a user who is there sees one list a tick."""
    tick_seconds: Positive = 21_600
    lists: float = 200.0
    """Median number of lists of a user."""
    spread: float = 0.6
    """Standard deviation of its logarithm."""
    slate_size: Positive = SLATE_SIZE
    shares: tuple[float, float, float] = (0.4, 0.4, 0.2)
    """Of the lists, by :data:`POLICIES`: drawn in proportion to what was taken so far, to how often
    it was taken by those who took the user's newest choice, or alike."""
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.lists) and self.lists >= 1 and 0 <= self.spread < 5):
            raise ConfigError(
                f"lists must be at least 1 and spread between 0 and 5, got {self.lists!r} and "
                f"{self.spread!r}"
            )
        if len(self.shares) != len(POLICIES) or min(self.shares) < 0 or not sum(self.shares) > 0:
            raise ConfigError(
                f"shares must be {len(POLICIES)} numbers, 0 or more, one of them above 0 "
                f"({', '.join(POLICIES)}), got {self.shares!r}"
            )


def generate_log(
    dataset: RecDataset,
    user: LatentFactorUser,
    ratings: LatentFactorRatings,
    settings: LogSettings | None = None,
    *,
    progress: Callable[[int], None] = lambda ticks: None,
) -> RecDataset:
    """Let every user of a data set browse in the ground truth.

    Args:
        dataset: whose items and users; of its interactions only the first moment is used, which
            is when the log begins.
        user: the truth, fitted on it.
        ratings: how chosen items are rated.
        settings: of the browsing; the same settings give the same log.
        progress: told how many ticks passed since the last call.

    Returns:
        The same items and users, with the same ids; choices with ratings as interactions, and all
        lists, chosen from or not, as impressions.

    Raises:
        ConfigError: lists longer than the catalogue.
        DataError: nobody took anything.
    """
    settings = settings or LogSettings()
    if settings.slate_size >= dataset.n_items:
        raise ConfigError(
            f"slate_size is {settings.slate_size}, and {dataset.name!r} has {dataset.n_items} "
            "items: lists must be shorter than the catalogue"
        )
    browsing = _Browsing(dataset, user, settings)
    for tick in range(settings.ticks):
        browsing.step(tick)
        progress(1)
    return browsing.dataset(ratings)


def save_log(log: RecDataset, folder: str | Path) -> Path:
    """Write a log as tables of one's own (docs/custom-data.md); the path of its YAML file.

    ``load_dataset`` of that path gives the same items and users, with the same ids.
    """
    folder = Path(folder)
    # With the ids of the raw data instead of row numbers.
    events, names = log.interactions, {USER_ID: log.users[TOKEN], ITEM_ID: log.items[TOKEN]}
    raw = {
        "items": log.items.rename(columns={TOKEN: ITEM_ID}),
        "users": log.users.rename(columns={TOKEN: USER_ID}),
        "interactions": events.assign(**{key: events[key].map(own) for key, own in names.items()}),
    }
    if log.impressions is not None:
        raw["impressions"] = _shown(log)
    for table, frame in raw.items():
        columns = pa.Table.from_pandas(frame, preserve_index=False)
        write_parquet(folder / f"{table}.parquet", columns)
    text = yaml.safe_dump(_mapping(log, raw), sort_keys=False)
    return write_text(folder / MAPPING, text)  # last: the tables are whole


def log_of(log: RecDataset, users: BoolArray) -> RecDataset:
    """What some of the users did; everybody, and every item, keeps the id.

    Args:
        users: ``(n_users + 1,)`` whether a user stays in the log, by id.
    """
    events, shown = log.interactions, log.impressions
    kept = events[users[events[USER_ID].to_numpy()]].reset_index(drop=True)
    if shown is not None:
        rows = users[shown.user_ids]
        sizes = np.diff(shown.offsets)
        places = np.repeat(rows, sizes)
        shown = Impressions(
            shown.names[rows], shown.user_ids[rows], shown.timestamps[rows],
            np.concatenate([[0], sizes[rows].cumsum()]), shown.items[places],
            shown.clicked[places],
        )  # fmt: skip
    return replace(log, interactions=kept, impressions=shown)


class _Browsing:
    """The state of the world, tick by tick."""

    def __init__(self, dataset: RecDataset, user: LatentFactorUser, settings: LogSettings) -> None:
        self.data, self.user, self.settings = dataset, user, settings
        self.rng = np.random.default_rng(settings.seed)
        n, m = dataset.n_users + 1, dataset.n_items + 1
        self.first = int(dataset.interactions[TIMESTAMP].min())
        self.arrival = (self.rng.random(n) * settings.ticks * _IN).astype(np.int64)
        many = settings.lists * np.exp(settings.spread * self.rng.normal(size=n))
        self.leaves = self.arrival + np.maximum(1, many).astype(np.int64)
        self.had = np.zeros((n, m), np.bool_)
        self.newest = np.zeros((n, user.settings.memory), np.int64)
        self.counts = np.zeros(m)
        self.together = np.zeros((m, m), np.float32)  # how often both were taken by one user
        self.opens = self._opens()
        self.parts: list[tuple[IntArray, IntArray, IntArray, IntArray]] = []

    def step(self, tick: int) -> None:
        """Everybody who is there sees one list."""
        users = np.flatnonzero((self.arrival <= tick) & (tick < self.leaves))
        start = self.first + tick * self.settings.tick_seconds
        allowed = ~self.had[users] & (self.opens <= start)
        # Padding is nobody; whoever has had (nearly) everything stays away.
        goes_on = (users > PAD) & (allowed.sum(axis=1) >= self.settings.slate_size)
        users = users[goes_on]
        if not len(users):
            return
        slates = self._lists(users, allowed[goes_on])
        probs = self.user.probabilities(
            users, slates, self.newest[users], np.zeros(slates.shape, np.bool_)
        )
        choices = inverse_transform(probs.cumsum(axis=1), self.rng.random(len(users)))
        # One list a tick, at a second of its own: nobody's choices have the same time.
        times = start + (self.rng.random(len(users)) * self.settings.tick_seconds).astype(np.int64)
        self.parts.append((users, times, slates, choices))
        took = choices < slates.shape[1]
        self._remember(users[took], slates[took, choices[took]])

    def dataset(self, ratings: LatentFactorRatings) -> RecDataset:
        """All that happened, as a data set."""
        users, times, slates, choices = self._all()
        took = np.flatnonzero(choices < slates.shape[1])
        if not len(took):
            raise DataError(
                "nobody took anything from any list of the log: more ticks or lists are needed"
            )
        items = slates[took, choices[took]]
        user_names, item_names = (t[TOKEN].to_numpy() for t in (self.data.users, self.data.items))
        events = pd.DataFrame({
            USER_ID: user_names[users[took] - 1], ITEM_ID: item_names[items - 1],
            TIMESTAMP: times[took],
            RATING: ratings.sample(users[took], items, self.rng.random(len(took))),
        })  # fmt: skip
        shown = pd.DataFrame({
            USER_ID: user_names[users - 1], TIMESTAMP: times,
            "shown": list(item_names[slates - 1]),
            "clicked": list(choices[:, None] == np.arange(slates.shape[1])),
        })  # fmt: skip
        return RecDataset.from_tables(
            "truth-log", self.data.domain, users=self.data.users.rename(columns={TOKEN: USER_ID}),
            items=self.data.items.rename(columns={TOKEN: ITEM_ID}), interactions=events,
            impressions=shown, template=self.data.template,
        )  # fmt: skip

    def _all(self) -> list[np.ndarray]:
        if not self.parts:
            raise DataError("nobody saw a list: more ticks or lists are needed")
        return [np.concatenate(column) for column in zip(*self.parts, strict=True)]

    def _lists(self, users: IntArray, allowed: BoolArray) -> IntArray:
        """``(n, K)`` of what is allowed, drawn without replacement, the likeliest first."""
        shares = np.cumsum(self.settings.shares)
        policy = np.searchsorted(shares, self.rng.random(len(users)) * shares[-1], side="right")
        weights = np.zeros((len(users), len(self.counts)))
        weights[policy == 0] = np.log1p(self.counts)
        near = policy == 1
        # Over the root of the counts, as a cosine: else all neighbours were the popular.
        together = self.together[self.newest[users[near], 0]]
        weights[near] = np.log1p(4.0 * together / np.sqrt(1.0 + self.counts))
        # The largest of logarithm + Gumbel noise are a draw without replacement.
        scores = weights - np.log(self.rng.exponential(size=weights.shape))
        scores[~allowed] = -np.inf
        best = np.argpartition(-scores, self.settings.slate_size - 1, axis=1)
        best = best[:, : self.settings.slate_size]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        picked: IntArray = np.take_along_axis(best, order, axis=1)
        return picked

    def _opens(self) -> FloatArray:
        """When each item is published; padding never."""
        opens = np.full(len(self.counts), -np.inf)
        if AVAILABLE_FROM in self.data.items:
            times = self.data.items[AVAILABLE_FROM].astype("Float64")
            opens[1:] = times.to_numpy(np.float64, na_value=-np.inf)
        opens[PAD] = np.inf
        return opens

    def _remember(self, users: IntArray, items: IntArray) -> None:
        for user, item in zip(users.tolist(), items.tolist(), strict=True):
            mine = self.had[user]
            self.together[item] += mine
            self.together[mine, item] += 1
            mine[item] = True
        np.add.at(self.counts, items, 1)
        self.newest[users, 1:] = self.newest[users, :-1]
        self.newest[users, 0] = items


def _shown(log: RecDataset) -> pd.DataFrame:
    """One row an item of a list."""
    lists = log.impressions
    assert lists is not None
    sizes = np.diff(lists.offsets)
    users, items = (t[TOKEN].to_numpy() for t in (log.users, log.items))
    return pd.DataFrame({
        "list": np.repeat(np.arange(len(lists)), sizes),
        USER_ID: users[np.repeat(lists.user_ids, sizes) - 1],
        TIMESTAMP: np.repeat(lists.timestamps, sizes),
        ITEM_ID: items[lists.items - 1], "clicked": lists.clicked,
    })  # fmt: skip


def _mapping(log: RecDataset, raw: dict[str, pd.DataFrame]) -> dict[str, object]:
    """What the columns are; see :mod:`usermirror_gym.data.sources.custom_settings`."""
    items = raw["items"].drop(columns=[ITEM_ID, TITLE, AVAILABLE_FROM], errors="ignore")
    opens = {"available_from": AVAILABLE_FROM} if AVAILABLE_FROM in raw["items"] else {}
    mapping: dict[str, object] = {
        "name": log.name, "domain": log.domain,
        "interactions": {"file": "interactions.parquet", "user": USER_ID, "item": ITEM_ID,
                         "time": TIMESTAMP, "rating": RATING},
        "items": {"file": "items.parquet", "item": ITEM_ID, "title": TITLE} | opens | _facts(items),
        "users": {"file": "users.parquet", "user": USER_ID}
        | _facts(raw["users"].drop(columns=USER_ID)),
    }  # fmt: skip
    if "impressions" in raw:
        mapping["impressions"] = {
            "file": "impressions.parquet", "list": "list", "user": USER_ID, "time": TIMESTAMP,
            "item": ITEM_ID, "clicked": "clicked",
        }  # fmt: skip
    if log.template is not None:
        del mapping["domain"]
        mapping["template"] = log.template
    # Whoever saw lists only, and what nobody took, keep their ids.
    return mapping | {"limits": {"min_user": 0, "min_item": 0}}


def _facts(table: pd.DataFrame) -> dict[str, list[str]]:
    numbers = [str(c) for c in table if pd.api.types.is_numeric_dtype(table[c])]
    return {"texts": [str(c) for c in table if c not in numbers], "numbers": numbers}
