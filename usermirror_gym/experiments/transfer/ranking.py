"""Does the simulator rank recommenders as the truth does?

The measure of METHOD.md 6.5 for a ground truth: Kendall's tau-b between expected takes in two
worlds, against what a user who only knows popularity attains.  It is taken over recommenders that
really differ.  Copies of one that are degraded with random lists come out in the right order of
almost any user; they are compared too, apart, and nothing that is said rests on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from usermirror_gym.agents import Agent, make_agent
from usermirror_gym.agents.returns import Sessions
from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError
from usermirror_gym.experiments.transfer.adversaries import AllBadAgent, MixtureAgent, RepeatAgent
from usermirror_gym.experiments.transfer.config import RECOMMENDERS
from usermirror_gym.measures.bootstrap import UserBootstrap, drawn_trainings, kendall_tau_b
from usermirror_gym.types import BoolArray, FloatArray, IntArray

EPSILONS = (0.02, 0.1, 0.25, 0.5, 0.75)
"""Random lists mixed into a recommender; the first is a near-equal policy."""
OUT, IN = "out", "in"
"""Users whom the simulator's training never saw, and the others."""
SIMULATOR, POPULARITY, NEIGHBOURS = "simulator", "popularity_user", "neighbour_user"
MEASURES: dict[str, Callable[[Sessions], FloatArray]] = {
    "sessions": lambda played: played.expected,
    "first_lists": lambda played: played.first,
}
"""What a policy is ranked by: expected takes of whole sessions, and of their first lists."""
_SMALLEST = 3


class Policies(NamedTuple):
    """What is ranked, fitted."""

    distinct: list[Agent]
    """Recommenders that differ in what they are."""
    degraded: list[Agent]
    """Random lists, in part or altogether, and what is bad on purpose."""


def ranked_policies(
    split: TimeSplit,
    *,
    models: Sequence[str] = RECOMMENDERS,
    fit: Callable[[str], Agent] | None = None,
    seed: int = 0,
) -> Policies:
    """Pop and the models; and Random, the first model degraded by every epsilon, a near-equal copy
    of Pop, lists of what was had before, and the least popular items.

    Args:
        split: what they learn from.
        models: names for ``make_agent``.
        fit: makes and fits an agent by name, to keep them in a folder for example.
        seed: of whatever draws.

    Raises:
        ConfigError: no model to degrade.
    """
    others = [name for name in models if name.casefold() != "pop"]
    if not others:
        raise ConfigError("models is empty: name one that can be degraded, such as EASE")
    make = fit or (lambda name: make_agent(name, seed=seed, progress=False).fit(split))
    random, popular, *rest = (make(name) for name in ("Random", "Pop", *others))
    mixed = [MixtureAgent(rest[0], e, seed).fitted(split) for e in EPSILONS]
    near = MixtureAgent(popular, EPSILONS[0], seed + 1).fitted(split)
    repeat = RepeatAgent(None, popular).fitted(split)
    bad = AllBadAgent().fit(split)
    return Policies([popular, *rest], [random, *mixed, near, repeat, bad])


