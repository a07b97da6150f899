"""The numbers and the sentences of the interaction experiment.

Schema of ``retraining.json`` (plain JSON types, ``null`` where there is no value)::

    config, dataset, t0, t1: what was run
    users: {fed, tested, test_items}    items: new ones from T1 on, before any are taken out
    feedback: {amount, taken: {arm: share}}      of what was given, what users really took after T0
    models: [{name, arms: {arm: {metric: {mean, low, high}}},
              gain: {arm: {metric: {mean, low, high}}},      arm minus nothing, paired
              versus: {arm: {metric: {mean, low, high}}}}]   simulated minus arm, paired
    verdict: [sentence]

A user's value is the mean over the seeds; the last model, ``all``, is the mean over the models.
Intervals are of resampled users, the same ones everywhere; they do not hold what another seed of
training would change.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from usermirror_gym.experiments.retraining.feedback import ARMS, Timeline
from usermirror_gym.files import to_json_types
from usermirror_gym.measures.bootstrap import UserBootstrap
from usermirror_gym.report.tables import plain_table
from usermirror_gym.report.text import BETTER, OPEN, WORSE, Block, interval, standing
from usermirror_gym.types import FloatArray, IntArray

METRICS = ("recall", "ndcg", "mrr")
ALL = "all"
_CONTROLS = tuple(arm for arm in ARMS if arm not in ("nothing", "simulated"))


def summarise_retraining(
    config: Mapping[str, Any], timeline: Timeline, outcomes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The content of ``retraining.json`` from the outcomes of all models and seeds."""
    users = np.unique(np.concatenate([outcome["users"] for outcome in outcomes]))
    bootstrap = UserBootstrap(users)
    names = list(dict.fromkeys(outcome["model"] for outcome in outcomes))
    tables = {name: _by_user(outcomes, name, users) for name in names}
    if len(names) > 1:
        tables[ALL] = {arm: _mean_of([tables[name][arm] for name in names]) for arm in ARMS}
    amount = sum(outcome["amount"] for outcome in outcomes)
    results = {
        "config": dict(config),
        "dataset": timeline.split.dataset.name,
        "t0": timeline.split.t0,
        "t1": timeline.t1,
        "users": {
            "fed": len(timeline.users), "tested": len(users),
            "test_items": sum(len(timeline.later.get(user, [])) for user in users.tolist()),
        },
        "feedback": {
            "amount": amount / len(outcomes),
            "taken": {
                arm: sum(outcome["taken"][arm] for outcome in outcomes) / amount
                for arm in ARMS if arm not in ("nothing", "real")
            },
        },
        "models": [_block(name, table, bootstrap) for name, table in tables.items()],
    }  # fmt: skip
    plain = dict(to_json_types(results))
    return plain | {"verdict": _verdict(plain)}


def retraining_table(results: Mapping[str, Any]) -> Table:
    """A row per model and arm; differences to *nothing* with their interval."""
    k, users = results["config"]["k"], results["users"]
    table = plain_table(
        title=f"{users['tested']} users of {results['dataset']}, "
        f"{results['feedback']['amount']:.0f} items of feedback from each source",
        caption="gain: paired difference of NDCG to nothing, 95 % interval over users; "
        "* excludes zero",
    )
    for header in ("model", "feedback", f"Recall@{k}", f"NDCG@{k}", f"MRR@{k}", "gain in NDCG"):
        table.add_column(header, justify="left" if header in ("model", "feedback") else "right")
    for model in results["models"]:
        for arm in ARMS:
            means = [f"{model['arms'][arm][metric]['mean']:.4f}" for metric in METRICS]
            gain = model["gain"].get(arm, {}).get("ndcg")
            text = f"{_signed(gain)} {'*' if standing(gain) else ' '}" if gain else ""
            name = model["name"] if arm == ARMS[0] else ""
            table.add_row(name, arm, *means, text, end_section=arm == ARMS[-1])
    return table


def _by_user(
    outcomes: Sequence[Mapping[str, Any]], name: str, users: IntArray
) -> dict[str, FloatArray]:
    """By arm ``(U, metrics)`` means over the seeds; NaN where a user was never tested."""
    own = [outcome for outcome in outcomes if outcome["model"] == name]
    found = {}
    for arm in ARMS:
        values = np.full((len(own), len(users), len(METRICS)), np.nan)
        for number, outcome in enumerate(own):
            rows = np.searchsorted(users, outcome["users"])
            columns = [outcome["scores"][arm][metric] for metric in METRICS]
            values[number, rows] = np.array(columns).T
        found[arm] = _mean_of(list(values))
    return found


def _mean_of(values: Sequence[FloatArray]) -> FloatArray:
    """Means of what is there, NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        found: FloatArray = np.nanmean(np.stack(values), axis=0)
    return found


def _block(name: str, table: Mapping[str, FloatArray], bootstrap: UserBootstrap) -> dict[str, Any]:
    def of(values: FloatArray) -> dict[str, dict[str, float]]:
        found = bootstrap.intervals(values)
        return {m: interval._asdict() for m, interval in zip(METRICS, found, strict=True)}

    nothing, simulated = table["nothing"], table["simulated"]
    return {
        "name": name,
        "arms": {arm: of(table[arm]) for arm in ARMS},
        "gain": {arm: of(table[arm] - nothing) for arm in ARMS if arm != "nothing"},
        "versus": {arm: of(simulated - table[arm]) for arm in _CONTROLS},
    }


def _verdict(results: Mapping[str, Any]) -> list[str]:
    """What may be said, by NDCG, over all models."""
    model = results["models"][-1]
    base = model["arms"]["nothing"]["ndcg"]["mean"]
    gains = {arm: block["ndcg"] for arm, block in model["gain"].items()}
    against = {arm: standing(block["ndcg"]) for arm, block in model["versus"].items()}
    effects = {BETTER: "raises", WORSE: "lowers", OPEN: "is not shown to change"}
    own, k = gains["simulated"], results["config"]["k"]
    sentences = [
        f"Simulated feedback {effects[standing(own)]} NDCG@{k} ({base:.4f} without any): "
        f"{_signed(own)}.",
        "Controls of the same amount: "
        + ", ".join(f"{arm} {_signed(gains[arm])}" for arm in _CONTROLS)
        + ".",
    ]
    words = {BETTER: "better than", WORSE: "worse than", OPEN: "not beyond chance different from"}
    kinds = {words[kind]: [arm for arm in _CONTROLS if against[arm] == kind] for kind in words}
    said = [f"{kind} {', '.join(arms)}" for kind, arms in kinds.items() if arms]
    sentences.append(f"Simulated feedback is {'; '.join(said)}.")
    if "listed" not in kinds["better than"]:
        sentences.append(
            "What the simulated users chose from the lists is not shown to be worth more than "
            "other items of the same lists."
        )
    taken = results["feedback"]["taken"]
    sentences.append(
        "Of what was given, the users really took later: "
        + ", ".join(f"{arm} {100 * share:.1f} %" for arm, share in taken.items()) + "."
    )  # fmt: skip
    return sentences


def _signed(gain: Block) -> str:
    return interval(gain, ".4f", sign=True)
