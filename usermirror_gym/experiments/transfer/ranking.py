"""Does the simulator rank policies as the truth does?

The measure of METHOD.md 6.5 for a ground truth: Kendall's tau-b between mean returns in two worlds,
against what a scorer that only knows popularity attains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from usermirror_gym.agents import Agent, make_agent
from usermirror_gym.agents.returns import Sessions
from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError
from usermirror_gym.experiments.transfer.adversaries import AllBadAgent, MixtureAgent, RepeatAgent
from usermirror_gym.experiments.transfer.config import GOOD
from usermirror_gym.measures.bootstrap import UserBootstrap, kendall_tau_b
from usermirror_gym.types import FloatArray, IntArray

EPSILONS = (0.02, 0.1, 0.25, 0.5, 0.75)
"""Random lists mixed into the best-known of them; the first is a near-equal policy."""
_SMALLEST = 3


def ranked_policies(
    split: TimeSplit,
    *,
    models: Sequence[str] = GOOD,
    fit: Callable[[str], Agent] | None = None,
    seed: int = 0,
) -> list[Agent]:
    """Fitted policies, good and bad: Random, Pop, the models, the second model (or the only one)
    degraded by every epsilon, a near-equal copy of Pop, lists of what was had before, and the least
    popular items.

    Args:
        split: what they learn from.
        models: names for ``make_agent``.
        fit: makes and fits an agent by name, to keep them in a folder for example.
        seed: of whatever draws.

    Raises:
        ConfigError: no model to degrade.
    """
    if not models:
        raise ConfigError("models is empty: name one that can be degraded, such as EASE")
    make = fit or (lambda name: make_agent(name, seed=seed, progress=False).fit(split))
    plain = {name: make(name) for name in ("Random", "Pop", *models)}
    good = plain[models[min(1, len(models) - 1)]]
    mixed = [MixtureAgent(good, e, seed).fitted(split) for e in EPSILONS]
    near = MixtureAgent(plain["Pop"], 0.02, seed + 1).fitted(split)
    repeat = RepeatAgent(None, plain["Pop"]).fitted(split)
    return [*plain.values(), *mixed, near, repeat, AllBadAgent().fit(split)]


def compare_rankings(
    simulated: Mapping[str, Sessions],
    true: Mapping[str, Sessions],
    popular: Mapping[str, Sessions],
    users: IntArray,
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """How alike three worlds rank the same policies.

    Args:
        simulated, true: sessions in the simulator and in the truth, by policy.
        popular: sessions with a user who chooses by popularity.
        users: ``(E,)`` the user of each episode; the same plan in all worlds.
        n_resamples: of users, the same ones in all worlds, policies and scores.

    Returns:
        plain types.  ``policies``: name and mean return in each world, best in truth first.
        ``simulator``, ``popularity_user`` and ``popularity_scorer`` (policies scored by how popular
        what they show is): each with ``tau_b``, and ``sign_accuracy`` over the pairs of policies
        that the truth tells apart (paired interval of the difference of returns excludes zero;
        ``decided`` of ``pairs``).  ``difference``: tau-b of the simulator minus that of the
        popularity user.  Numbers as ``{mean, low, high}``.

    Raises:
        ConfigError: fewer than three policies, or the worlds do not have the same ones.
    """
    names = list(true)
    if len(names) < _SMALLEST or set(simulated) != set(names) or set(popular) != set(names):
        raise ConfigError(
            f"a ranking needs at least {_SMALLEST} policies, the same ones in all worlds; got "
            f"{names}, {list(simulated)} and {list(popular)}"
        )
    bootstrap = UserBootstrap(users, n_resamples, seed)
    worlds = {"true": true, "simulator": simulated, "popularity_user": popular}
    tables = {
        scorer: np.column_stack([world[name].returns for name in names])
        for scorer, world in worlds.items()
    }
    tables["popularity_scorer"] = np.column_stack([true[name].popularity for name in names])
    left, right = np.triu_indices(len(names), k=1)
    apart = bootstrap.intervals(tables["true"][:, left] - tables["true"][:, right])
    decided = np.array([difference.excludes_zero for difference in apart])
    blocks = {world: bootstrap.intervals(table) for world, table in tables.items()}
    rows = [
        {"name": name} | {world: found[i]._asdict() for world, found in blocks.items()}
        for i, name in enumerate(names)
    ]
    means = {k: t.mean(axis=0) for k, t in tables.items()}
    drawn = {k: bootstrap.means(t) for k, t in tables.items()}
    out: dict[str, Any] = {
        "pairs": len(decided), "decided": int(decided.sum()),
        "policies": sorted(rows, key=lambda row: -row["true"]["mean"]),
    }  # fmt: skip
    taus: dict[str, FloatArray] = {}
    for scorer in ("simulator", "popularity_user", "popularity_scorer"):
        tau = kendall_tau_b(means[scorer][None], means["true"][None])[0]
        taus[scorer] = kendall_tau_b(drawn[scorer], drawn["true"])
        sign = _sign_accuracy(means[scorer][None], means["true"], decided)[0]
        signs = _sign_accuracy(drawn[scorer], means["true"], decided)
        out[scorer] = {
            "tau_b": bootstrap.interval(float(tau), taus[scorer])._asdict(),
            "sign_accuracy": bootstrap.interval(float(sign), signs)._asdict(),
        }
    gap = out["simulator"]["tau_b"]["mean"] - out["popularity_user"]["tau_b"]["mean"]
    drawn_gap = taus["simulator"] - taus["popularity_user"]
    out["difference"] = bootstrap.interval(gap, drawn_gap)._asdict()
    return out


def _sign_accuracy(scores: FloatArray, true: FloatArray, decided: np.ndarray) -> FloatArray:
    """``(R,)`` share of the decided pairs that the rows of ``scores`` order as the truth; a tie is
    half right."""
    if not decided.any():
        return np.full(len(scores), np.nan)
    left, right = (i[decided] for i in np.triu_indices(len(true), k=1))
    agree = np.sign(scores[:, left] - scores[:, right]) * np.sign(true[left] - true[right])
    share: FloatArray = ((agree + 1) / 2).mean(axis=1)
    return share
