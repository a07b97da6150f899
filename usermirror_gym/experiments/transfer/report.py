"""``report.html``, ``report.md`` and ``results.json`` of a transfer experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from usermirror_gym.agents.returns import SHOWN_BEFORE
from usermirror_gym.experiments.transfer.plots import curve_plot, parting_sentence, ranking_plot
from usermirror_gym.files import write_json, write_text
from usermirror_gym.report.page import render
from usermirror_gym.report.tables import MET, MISSED, Cell, View
from usermirror_gym.report.text import BETTER, OPEN, WORSE, cell, interval, points, standing

Columns = dict[str, str | Callable[[Any], str | Cell]]
_SCORERS = {
    "simulator": "simulator",
    "popularity_user": "popularity user",
    "neighbour_user": "item-kNN user",
    "popularity_scorer": "popularity of what is shown",
}
_ORDER = {
    BETTER: "orders them as the truth does rather than by chance",
    WORSE: "turns their order upside down",
    OPEN: "does not order them better than chance",
}
_APART = {
    BETTER: "less like the truth", WORSE: "more like the truth",
    OPEN: "not beyond chance different",
}  # fmt: skip
USERS = {"out": "unseen users", "in": "training users"}
_BOTH: Columns = {
    "truth": lambda row: points(row["true"]), "simulator": lambda row: points(row["simulator"]),
}  # fmt: skip


def write_transfer_report(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the page, the text with its plots beside it, and, last, every number."""
    plots = {
        f"curve-{name}": curve_plot(name, curve, number)
        for number, (name, curve) in enumerate(results["curves"].items())
    } | {"ranking": ranking_plot(results["ranking"])}
    for name, plot in plots.items():
        write_text(folder / f"{name}.svg", plot.standalone)
    tables = (
        score_table, level_table, world_table, policy_table, list_table, shown_table, curve_table,
        probe_table, degraded_table,
    )  # fmt: skip
    view = {
        "title": "Does it transfer?",
        "sentences": sentences(results),
        "plots": plots,
        "views": [view for table in tables if (view := table(results)) is not None],
        "facts": [(name.replace("_", " "), str(v)) for name, v in results["about"].items()],
    }
    return [
        *(write_text(folder / f"report.{kind}", render(f"transfer.{kind}", view))
          for kind in ("html", "md")),
        write_json(folder / "results.json", results),
    ]  # fmt: skip


def sentences(results: Mapping[str, Any]) -> list[str]:
    """What came out, claiming no more than the intervals show; degraded policies count nothing."""
    found = [
        *(_agreement(results["ranking"], group) for group in results["ranking"]["episodes"]),
        _bias(results["ranking"]),
        *(f"World {name}: {_agreement(ranking, next(iter(ranking['episodes'])))}"
          for name, ranking in results["worlds"].items()),
        *(f"{name}: {parting_sentence(curve)}" for name, curve in results["curves"].items()),
    ]  # fmt: skip
    for key, words in (
        ("exploited", "Better than {} for the simulator and worse in the truth: {}."),
        ("overpaid", "Paid more by the simulator than by the truth, against {}: {}."),
    ):
        if names := [row["name"] for row in results["probes"] if row[key]]:
            found.append(words.format(results["probe_base"], ", ".join(names)))
    if not any(row["overpaid"] for row in results["probes"]):
        found.append("No probe is paid more by the simulator than by the truth.")
    return found


def _agreement(ranking: Mapping[str, Any], group: str) -> str:
    """How the simulator ranks the recommenders for some of the users."""

    def taus(who: str) -> str:
        found = ranking["scorers"][who]
        return " and ".join(interval(found[m][group], ".2f") for m in ("sessions", "first_lists"))

    order = _ORDER[standing(ranking["scorers"]["simulator"]["sessions"][group])]
    apart = _APART[standing(ranking["difference"]["sessions"][group])]
    return (
        f"{len(ranking['policies'])} recommenders, {USERS[group]}: the simulator {order}. Kendall "
        f"tau-b with the truth, by sessions and by first lists, {taus('simulator')}; of a user who "
        f"chooses by popularity {taus('popularity_user')}, which by sessions is {apart}."
    )