def compare_rankings(
    true: Mapping[str, Sessions],
    others: Mapping[str, Sequence[Mapping[str, Sessions]]],
    distinct: Sequence[str],
    users: IntArray,
    unseen: BoolArray,
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """How alike the truth and other users rank the same policies.

    Intervals draw users and trainings anew, the same ones in all worlds and for all policies.  The
    tau-b of several trainings is the mean of theirs.

    Args:
        true: sessions in the truth, by policy.
        others: by who plays the users, ``simulator`` and ``popularity_user`` among them: sessions
            by policy, for every training of it.
        distinct: the policies that differ; the others are compared apart.
        users: ``(E,)`` the user of each episode; the same plan in all worlds.
        unseen: ``(E,)`` whether the simulator's training saw nothing of the user.
        n_resamples: of users and trainings.

    Returns:
        plain types; numbers as ``{mean, low, high}``, by ``out`` and ``in`` for unseen users and
        the others, as far as there are such.  ``episodes``: how many.  ``trainings``: the tau-b of
        each training of the simulator alone, by sessions.
        ``scorers``: for every other user, and for ``popularity_scorer`` (policies scored by how
        popular what they show is): ``sessions`` and ``first_lists``, the tau-b by
        :data:`MEASURES`; ``bias``, its expected takes a session minus the true ones; and
        ``signs``, the share of right signs over the pairs of policies that the truth tells apart
        (interval of the difference excludes zero; ``decided`` of ``pairs``).  ``difference``:
        tau-b of the simulator minus that of the popularity user, by measure.  ``policies``: name
        and expected takes a session in each world, best in truth first.  ``by_list``,
        ``by_shown``: P(take) in the truth and in the simulator, of the n-th list, and of an item
        by how often it was shown before in the session.  ``degraded``: ``policies``, and the tau-b
        of each other user over those alone.

    Raises:
        ConfigError: fewer than three distinct policies, or worlds that do not have the same ones.
    """
    worlds = [true, *(played for trainings in others.values() for played in trainings)]
    if len(distinct) < _SMALLEST or any(set(w) != set(true) for w in worlds):
        raise ConfigError(
            f"a ranking needs at least {_SMALLEST} different policies, the same ones in all "
            f"worlds; got {list(distinct)} in {[list(w) for w in worlds]}"
        )
    parts = {OUT: unseen, IN: ~unseen}
    groups = {
        name: _Group(true, others, users, rows, n_resamples, seed)
        for name, rows in parts.items() if rows.any()
    }  # fmt: skip
    everybody = _Group(true, others, users, np.ones(len(users), np.bool_), n_resamples, seed)
    rest = [name for name in true if name not in distinct]
    scorers: dict[str, Any] = {
        who: {
            **{m: {n: g.tau(who, m, distinct) for n, g in groups.items()} for m in MEASURES},
            "bias": {n: g.bias(who, distinct) for n, g in groups.items()},
            "signs": everybody.signs(who, distinct)["share"],
        }
        for who in others
    }
    scorers["popularity_scorer"] = {
        "sessions": {n: g.popularity(distinct) for n, g in groups.items()}
    }
    signs = everybody.signs(SIMULATOR, distinct)
    return {
        "episodes": {name: int(parts[name].sum()) for name in groups},
        "trainings": {n: g.trainings(distinct) for n, g in groups.items()},
        "pairs": signs["pairs"], "decided": signs["decided"],
        "scorers": scorers,
        "difference": {
            m: {n: g.difference(m, distinct) for n, g in groups.items()} for m in MEASURES
        },
        "policies": everybody.rows(distinct),
        "by_list": everybody.by_list(distinct), "by_shown": everybody.by_shown(distinct),
        "degraded": {
            "policies": everybody.rows(rest),
            **{who: everybody.tau(who, "sessions", rest) for who in others},
        } if len(rest) >= _SMALLEST else None,
    }  # fmt: skip


class _Group:
    """Some of the episodes, and resamples of their users."""

    def __init__(
        self, true: Mapping[str, Sessions], others: Mapping[str, Sequence[Mapping[str, Sessions]]],
        users: IntArray, rows: BoolArray, n_resamples: int, seed: int,
    ) -> None:  # fmt: skip
        self.true, self.others, self.kept = true, others, rows
        self.bootstrap = UserBootstrap(users[rows], n_resamples, seed)
        self.shares = {
            who: drawn_trainings(len(trainings), n_resamples, seed)
            for who, trainings in others.items()
        }

    def tau(self, who: str, measure: str, names: Sequence[str]) -> dict[str, float]:
        """Of one other user against the truth."""
        return self._interval(*self._taus(who, measure, names))

    def difference(self, measure: str, names: Sequence[str]) -> dict[str, float]:
        """Of the simulator's tau-b and the popularity user's."""
        ours, drawn = self._taus(SIMULATOR, measure, names)
        theirs, theirs_drawn = self._taus(POPULARITY, measure, names)
        return self._interval(ours - theirs, drawn - theirs_drawn)

    def trainings(self, names: Sequence[str]) -> list[dict[str, float]]:
        """The tau-b of each training of the simulator by itself, with an interval over users."""
        true, played = self._table(self.true, "sessions", names), self.others[SIMULATOR]
        tables = (self._table(world, "sessions", names) for world in played)
        return [self._interval(*self._tau(table, true)) for table in tables]

    def popularity(self, names: Sequence[str]) -> dict[str, float]:
        """The tau-b of how popular what the policies show is."""
        shown = np.column_stack([self.true[name].popularity[self.kept] for name in names])
        true = self._table(self.true, "sessions", names)
        return self._interval(*self._tau(shown, true))

    def bias(self, who: str, names: Sequence[str]) -> dict[str, float]:
        """Expected takes a session minus the true ones, over all these policies."""
        true = self._table(self.true, "sessions", names)
        played = [self._table(w, "sessions", names) for w in self.others[who]]
        per_episode = np.column_stack([(table - true).mean(axis=1) for table in played])
        drawn = (self.bootstrap.means(per_episode) * self.shares[who]).sum(axis=1)
        return self._interval(float(per_episode.mean()), drawn)

    def signs(self, who: str, names: Sequence[str]) -> dict[str, Any]:
        """Pairs of policies that the truth tells apart, and how many are ordered as it does."""
        true = self._table(self.true, "sessions", names)
        left, right = np.triu_indices(len(names), k=1)
        apart = self.bootstrap.intervals(true[:, left] - true[:, right])
        decided = np.array([difference.excludes_zero for difference in apart])
        signs = np.sign(true.mean(axis=0)[left] - true.mean(axis=0)[right])[decided]

        def right_ones(means: FloatArray) -> FloatArray:
            if not decided.any():
                return np.full(len(means), np.nan)
            agree = np.sign(means[:, left] - means[:, right])[:, decided] * signs
            share: FloatArray = ((agree + 1) / 2).mean(axis=1)  # a tie is half right
            return share

        played = [self._table(w, "sessions", names) for w in self.others[who]]
        value = np.mean([right_ones(table.mean(axis=0)[None])[0] for table in played])
        drawn = np.column_stack([right_ones(self.bootstrap.means(table)) for table in played])
        share = self._interval(float(value), (drawn * self.shares[who]).sum(axis=1))
        return {"pairs": len(decided), "decided": int(decided.sum()), "share": share}

    def rows(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Expected takes of every policy in every world, of trainings the mean; the best in truth
        first."""
        tables = {"true": self._table(self.true, "sessions", names)} | {
            who: np.mean([self._table(w, "sessions", names) for w in trainings], axis=0)
            for who, trainings in self.others.items()
        }
        blocks = {world: self.bootstrap.intervals(table) for world, table in tables.items()}
        rows = [
            {"name": name} | {world: found[i]._asdict() for world, found in blocks.items()}
            for i, name in enumerate(names)
        ]
        return sorted(rows, key=lambda row: -row["true"]["mean"])

    def by_list(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """P(take) of the n-th list of a session, over all policies and sessions that had it."""

        def sums(played: Sequence[Mapping[str, Sessions]]) -> tuple[FloatArray, FloatArray]:
            takes = [world[name].takes[self.kept] for world in played for name in names]
            padded = np.full((len(takes), int(self.kept.sum()), longest), np.nan)
            for number, values in enumerate(takes):
                padded[number, :, : values.shape[1]] = values
            return np.nansum(padded, axis=0), np.isfinite(padded).sum(axis=0).astype(np.float64)

        worlds = {"true": [self.true], SIMULATOR: self.others[SIMULATOR]}
        longest = max(
            world[name].takes.shape[1]
            for played in worlds.values() for world in played for name in names
        )  # fmt: skip
        shares = {world: self._ratios(*sums(played)) for world, played in worlds.items()}
        return _numbered("list", shares, 1)

    def by_shown(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """P(take) of an item, by how often it was shown before in the session."""

        def sums(played: Sequence[Mapping[str, Sessions]]) -> tuple[FloatArray, FloatArray]:
            found = [world[name] for world in played for name in names]
            top, bottom = (
                np.sum([getattr(f, what)[self.kept] for f in found], axis=0)
                for what in ("item_takes", "item_lists")
            )
            return top, bottom

        worlds = {"true": [self.true], SIMULATOR: self.others[SIMULATOR]}
        shares = {world: self._ratios(*sums(played)) for world, played in worlds.items()}
        return _numbered("shown", shares, 0)

    def _ratios(self, top: FloatArray, bottom: FloatArray) -> list[dict[str, float]]:
        """The ratio of the sums of each column of two ``(E, M)``."""

        def ratio(a: FloatArray, b: FloatArray) -> FloatArray:
            return np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0)

        values = ratio(top.sum(axis=0), bottom.sum(axis=0))
        drawn = ratio(self.bootstrap.means(top), self.bootstrap.means(bottom))
        return [self._interval(float(v), d) for v, d in zip(values, drawn.T, strict=True)]

    def _table(
        self, world: Mapping[str, Sessions], measure: str, names: Sequence[str]
    ) -> FloatArray:
        """``(E, A)``."""
        return np.column_stack([MEASURES[measure](world[name])[self.kept] for name in names])

    def _taus(self, who: str, measure: str, names: Sequence[str]) -> tuple[float, FloatArray]:
        """The mean over trainings, and as it is drawn."""
        true = self._table(self.true, measure, names)
        found = [self._tau(self._table(w, measure, names), true) for w in self.others[who]]
        drawn = np.column_stack([own for _, own in found])
        return float(np.mean([tau for tau, _ in found])), (drawn * self.shares[who]).sum(axis=1)

    def _tau(self, table: FloatArray, true: FloatArray) -> tuple[float, FloatArray]:
        """The tau-b of two ``(E, A)``, and under every resample."""
        tau = kendall_tau_b(table.mean(axis=0)[None], true.mean(axis=0)[None])[0]
        return float(tau), kendall_tau_b(self.bootstrap.means(table), self.bootstrap.means(true))

    def _interval(self, value: float, drawn: FloatArray) -> dict[str, float]:
        return self.bootstrap.interval(value, drawn)._asdict()


def _numbered(
    what: str, shares: Mapping[str, Sequence[dict[str, float]]], first: int
) -> list[dict[str, Any]]:
    """Rows with a number, without those that no world has."""
    rows = [
        {what: first + i} | dict(zip(shares, row, strict=True))
        for i, row in enumerate(zip(*shares.values(), strict=True))
    ]
    return [row for row in rows if not all(np.isnan(row[world]["mean"]) for world in shares)]
