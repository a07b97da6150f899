"""Does it read what it is given?  The same simulator is asked with one thing told wrongly.

Where the true answer helps to foretell what real users took, and the wrong one harms, the simulator
moves with it in the direction that the data show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from usermirror_gym.data import TimeSplit
from usermirror_gym.fidelity.answers import scene_digest
from usermirror_gym.fidelity.checks.base import (
    SHOWN,
    SHOWN_COLUMNS,
    Card,
    Check,
    Context,
    by_name,
)
from usermirror_gym.measures.choice_scores import ObservedChoices, scores_given_click
from usermirror_gym.report.tables import View
from usermirror_gym.report.text import BETTER, OPEN, WORSE, interval, points, standing
from usermirror_gym.scenes import Scene
from usermirror_gym.simulators.session.session import rating_scale
from usermirror_gym.types import RATING, FloatArray

_FEW = 10
"""Lines of the past that are left where the older ones are left out."""
Wrong = Callable[[Scene, np.random.Generator], Scene]


class Inputs(Check):
    """``reads``: what each thing that is told is worth: right minus wrong, paired."""

    def run(self, context: Context) -> dict[str, Any]:
        rows = context.first(context.sizes.inputs)
        if context.split is None or not len(rows):
            return {"reads": []}
        scenes = [context.choices.scenes[row] for row in rows]
        asked = ObservedChoices.of(scenes)
        own = _scores(context.answered[0].probs, context.choices)[rows]
        names: list[tuple[str, int]] = []
        gains: list[FloatArray] = []
        for name, wrong in wrongly(context.split, scenes).items():
            rng = np.random.default_rng([context.seed, len(names)])
            told = [wrong(scene, rng) for scene in scenes]
            # Two NaN are the same rating.
            pairs = zip(told, scenes, strict=True)
            changed = sum(scene_digest(a) != scene_digest(b) for a, b in pairs)
            if changed:
                names.append((name, changed))
                gains.append(own - _scores(context.ask(told, name), asked))
        if (forgetful := _without_lists(context)) is not None:
            probs = context.asker(forgetful, scenes, PASSED, keep=False).probs
            names.append((PASSED, len(scenes)))
            gains.append(own - _scores(probs, asked))
        if not names:
            return {"reads": []}
        boot = context.resampled(context.choices.users[rows])
        worth = by_name(SHOWN, boot.intervals(np.hstack(gains)))
        return {
            "reads": [
                {"input": name, "count": len(rows), "changed": changed} | pair
                for (name, changed), pair in zip(names, worth, strict=True)
            ]
        }

    def sentences(self, card: Card) -> list[str]:
        found = card.get("reads") or ()
        read: dict[str, list[str]] = {BETTER: [], OPEN: [], WORSE: []}
        for row in found:
            told = f"{row['input']}: {interval(row['log_loss'], '.3f', sign=True)}"
            read[standing(row["log_loss"], lower_is_better=True)].append(told)
        words = {
            BETTER: "What it is told moves it as the data go, in nats of log-loss, told rightly "
            "minus wrongly",
            OPEN: "It is not shown to gain from being told",
            WORSE: "It does better where it is told wrongly",
        }
        return [f"{words[side]} ({'; '.join(names)})." for side, names in read.items() if names]

    def tables(self, card: Card) -> list[View | None]:
        if not card.get("reads"):
            return []
        columns: dict[str, Any] = {
            "what it is told": "input",
            "lists": "changed",
            "worth, points": lambda row: points(row["accuracy"], sign=True),
            "worth, nats": lambda row: interval(row["log_loss"], ".3f", sign=True),
        }
        note = (
            f"On the same {card['reads'][0]['count']:,} lists: told rightly minus told wrongly. "
            "Above 0 points and below 0 nats what is told moves choices as the real ones go."
        )
        return [View.of("What it reads", card["reads"], columns, note)]


PASSED = "what was passed over"


def wrongly(split: TimeSplit, scenes: Sequence[Scene]) -> Mapping[str, Wrong]:
    """By what is told, how to tell it wrongly; what data do not have leaves scenes as they are."""
    total = sum(rating_scale(split))
    users = np.unique([scene.user_id for scene in scenes])

    def mirrored(scene: Scene, _: np.random.Generator) -> Scene:
        return replace(scene, ratings=tuple(total - rating for rating in scene.ratings))

    def of_another(scene: Scene, rng: np.random.Generator) -> Scene:
        others = users[users != scene.user_id]
        return replace(scene, user_id=int(rng.choice(others))) if len(others) else scene

    def without_newest(scene: Scene, _: np.random.Generator) -> Scene:
        return _lines(scene, 0, len(scene.history) - 1)

    def without_old(scene: Scene, _: np.random.Generator) -> Scene:
        return _lines(scene, max(len(scene.history) - _FEW, 0), len(scene.history))

    rated = {"ratings (the other way round)": mirrored}
    return (rated if split.before[RATING].notna().any() else {}) | {
        "profile (of another user)": of_another,
        "newest line (left out)": without_newest,
        f"lines before the newest {_FEW} (left out)": without_old,
    }


def _lines(scene: Scene, start: int, end: int) -> Scene:
    """With some of the lines of its history."""
    kept = slice(start, max(end, start))
    return replace(
        scene, history=scene.history[kept], ratings=scene.ratings[kept], ages=scene.ages[kept],
        behaviours=scene.behaviours[kept],
    )  # fmt: skip


def _without_lists(context: Context) -> Any:
    """The simulator, of a log that does not know what was passed over; ``None`` if it has none."""
    split = context.split
    assert split is not None
    if context.remake is None or split.dataset.impressions is None:
        return None
    return context.remake(TimeSplit(replace(split.dataset, impressions=None), split.t0))


def _scores(probs: FloatArray, choices: ObservedChoices) -> FloatArray:
    """``(S, 2)``, :data:`SHOWN`."""
    return scores_given_click(probs, choices)[:, SHOWN_COLUMNS]