def _bias(ranking: Mapping[str, Any]) -> str:
    """Whether the simulator takes too much."""
    found = "; ".join(
        f"{USERS[group]} {interval(block, '.2f', sign=True)}"
        for group, block in ranking["scorers"]["simulator"]["bias"].items()
    )
    return f"Takes a session that the simulator expects beyond those of the truth: {found}."


def curve_table(results: Mapping[str, Any]) -> View | None:
    """One row per learner."""

    def gain(world: str) -> Callable[[Any], str]:
        return lambda row: interval(row["end"][row[world]], ".2f", sign=True)

    return View.of(
        "Training",
        [{"name": name, **curve} for name, curve in results["curves"].items()],
        {
            "learner": "name",
            "sessions": lambda row: cell(row["steps"][-1]),
            "simulated gain": gain("trained_on"),
            "true gain": gain("truth"),
            "parted at": lambda row: cell(row["parted"]),
            "hacked at": lambda row: cell(row["hacked"] and row["hacked"]["step"]),
            "truly best at": lambda row: cell(row["best"]["step"]),
            "since then": lambda row: interval(row["best"]["lost"], ".2f"),
        },
        "Gains in return per session from the first evaluation to the last. Parted: from there on "
        "the gain promised exceeds the gain paid. Hacked: from there on the true return has fallen "
        "since its best while the simulated one rose. Both where 95% intervals over trainings and "
        "users exclude zero, at two evaluations in a row.",
    )


def score_table(results: Mapping[str, Any]) -> View | None:
    """How alike each scorer ranks the recommenders."""
    ranking = results["ranking"]
    gaps = "; ".join(
        f"{USERS[group]} {interval(block, '.2f', sign=True)}"
        for group, block in ranking["difference"]["sessions"].items()
    )
    each = "; ".join(
        f"{USERS[group]} {', '.join(interval(block, '.2f') for block in found)}"
        for group, found in ranking["trainings"].items()
    )
    return View.of(
        "Who ranks the recommenders as the truth does",
        [{"name": _SCORERS[key], **found} for key, found in ranking["scorers"].items()],
        {"Kendall tau-b": "name", **_taus(ranking)},
        f"{len(ranking['policies'])} recommenders that differ in kind or far in settings, by the "
        f"takes expected of a session, and of its first list. {_counts(ranking)}; unseen are those "
        "of whom the simulator's training has no row. The simulator minus the popularity user, by "
        f"sessions: {gaps}. Each of its trainings alone, by sessions: {each}. Intervals draw users "
        "anew, the same in all worlds, and trainings; noise makes a drawn ranking less alike, so "
        "they lean to the low side.",
        strong=0,
    )


def level_table(results: Mapping[str, Any]) -> View | None:
    """Who takes too much, and who orders the pairs that can be told apart."""
    ranking = results["ranking"]
    return View.of(
        "Too many takes, or too few",
        [{"name": _SCORERS[key], **found} for key, found in ranking["scorers"].items()
         if "bias" in found],
        {"user": "name", **_by_group(ranking, "bias", "{}", sign=True), "right signs": "signs"},
        "Takes expected of a session, minus those in the truth, over all recommenders. Right "
        f"signs: of the {ranking['decided']} of {ranking['pairs']} pairs of recommenders that the "
        "truth tells apart, for all users.",
    )  # fmt: skip


def world_table(results: Mapping[str, Any]) -> View | None:
    """The ranking in every world."""
    if not results["worlds"]:
        return None
    first = results["ranking"]
    group = next(iter(first["episodes"]))
    rows = [
        {"name": name, "popular": ranking["scorers"]["popularity_user"]["sessions"][group],
         **ranking["scorers"]["simulator"]}
        for name, ranking in {"this one": first, **results["worlds"]}.items()
    ]  # fmt: skip
    return View.of(
        "The ranking in other worlds",
        rows,
        {"world": "name", **_taus(first), f"popularity user, {USERS[group]}": "popular"},
        "Kendall tau-b of the simulator and the truth. A world is a kind of truth (tastes from "
        "factors or from neighbours) and a seed: truth, log, recommenders, simulator and users are "
        "made anew in each. The last column is that of a user who chooses by popularity, by "
        "sessions.",
    )


