"""``report.html``, ``report.md`` and ``results.json`` of a transfer experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from usermirror_gym.experiments.transfer.plots import curve_plot, parting_sentence, ranking_plot
from usermirror_gym.files import write_json, write_text
from usermirror_gym.report.page import render
from usermirror_gym.report.tables import MET, MISSED, Cell, View
from usermirror_gym.report.text import cell, interval, standing


def write_transfer_report(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the page, the text with its plots beside it, and, last, every number."""
    plots = {
        f"curve-{name}": curve_plot(name, curve, number)
        for number, (name, curve) in enumerate(results["curves"].items())
    } | {"ranking": ranking_plot(results["ranking"])}
    for name, plot in plots.items():
        write_text(folder / f"{name}.svg", plot.standalone)
    tables = (curve_table, ranking_table, score_table, probe_table)
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
    """What came out, claiming no more than the intervals show."""
    ranking = results["ranking"]
    apart = {"better": "more alike than", "worse": "less alike than"}.get(
        standing(ranking["difference"]), "not beyond chance different from"
    )
    found = [
        f"{len(ranking['policies'])} policies: Kendall tau-b of simulator and truth "
        f"{interval(ranking['simulator']['tau_b'], '.2f')}, of a user who chooses by popularity "
        f"{interval(ranking['popularity_user']['tau_b'], '.2f')} ({apart} the latter).",
        *(f"{name}: {parting_sentence(curve)}" for name, curve in results["curves"].items()),
    ]
    for key, words in (
        ("exploited", "Better than {} for the simulator and worse in the truth: {}."),
        ("overpaid", "Paid more by the simulator than by the truth, against {}: {}."),
    ):
        if names := [row["name"] for row in results["probes"] if row[key]]:
            found.append(words.format(results["probe_base"], ", ".join(names)))
    if not any(row["overpaid"] for row in results["probes"]):
        found.append("No probe is paid more by the simulator than by the truth.")
    return found


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


def ranking_table(results: Mapping[str, Any]) -> View | None:
    """Every policy in every world, best in truth first."""
    return View.of(
        "Policies",
        results["ranking"]["policies"],
        {
            "policy": "name",
            "truth": "true",
            "simulator": "simulator",
            "popularity user": "popularity_user",
            "popularity shown": lambda row: interval(row["popularity_scorer"], ".0f"),
        },
        "Return per session; the last column is the mean number of interactions before T0 of the "
        "items shown in the truth. Ranges are 95% intervals over users.",
    )


def score_table(results: Mapping[str, Any]) -> View | None:
    """How alike each scorer ranks the policies."""
    ranking = results["ranking"]
    labels = {
        "simulator": "simulator",
        "popularity_user": "popularity user",
        "popularity_scorer": "popularity of what is shown",
    }
    return View.of(
        "Who ranks them as the truth does",
        [{"name": label, **ranking[key]} for key, label in labels.items()],
        {
            "scorer": "name",
            "Kendall tau-b": "tau_b",
            "right signs": "sign_accuracy",
        },
        f"Right signs: of the {ranking['decided']} of {ranking['pairs']} pairs that the truth "
        "tells apart. Simulator minus popularity user: "
        f"{interval(ranking['difference'], '.2f', sign=True)}. Intervals draw users anew, the same "
        "in all worlds; noise makes a drawn ranking less alike, so they lean to the low side.",
        strong=0,
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
