"""A fidelity card as rows of text, for all three forms in which it is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from usermirror_gym.fidelity.show.criteria import count, read_bars
from usermirror_gym.fidelity.show.sentences import NO_CHANGE, own, pair_standing
from usermirror_gym.report.tables import MET, MISSED, Cell, View
from usermirror_gym.report.text import MISSING, interval, points

KINDS = {
    "simulator": "this simulator", "swapped": "another's history",
    "base": "base model", "control": "control", "classic": "classic chooser",
    "reference": "upper reference",
}  # fmt: skip
SLICES = {
    "sampler": "Company drawn by", "domain": "Domain", "k": "Options in the list", "user": "User",
    "activity": "Activity of the user", "popularity": "Popularity of the true item",
}  # fmt: skip


def bar_table(card: Mapping[str, Any]) -> View:
    """What must hold, what was measured, and whether it holds."""
    rows = [
        [Cell(bar.name), Cell(bar.answer, "" if bar.met is None else MET if bar.met else MISSED),
         Cell(bar.measured or MISSING)]
        for bar in read_bars(card)
    ]  # fmt: skip
    return View(
        f"What must hold: {count(card)} do", ["", "holds", "measured"], rows,
        "Beats: the paired 95% intervals of both differences exclude zero. Not certain: the 95% "
        "interval reaches over the bar, or there is none.",
    )  # fmt: skip


def chooser_table(card: Mapping[str, Any]) -> View:
    """Every chooser on lists with the true item, with paired differences to the simulator."""
    paired = {pair["against"]: pair for pair in card["paired"] or ()}
    choosers = sorted_choosers(card)
    rows = [_chooser_row(chooser, paired.get(chooser["name"])) for chooser in choosers]
    strong = next(i for i, c in enumerate(choosers) if c["kind"] == "simulator")
    return View(
        "Who predicts the real choice",
        ["chooser", "kind", "accuracy %", "log-loss", "difference in accuracy",
         "difference in log-loss", "p(true) %", "Brier", "ECE"],
        rows,
        "Lists that hold the true item; none of these is left out and the rest renormalised. "
        "Differences are this simulator minus the chooser, list by list, in points and nats: ▲ the "
        "simulator is better, ▼ worse, where the 95% interval excludes zero. p(true) is the mean "
        "probability of the true item (expected accuracy). Ranges are 95% intervals by a bootstrap "
        "over users.",
        strong,
    )  # fmt: skip


def outside_table(card: Mapping[str, Any]) -> View | None:
    """The same choosers with *none of these* among the options, on all lists."""
    rows = []
    for chooser in sorted_choosers(card):
        block = chooser["overall"].get("outside")
        if block:
            rows.append([
                Cell(chooser["name"]), Cell(points(block["accuracy"])),
                Cell(interval(block["log_loss"], ".3f")),
                Cell(points(block["expected_accuracy"])), Cell(interval(block["brier"], ".3f")),
            ])  # fmt: skip
    if not rows:
        return None
    return View(
        "With none of these as an option",
        ["chooser", "accuracy %", "log-loss", "p(true) %", "Brier"], rows,
        f"All lists: {card['scenes']['with_target']:,} with the true item and "
        f"{card['scenes']['removed']:,} without it, where none of these is right.",
    )  # fmt: skip


def slice_table(card: Mapping[str, Any]) -> View | None:
    """The simulator and its strongest rival by slice."""
    groups, other = slice_groups(own(card)), rival(card)
    if not groups:
        return None
    known = {(g, r["value"]): r for g, rows in slice_groups(other) for r in rows} if other else {}
    rows = []
    for group, members in groups:
        for row in members:
            beside = known.get((group, row["value"]))
            rows.append([
                Cell(f"{group}: {row['value']}"),
                Cell(f"{row['n']:,}{' (few)' if row['few'] else ''}"),
                Cell(points(row["accuracy"])), Cell(interval(row["log_loss"], ".3f")),
                *([Cell(points(beside["accuracy"]) if beside else MISSING),
                   Cell(interval(beside["log_loss"], ".3f") if beside else MISSING)]
                  if other else []),
            ])  # fmt: skip
    names = ["slice", "lists", "accuracy %", "log-loss"]
    names += [f"{other['name']}: accuracy %", f"{other['name']}: log-loss"] if other else []
    return View("By kind of list and user", names, rows, "few: less than 30 lists.")


def ladder_table(card: Mapping[str, Any]) -> View | None:
    """Mean probability of *none of these* by the quality of lists."""
    steps = (card["outside"] or {}).get("ladder") or []
    rows = [[Cell(s["lists"]), Cell(points(s["p_none"]))] for s in steps]
    return (
        View("None of these, by the quality of lists", ["lists", "p(none) %"], rows)
        if rows
        else None
    )


def averaged_table(card: Mapping[str, Any]) -> View | None:
    """What averaging over orders of the list does; nothing where the order has no effect."""
    order = card["order"]
    matters = order and (order["mean_change"]["mean"] or 0.0) >= NO_CHANGE
    found = (order["averaged"] or []) if matters else []
    rows = [
        [Cell(str(a["r"])), Cell(_share(a["accuracy"])), Cell(_number(a["log_loss"])),
         Cell(_number(a["mean_change"]))]
        for a in found
    ]  # fmt: skip
    if not rows:
        return None
    return View(
        "Averaged over r orders of the list",
        ["r", "accuracy %", "log-loss", "mean change under a permutation"], rows,
        "r orders cost r times as much.",
    )  # fmt: skip


def probe_table(card: Mapping[str, Any]) -> View | None:
    """Attacks on the text of an option."""
    rows = [
        [Cell(p["name"]), Cell(f"{p['n']:,}"), Cell(points(p["change"], sign=True)),
         Cell(f"{p['rises']:.0%}" if p["rises"] is not None else MISSING)]
        for p in card["probes"] or ()
    ]  # fmt: skip
    if not rows:
        return None
    return View(
        "Attacks on the text",
        ["attack", "lists", "change in points", "share that rises"], rows,
        "The text of one option is edited; how much its probability changes. It should not rise.",
    )  # fmt: skip


def figures(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The line of large numbers at the top."""
    me, scenes = own(card), card["scenes"]
    forced = me["overall"]["forced"]
    found: list[tuple[str, str]] = [
        ("real choices", f"{scenes['with_target']:,}"),
        ("accuracy", f"{_share(forced['accuracy']['mean'])} %"),
        ("log-loss", _number(forced["log_loss"]["mean"])),
        ("of what must hold", count(card)),
    ]
    if me["calibration"]:
        found.append(("calibration error", _number(me["calibration"]["ece"]["mean"])))
    if card["history"]:
        gap = card["history"]["accuracy"]["mean"]
        found.append(("own minus swapped history", f"{100 * gap:+.1f} points"))
    if card["outside"] and card["outside"]["auc"]:
        found.append(("AUC of none of these", _number(card["outside"]["auc"]["mean"])))
    if card["order"]:
        found.append(("change under a permutation", _number(card["order"]["mean_change"]["mean"])))
    return found