def policy_table(results: Mapping[str, Any]) -> View | None:
    """Every recommender in every world, best in truth first."""
    return View.of(
        "Recommenders",
        results["ranking"]["policies"],
        {"recommender": "name", **_worlds(results["ranking"])},
        "Takes expected of a session, for all users. Ranges are 95% intervals over users.",
    )


def list_table(results: Mapping[str, Any]) -> View | None:
    """P(take) over a session."""
    return View.of(
        "Takes as a session goes on",
        results["ranking"]["by_list"],
        {"list": lambda row: str(row["list"]), **_BOTH},
        "Share of lists, in percent, from which something is taken, over all recommenders and "
        "those sessions that came so far.",
    )


def shown_table(results: Mapping[str, Any]) -> View | None:
    """P(take) of an item that is shown again."""
    last = SHOWN_BEFORE - 1
    return View.of(
        "Items that are shown again",
        results["ranking"]["by_shown"],
        {"times shown before": lambda row: f"{row['shown']}{' or more' * (row['shown'] == last)}",
         **_BOTH},
        "Probability, in percent, that an item of a list is taken, by how often it was shown "
        "before in the session.",
    )  # fmt: skip


def degraded_table(results: Mapping[str, Any]) -> View | None:
    """What is degraded on purpose, apart."""
    found = results["ranking"]["degraded"]
    if found is None:
        return None
    taus = ", ".join(
        f"{label} {interval(found[key], '.2f')}" for key, label in _SCORERS.items() if key in found
    )
    return View.of(
        "Degraded policies, apart",
        found["policies"],
        {"policy": "name", **_worlds(results["ranking"])},
        "Takes expected of a session. Nothing above rests on these: random lists mixed into a "
        f"recommender make it worse for almost any user. Kendall tau-b over them alone: {taus}.",
    )


def _worlds(ranking: Mapping[str, Any]) -> Columns:
    """A column for everybody who plays the users."""
    played = [key for key in ranking["scorers"] if key in ranking["policies"][0]]
    return {"truth": "true", **{_SCORERS[key]: key for key in played if key != "popularity_scorer"}}


def _taus(ranking: Mapping[str, Any]) -> Columns:
    """Every measure for every group of users, of rows that hold them."""
    return {
        **_by_group(ranking, "sessions", "sessions, {}"),
        **_by_group(ranking, "first_lists", "first lists, {}"),
    }


def _by_group(ranking: Mapping[str, Any], key: str, words: str, *, sign: bool = False) -> Columns:
    """A column for each group of users, of what a row has by group."""

    def shown(group: str) -> Callable[[Any], str]:
        return lambda row: interval(row.get(key, {}).get(group), ".2f", sign=sign)

    return {words.format(USERS[group]): shown(group) for group in ranking["episodes"]}


def _counts(ranking: Mapping[str, Any]) -> str:
    return " and ".join(
        f"{count:,} sessions of {USERS[group]}" for group, count in ranking["episodes"].items()
    )


def probe_table(results: Mapping[str, Any]) -> View | None:
    """What probes gain over the base policy."""

    def excess(row: Any) -> Cell:
        text = interval(row["excess"], ".2f", sign=True)
        return Cell(text, MISSED if row["overpaid"] else MET)

    return View.of(
        f"Probes against {results['probe_base']}",
        results["probes"],
        {
            "probe": "name",
            "simulated gain": "simulated_gain",
            "true gain": "true_gain",
            "simulated - true": excess,
            "simulated leaving": "simulated_left",
            "true leaving": "true_left",
        },
        "Return per session and share of sessions that the user left, minus those of "
        f"{results['probe_base']}. ✗ the simulator pays more, or punishes less, than the truth: "
        "the interval lies above zero.",
        sign=True,
    )
