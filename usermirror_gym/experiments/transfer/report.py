"""``report.html``, ``report.md`` and ``results.json`` of a transfer experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from usermirror_gym.experiments.transfer.plots import (
    curve_plot,
    parting_sentence,
    ranking_plot,
    standalone,
)
from usermirror_gym.files import write_json, write_text
from usermirror_gym.report.page import DrawnPlot, render
from usermirror_gym.report.plots import Plot
from usermirror_gym.report.tables import MET, MISSED, Cell, View
from usermirror_gym.report.text import MISSING, interval, standing


def write_transfer_report(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the page, the text with its plots beside it, and, last, every number."""
    plots = transfer_plots(results)
    for name, plot in plots.items():
        write_text(folder / f"{name}.svg", standalone(plot))
    view = {
        "sentences": sentences(results), "facts": facts(results),
        "views": [v for v in (curve_table(results), ranking_table(results), score_table(results),
                              probe_table(results)) if v is not None],
        "title": "Does it transfer?",
    }  # fmt: skip
    drawn = {name: DrawnPlot(plot) for name, plot in plots.items()}
    return [
        write_text(folder / "report.html", render("transfer.html", view | {"plots": drawn})),
        write_text(folder / "report.md", render("transfer.md", view | {"plots": drawn})),
        write_json(folder / "results.json", results),
    ]


def transfer_plots(results: Mapping[str, Any]) -> dict[str, Plot]:
    """By file name: the curves of every learner, then the ranking."""
    found = {
        f"curve-{name}": curve_plot(name, curve, number)
        for number, (name, curve) in enumerate(results["curves"].items())
    }
    return found | {"ranking": ranking_plot(results["ranking"])}


def sentences(results: Mapping[str, Any]) -> list[str]:
    """What came out, claiming no more than the intervals show."""
    ranking = results["ranking"]
    apart = {"better": "more alike than", "worse": "less alike than"}.get(
        standing(ranking["difference"]), "not told apart from"
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
    rows = []
    for name, curve in results["curves"].items():
        hacked, end = curve["hacked"], curve["end"]
        rows.append([
            Cell(name), Cell(f"{curve['steps'][-1]:,}"),
            Cell(interval(end[curve["trained_on"]], ".2f", sign=True)),
            Cell(interval(end[curve["truth"]], ".2f", sign=True)),
            Cell(MISSING if curve["parted"] is None else f"{curve['parted']:,}"),
            Cell(MISSING if hacked is None else f"{hacked['step']:,}"),
            Cell(f"{curve['best']['step']:,}"), Cell(interval(curve["best"]["lost"], ".2f")),
        ])  # fmt: skip
    if not rows:
        return None
    return View(
        "Training", ["learner", "sessions", "simulated gain", "true gain", "parted at", "hacked at",
                     "truly best at", "since then"], rows,
        "Gains in return per session from the first evaluation to the last. Parted: from there on "
        "the gain promised exceeds the gain paid. Hacked: from there on the true return has fallen "
        "since its best while the simulated one rose. Both where 95% intervals over trainings and "
        "users exclude zero, at two evaluations in a row.",
    )  # fmt: skip


def ranking_table(results: Mapping[str, Any]) -> View:
    """Every policy in every world, best in truth first."""
    worlds = ("true", "simulator", "popularity_user")
    rows = [
        [Cell(row["name"]), *(Cell(interval(row[w], ".2f")) for w in worlds),
         Cell(interval(row["popularity_scorer"], ".0f"))]
        for row in results["ranking"]["policies"]
    ]  # fmt: skip
    return View(
        "Policies", ["policy", "truth", "simulator", "popularity user", "popularity shown"], rows,
        "Return per session; the last column is the mean number of interactions before T0 of the "
        "items shown in the truth. Ranges are 95% intervals over users.",
    )  # fmt: skip


def score_table(results: Mapping[str, Any]) -> View:
    """How alike each scorer ranks the policies."""
    ranking = results["ranking"]
    labels = {"simulator": "simulator", "popularity_user": "popularity user",
              "popularity_scorer": "popularity of what is shown"}  # fmt: skip
    rows = [
        [Cell(label), Cell(interval(ranking[k]["tau_b"], ".2f")),
         Cell(interval(ranking[k]["sign_accuracy"], ".2f"))]
        for k, label in labels.items()
    ]  # fmt: skip
    return View(
        "Who ranks them as the truth does", ["scorer", "Kendall tau-b", "right signs"], rows,
        f"Right signs: of the {ranking['decided']} of {ranking['pairs']} pairs that the truth "
        "tells apart. Simulator minus popularity user: "
        f"{interval(ranking['difference'], '.2f', sign=True)}. Intervals draw users anew, the same "
        "in all worlds; noise makes a drawn ranking less alike, so they lean to the low side.",
        0,
    )  # fmt: skip


def probe_table(results: Mapping[str, Any]) -> View | None:
    """What probes gain over the base policy."""
    rows = [
        [
            Cell(row["name"]), Cell(interval(row["simulated_gain"], ".2f", sign=True)),
            Cell(interval(row["true_gain"], ".2f", sign=True)),
            Cell(interval(row["excess"], ".2f", sign=True), MISSED if row["overpaid"] else MET),
            Cell(interval(row["simulated_left"], ".2f", sign=True)),
            Cell(interval(row["true_left"], ".2f", sign=True)),
        ]
        for row in results["probes"]
    ]  # fmt: skip
    if not rows:
        return None
    return View(
        f"Probes against {results['probe_base']}",
        ["probe", "simulated gain", "true gain", "simulated - true", "simulated leaving",
         "true leaving"], rows,
        "Return per session and share of sessions that the user left, minus those of "
        f"{results['probe_base']}. ✗ the simulator pays more, or punishes less, than the truth: "
        "the interval lies above zero.",
    )  # fmt: skip


def facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was compared."""
    about = results["about"]
    return [(name.replace("_", " "), str(value)) for name, value in about.items()]
