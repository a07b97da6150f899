"""Plots of a transfer experiment, in the style of the benchmark report (:mod:`.plots`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from usermirror_gym.report.plots import (
    ACCENT,
    FG,
    MUTED,
    SECOND,
    Plot,
    draw_svg,
    legend_above,
    scatter,
)
from usermirror_gym.report.text import interval

_STYLES = (("-", "o"), ("--", "s"), (":", "^"))
"""Worlds are told apart without colour too."""


def curve_plot(name: str, found: Mapping[str, Any], number: int = 0) -> Plot:
    """Return over training in every world, with bands, and where they part.

    Args:
        name: of the learner.
        found: what :func:`~usermirror_gym.experiments.transfer.curves.analyse` says of it.
        number: of the plot on its page.
    """
    steps, worlds = found["steps"], _worlds(found)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for i, (world, label) in enumerate(worlds.items()):
            color = {found["truth"]: SECOND, found["trained_on"]: ACCENT}.get(world, MUTED)
            line, marker = _STYLES[i % len(_STYLES)]
            blocks = found["worlds"][world]
            low, high = ([b["mean"] if b[e] is None else b[e] for b in blocks]
                         for e in ("low", "high"))  # fmt: skip
            axes.fill_between(steps, low, high, color=color, alpha=0.15, lw=0)
            axes.plot(steps, [b["mean"] for b in blocks], line, marker=marker, ms=3.5, lw=1.8,
                      color=color, label=label)  # fmt: skip
        _mark(axes, found["parted"], "promise exceeds pay", ":")
        hacked = found["hacked"]
        _mark(axes, None if hacked is None else hacked["step"], "hacked", "-")
        axes.set_xlabel("Sessions of training")
        axes.set_ylabel("Return per session")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.02)
        axes.grid(lw=0.6)
        legend_above(axes)

    sentence = parting_sentence(found)
    ends = "; ".join(
        f"{label} from {interval(b[0], '.2f')} to {interval(b[-1], '.2f')}"
        for world, label in worlds.items() for b in [found["worlds"][world]]
    )  # fmt: skip
    bands = (
        f"Bands are 95% intervals over {found['trainings']} training"
        f"{'s' if found['trainings'] != 1 else ''} and the users. "
    )
    return Plot(
        f"{name}: return over training", bands + sentence,
        f"Return per session over training of {name}: {ends}. {sentence}",
        draw_svg(draw, 3.8, f"transfer-{number}"),
    )  # fmt: skip


def parting_sentence(found: Mapping[str, Any]) -> str:
    """Where simulated and true return part, in words."""
    if found["hacked"] is not None:
        at = found["hacked"]
        return (
            f"Reward hacking from {at['step']:,} sessions on: since {at['since']:,} the simulator "
            f"says better, and the true return has changed by {interval(at['fall'], '.2f')}."
        )
    if found["parted"] is not None:
        return (
            f"From {found['parted']:,} sessions on the simulator promises more than the truth "
            "pays; the true return has not been seen to fall while the simulated one rose."
        )
    return "Simulated and true return were not seen to part."


def ranking_plot(ranking: Mapping[str, Any]) -> Plot:
    """Takes from every recommender in the simulator against those in the truth."""
    rows = ranking["policies"]
    x, y = ([row[world] for row in rows] for world in ("true", "simulator"))
    names = [row["name"] for row in rows]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xlabel("Takes expected of a session in the truth")
        axes.set_ylabel("Takes expected in the simulator")
        scatter(axes, x, y, names, margin=0.16)

    group = next(iter(ranking["episodes"]))
    ours, popular = (
        interval(ranking["scorers"][who]["sessions"][group], ".2f")
        for who in ("simulator", "popularity_user")
    )
    whom = {"out": "Users unseen in the simulator's training", "in": "Users of its training"}
    agreement = (
        f"{whom[group]}: Kendall tau-b {ours}; a user who chooses by popularity reaches {popular}."
    )
    return Plot(
        f"{len(rows)} recommenders, ranked twice", agreement,
        f"Takes expected in the simulator against those in the truth for {', '.join(names)}. "
        f"{agreement}",
        draw_svg(draw, 4.6, "ranking"),
    )  # fmt: skip


def _worlds(found: Mapping[str, Any]) -> dict[str, str]:
    """Names of the worlds and how the legend calls them, the one trained on first."""
    first, truth = found["trained_on"], found["truth"]
    others = [w for w in found["worlds"] if w not in (first, truth)]
    labels = {first: f"{first} (trained on)"} | {w: w for w in others}
    return labels | {truth: "ground truth (never seen)"}


def _mark(axes: Axes, step: int | None, label: str, style: str) -> None:
    if step is not None:
        axes.axvline(step, color=FG, lw=1.2, ls=style, label=label, zorder=1)
