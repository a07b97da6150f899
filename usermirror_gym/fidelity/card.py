"""The fidelity card: all that is known of how far a simulated user chooses like real ones.

:func:`fidelity_card` asks everybody and runs the checks (:mod:`usermirror_gym.fidelity.checks`);
``usermirror evaluate`` writes what it returns.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from usermirror_gym.errors import ConfigError
from usermirror_gym.fidelity.answers import scenes_digest
from usermirror_gym.fidelity.baselines import KINDS
from usermirror_gym.fidelity.baselines.controls import LIST_ONLY, HistoryHidden, list_controls
from usermirror_gym.fidelity.checks import run_checks
from usermirror_gym.fidelity.checks.base import (
    BASE,
    SWAPPED,
    Answered,
    Asker,
    CardSizes,
    Context,
    Remake,
)
from usermirror_gym.fidelity.checks.slices import exposure
from usermirror_gym.fidelity.pages import FORMAT
from usermirror_gym.fidelity.scenes import CardScenes
from usermirror_gym.files import to_json_types
from usermirror_gym.measures.choice_scores import ObservedChoices
from usermirror_gym.progress import Display
from usermirror_gym.run_folder import package_versions
from usermirror_gym.scenes import Scene, swap_histories
from usermirror_gym.scenes.table import scenes_of
from usermirror_gym.simulators.base import UserSimulator


def fidelity_card(
    simulator: UserSimulator,
    data: CardScenes,
    *,
    name: str | None = None,
    base: UserSimulator | None = None,
    base_name: str | None = None,
    baselines: Mapping[str, UserSimulator] | None = None,
    remake: Remake | None = None,
    options: Mapping[str, Any] | None = None,
    tried: int | None = None,
    sizes: CardSizes | None = None,
    seed: int = 0,
    store: Path | None = None,
    display: Display | None = None,
) -> dict[str, Any]:
    """The content of ``card.json``, in plain types; what cannot be computed is ``None`` or empty.

    The simulator, its base and its controls stand beside the classic baselines on the same scenes.
    All intervals are 95 % by one bootstrap over users, so that differences are paired.

    Args:
        simulator: whom the card is about.
        data: evaluation scenes, the data behind them, and scenes before T0 to fit controls on.
        name: how the card calls the simulator, instead of its own name, which becomes the model's.
        base: the same simulator before it was trained.
        base_name: how the card calls the base.
        baselines: classic baselines by name (:func:`.baselines.classic_baselines`).
        remake: makes the simulator for another data set, for attacks, which edit titles; e.g.
            ``lambda split: make_simulator(name, split, **options)``.
        options: the simulator's settings, as they are to be shown.
        tried: how many configurations were tried on validation before it was chosen, if known.
        sizes: of the further checks.
        seed: of permutations, swaps, ladders, attacks and resamples.
        store: folder for the answers of simulator, base and controls; with it a run that was
            killed goes on.  Classic baselines are quick and asked anew.
        display: shows progress.

    Raises:
        ConfigError: there are no evaluation scenes.
        RunError: the store holds answers that a simulator no longer gives.
    """
    started = time.perf_counter()
    scenes = scenes_of(data.evaluation)
    if not scenes:
        raise ConfigError("there are no evaluation scenes; name scenes at or after T0")
    choices = ObservedChoices.of(scenes)
    if not choices.contains_choice.any():
        raise ConfigError(
            f"none of the {len(scenes)} evaluation scenes holds the item that was chosen; "
            "build scenes with removed below 1"
        )
    asker = Asker(store, options or {}, display or Display(quiet=True))
    others = swap_histories(scenes, seed)
    answered = _answers(simulator, scenes, others, data, base, baselines or {}, asker)
    for place, (kind, own) in enumerate((("simulator", name), (BASE, base_name))):
        if own is not None and answered[place].kind == kind:
            answered[place] = replace(answered[place], name=own)
    context = Context(
        choices, answered, simulator, data.split, data.evaluation, asker, remake,
        sizes or CardSizes(), seed,
    )  # fmt: skip
    model: str | None = simulator.name
    if name is None:
        model = getattr(getattr(simulator, "engine", None), "model_id", None)
    card = {
        "format": FORMAT,
        "simulator": {
            "name": answered[0].name,
            "model": model,
            "options": options or {},
            "tried": tried,
        },
        "base": next((row.name for row in answered if row.kind == BASE), None),
        "scenes": _scene_facts(data, choices, others, seed),
        **run_checks(context),
        "bars": [],
        "verdict": [],
        "versions": package_versions(),
        "seconds": time.perf_counter() - started,
    }
    return to_json_types(card)


def _answers(
    simulator: UserSimulator,
    scenes: Sequence[Scene],
    others: Sequence[Scene],
    data: CardScenes,
    base: UserSimulator | None,
    baselines: Mapping[str, UserSimulator],
    asker: Asker,
) -> list[Answered]:
    """Everybody's answers; the simulator's first.

    Args:
        others: the scenes with swapped histories.
    """
    asked: list[tuple[str, str, UserSimulator, Sequence[Scene], str, bool]] = [
        (simulator.name, "simulator", simulator, scenes, "", True),
        *([] if base is None else [(f"base: {base.name}", BASE, base, scenes, BASE, True)]),
        (SWAPPED, "swapped", simulator, others, "", True),
        (LIST_ONLY, "control", HistoryHidden(simulator), scenes, "", True),
    ]
    for name, control in list_controls(data.split, scenes_of(data.train)).items():
        asked.append((name, "control", control, scenes, "", False))
    for name, baseline in baselines.items():
        asked.append((name, KINDS.get(name, "classic"), baseline, scenes, "", False))
    rows: dict[str, Answered] = {}
    for name, kind, who, where, part, keep in asked:
        name = f"{name} ({kind})" if name in rows else name
        rows[name] = Answered(name, kind, *asker(who, where, name, part=part, keep=keep))
        if name in baselines:  # whose own history is weighed, too: they answer at once
            swapped = asker(who, others, f"{name}, swapped", keep=False).probs
            rows[name] = replace(rows[name], swapped=swapped)
    own, *rest = rows.values()
    swapped = next(row.probs for row in rest if row.kind == "swapped")
    return [replace(own, swapped=swapped), *rest]


def _scene_facts(
    data: CardScenes, choices: ObservedChoices, others: Sequence[Scene], seed: int
) -> dict[str, Any]:
    lengths = choices.shown.sum(axis=1)
    low, high = int(lengths.min()), int(lengths.max())
    seen = data.evaluation["seen_user"].to_numpy(zero_copy_only=False)
    as_long = [
        len(own.history) == len(other.history)
        for own, other in zip(choices.scenes, others, strict=True)
    ]
    return {
        "source": data.source,
        "t0": None if data.split is None else data.split.t0,
        "count": len(choices),
        "with_target": int(choices.contains_choice.sum()),
        "removed": int((~choices.contains_choice).sum()),
        "k": low if low == high else [low, high],
        "seed": seed,
        "users": len(np.unique(choices.users)),
        "seen_users": len(np.unique(choices.users[seen])),
        "hash": scenes_digest(choices.scenes),
        # Texts have no lines that could be counted.
        "swapped_as_long": None if data.split is None else float(np.mean(as_long)),
    } | exposure(data.evaluation, data.split)