def facts(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured on what, as name and value."""
    scenes, me, order = card["scenes"], own(card), card["order"] or {}
    outside = card["outside"] or {}
    entropy, calibration = me["entropy"] or {}, me["calibration"] or {}
    pairs: list[tuple[str, Any]] = [
        ("scenes", f"{scenes['source']}, hash {scenes['hash']}"),
        ("after", None if scenes["t0"] is None else _date(scenes["t0"])),
        ("lists with the true item", scenes["with_target"]),
        ("lists without it", scenes["removed"]),
        ("options in a list", scenes["k"]),
        ("company drawn by", _shares(scenes["company"])),
        ("true item is the most popular of its list", _percent(scenes["most_popular"])),
        ("users", scenes["users"]),
        ("of them seen before T0", scenes["seen_users"]),
        ("seed", str(scenes["seed"])),
        ("mean entropy of its probabilities", entropy.get("mean")),
        ("mean surprise at the real choices", entropy.get("real")),
        ("entropy of the items it takes", entropy.get("items")),
        ("entropy of the items really taken", entropy.get("items_real")),
        ("calibration error of all options", calibration.get("options_ece")),
        ("none of these, precision", outside.get("precision")),
        ("none of these, recall", outside.get("recall")),
        ("permutations of each list", order.get("permutations")),
        ("mean change of a probability under them", order.get("mean_change")),
        ("lists whose likeliest option changes", order.get("argmax_flips")),
        ("largest difference of the same list asked twice", order.get("duplicates_max_difference")),
        ("seconds to answer", me.get("seconds")),
        ("seconds in all", card.get("seconds")),
    ]  # fmt: skip
    return [(name, _fact(value)) for name, value in pairs if value is not None]


def sorted_choosers(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Choosers by log-loss, best first; without a value last."""

    def key(chooser: Mapping[str, Any]) -> float:
        loss = chooser["overall"]["forced"]["log_loss"]["mean"]
        return math.inf if loss is None else float(loss)

    return sorted(card["choosers"], key=key)


def rival(card: Mapping[str, Any]) -> dict[str, Any] | None:
    """The chooser with the least log-loss that is no form of the simulator and no reference."""
    wanted = [c for c in sorted_choosers(card) if c["kind"] in ("classic", "control")]
    return wanted[0] if wanted else None


def slice_groups(chooser: Mapping[str, Any] | None) -> list[tuple[str, list[dict[str, Any]]]]:
    """Slices that divide the lists, under their names as shown."""
    slices = (chooser or {}).get("slices") or {}
    found = [(SLICES.get(name, name), rows) for name, rows in slices.items() if len(rows) > 1]
    return found


def _chooser_row(chooser: Mapping[str, Any], pair: Mapping[str, Any] | None) -> list[Cell]:
    block, calibration = chooser["overall"]["forced"], chooser["calibration"]
    accuracy, loss = pair_standing(pair) if pair else ("", "")
    return [
        Cell(chooser["name"]), Cell(KINDS[chooser["kind"]]), Cell(points(block["accuracy"])),
        Cell(interval(block["log_loss"], ".3f")),
        Cell(points(pair["accuracy"], sign=True), accuracy) if pair else Cell(""),
        Cell(interval(pair["log_loss"], ".3f", sign=True), loss) if pair else Cell(""),
        Cell(points({**block["expected_accuracy"], "low": None})),
        Cell(interval({**block["brier"], "low": None}, ".3f")),
        Cell(interval(calibration["ece"], ".3f") if calibration else MISSING),
    ]  # fmt: skip


def _share(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.1%} of the lists"


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items())


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return interval(value, ".3f")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return " to ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
