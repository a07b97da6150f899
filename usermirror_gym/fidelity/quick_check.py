"""A small fidelity card: a first check of how far a simulated user chooses like the real ones.

Real choices after T0 stand in lists with sampled distractors; the simulator, the same simulator
with another user's history, and two yardsticks without a history choose among them.  *None of
these* is left out here (the real user did choose): probabilities are renormalised over the items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from usermirror_gym.configs.session import SLATE_SIZE
from usermirror_gym.data import TimeSplit
from usermirror_gym.fidelity.answers import Progress, answer
from usermirror_gym.fidelity.checks import run_checks
from usermirror_gym.fidelity.checks.base import SHOWN, SWAPPED, Answered, Context
from usermirror_gym.fidelity.checks.history import History
from usermirror_gym.fidelity.checks.scores import Scores
from usermirror_gym.files import to_json_types
from usermirror_gym.measures.choice_scores import ObservedChoices
from usermirror_gym.report.text import BETTER, OPEN, WORSE, interval, standing
from usermirror_gym.scenes import ScenePlan, build_scenes, swap_histories
from usermirror_gym.simulators.base import UserSimulator
from usermirror_gym.simulators.classic import PopularityChooser, UniformChooser

SAMPLERS = ("uniform", "popularity")
CHECKS = (Scores(), History())
_BATCH = 10


def fidelity_check(
    split: TimeSplit,
    simulator: UserSimulator,
    *,
    scenes: int = 300,
    slate_size: int = SLATE_SIZE,
    seed: int = 0,
    progress: Progress = lambda done: None,
) -> dict[str, Any]:
    """Accuracy and log-loss of the simulator and its controls, with 95 % intervals over users.

    Args:
        scenes: how many real choices, half with uniform and half with popularity-sampled
            distractors.
        slate_size: options per list, as many as in the lists that the simulator is to be asked
            about.
        progress: told how many scenes were answered since the last call
            (twice ``scenes`` in all: with own and with swapped histories).

    Returns:
        plain types: ``scenes``, ``slate_size``, ``simulator``, ``rows`` (one per sampler and
        chooser, each with ``accuracy`` and ``log_loss`` as ``{mean, low, high}`` and ``n``),
        ``gaps`` (own minus swapped history, accuracy) and a ``verdict``.
    """
    rows: list[dict[str, Any]] = []
    gaps, sentences, asked = {}, [], 0
    for sampler in SAMPLERS:
        plan = ScenePlan(
            count=scenes // 2, slate_size=slate_size, samplers={sampler: 1.0}, seed=seed
        )
        own = build_scenes(split, plan)
        who = {
            "simulator": (simulator, own, progress),
            SWAPPED: (simulator, swap_histories(own, seed), progress),
            "popularity": (PopularityChooser(split), own, lambda done: None),
            "uniform": (UniformChooser(), own, lambda done: None),
        }
        answered = [
            Answered(name, name, *answer(one, lists, progress=told, chunk=_BATCH))
            for name, (one, lists, told) in who.items()
        ]
        context = Context(ObservedChoices.of(own), answered, simulator, split, seed=seed)
        card = to_json_types(run_checks(context, CHECKS))
        asked += len(own)
        for chooser in card["choosers"]:
            forced = chooser["overall"]["forced"]
            row = {"sampler": sampler, "chooser": chooser["name"], "n": len(own)}
            rows.append(row | {metric: forced[metric] for metric in SHOWN})
        gaps[sampler] = card["history"]["accuracy"]
        popularity = next(pair for pair in card["paired"] if pair["against"] == "popularity")
        sentences.append(_sentence(sampler, card["history"], popularity))
    return {
        "scenes": asked,
        "slate_size": slate_size,
        "simulator": simulator.name,
        "rows": rows,
        "gaps": gaps,
        "verdict": "; ".join(sentences).capitalize() + ".",
    }


def _sentence(sampler: str, history: Mapping[str, Any], popularity: Mapping[str, Any]) -> str:
    """One clause; decided by log-loss, which sees more of the answer than accuracy does.

    Args:
        history: own minus swapped history.
        popularity: simulator minus popularity.
    """
    loss = history["log_loss"]
    reads = standing(loss, lower_is_better=True) == BETTER
    against = {BETTER: "beats", OPEN: "does not beat", WORSE: "loses to"}[
        standing(popularity["log_loss"], lower_is_better=True)
    ]
    ends = {"low": loss["high"], "high": loss["low"]}
    return (
        f"on {sampler} lists it {'reads' if reads else 'is not shown to read'} the history "
        f"(another user's history costs {interval(history['accuracy'], '.0f', scale=100)} points "
        f"of accuracy and {interval({**loss, **ends}, '.2f', scale=-1)} nats) and {against} "
        "popularity"
    )
