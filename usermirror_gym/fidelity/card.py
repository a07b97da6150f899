"""The fidelity card: all that is known of how far a simulated user chooses like real ones.

:func:`fidelity_card` asks and computes; ``usermirror evaluate`` writes what it returns.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from usermirror_gym.errors import ConfigError
from usermirror_gym.fidelity.answers import CHUNK, scenes_digest, timed_answer
from usermirror_gym.fidelity.baselines import KINDS
from usermirror_gym.fidelity.checks.controls import LIST_ONLY, SWAPPED, HistoryHidden, list_controls
from usermirror_gym.fidelity.checks.order import order_sensitivity, repeat_difference
from usermirror_gym.fidelity.checks.outside_option import detection, ladder
from usermirror_gym.fidelity.checks.slices import exposure, slices
from usermirror_gym.fidelity.checks.text_attacks import Remake, text_probes
from usermirror_gym.fidelity.rows import (
    Answered,
    chooser_blocks,
    history_block,
    leaves,
    paired_blocks,
)
from usermirror_gym.fidelity.show.pages import FORMAT
from usermirror_gym.files import to_json_types
from usermirror_gym.measures.bootstrap import UserBootstrap
from usermirror_gym.measures.choice_scores import Truth, forced_scores
from usermirror_gym.progress import Display
from usermirror_gym.run_folder import package_versions
from usermirror_gym.scenes import Scene, swap_histories
from usermirror_gym.scenes.table import scenes_of
from usermirror_gym.simulators.base import UserSimulator
from usermirror_gym.types import BoolArray, FloatArray

if TYPE_CHECKING:
    from usermirror_gym.fidelity.scenes import CardScenes

BASE = "base"
_PHASE = 28
"""Longest name of a progress bar."""


@dataclass(frozen=True)
class CardSizes:
    """How many scenes each check beyond the scores asks about; the first of the evaluation."""

    order: int = 150
    permutations: int = 8
    repeats: int = 60
    ladder: int = 300
    probes: int = 150
    n_resamples: int = 2000
    """Of the bootstrap over users."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 1 if name in ("permutations", "n_resamples") else 0
            if value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value!r}")


class _Asker:
    """Asks simulators with progress, and keeps what they say."""

    def __init__(self, store: Path | None, settings: Mapping[str, Any], display: Display) -> None:
        self.store, self.settings, self.display = store, settings, display

    def timed(
        self,
        simulator: UserSimulator,
        scenes: Sequence[Scene],
        what: str,
        *,
        part: str = "",
        keep: bool = True,
        chunk: int = CHUNK,
    ) -> tuple[FloatArray, float]:
        """Answers and their seconds; ``part`` is a store of its own for other questions."""
        store = self.store / part if self.store is not None and keep else None
        shown = what if len(what) <= _PHASE else f"{what[: _PHASE - 1]}…"
        with self.display.phase(shown, len(scenes), "choices") as progress:
            # The settings are those of the simulator that is judged, not of its base.
            settings = None if part == BASE else self.settings
            return timed_answer(
                simulator, scenes, store=store, settings=settings, progress=progress, chunk=chunk
            )

    def __call__(self, simulator: UserSimulator, scenes: Sequence[Scene], what: str) -> FloatArray:
        return self.timed(simulator, scenes, what)[0]


def fidelity_card(
    simulator: UserSimulator,
    data: CardScenes,
    *,
    base: UserSimulator | None = None,
    choosers: Mapping[str, UserSimulator] | None = None,
    remake: Remake | None = None,
    options: Mapping[str, Any] | None = None,
    sizes: CardSizes | None = None,
    seed: int = 0,
    store: Path | None = None,
    display: Display | None = None,
) -> dict[str, Any]:
    """The content of ``card.json``, in plain types; what cannot be computed is ``None`` or empty.

    The simulator, its base and its controls stand beside the classic choosers on the same scenes.
    All intervals are 95 % by one bootstrap over users, so that differences are paired.

    Args:
        simulator: whom the card is about.
        data: evaluation scenes, the data behind them, and scenes before T0 to fit controls on.
        base: the same simulator before it was trained.
        choosers: classic choosers by name (:func:`.choosers.classic_choosers`).
        remake: makes the simulator for another data set, for the probes, which edit titles; e.g.
            ``lambda split: make_simulator(name, split, **options)``.
        options: the simulator's settings, as they are to be shown.
        sizes: of the further checks.
        seed: of permutations, swaps, ladders, probes and resamples.
        store: folder for the answers of simulator, base and controls; with it a run that was
            killed goes on.  Classic choosers are quick and asked anew.
        display: shows progress.

    Raises:
        ConfigError: there are no evaluation scenes.
        RunError: the store holds answers that a simulator no longer gives.
    """
    started = time.perf_counter()
    sizes = sizes or CardSizes()
    scenes = scenes_of(data.evaluation)
    if not scenes:
        raise ConfigError("there are no evaluation scenes; name scenes at or after T0")
    truth = Truth.of(scenes)
    if not truth.held.any():
        raise ConfigError(
            f"none of the {len(scenes)} evaluation scenes holds the item that was chosen; "
            "build scenes with removed below 1"
        )
    ask = _Asker(store, dict(options or {}), display or Display(quiet=True))
    rows = _answers(simulator, scenes, data, base, choosers or {}, seed, ask)
    bootstrap = UserBootstrap(truth.users, n_resamples=sizes.n_resamples, seed=seed)
    groups = slices(data.evaluation, data.split)
    scores = {row.name: forced_scores(row.probs, truth) for row in rows}
    own = rows[0]
    paired = paired_blocks(scores, bootstrap)
    card = {
        "format": FORMAT,
        "simulator": {"name": own.name, "model": _model(simulator), "options": options or {}},
        "base": next((row.name for row in rows if row.kind == BASE), None),
        "scenes": _scene_facts(data, scenes, truth, seed),
        "choosers": chooser_blocks(rows, scores, scenes, truth, groups, bootstrap, seed),
        "paired": paired,
        "history": history_block(paired),
        "outside": _outside(own, data, truth, bootstrap, ask, simulator, sizes, seed),
        "order": _order(own, scenes, truth, ask, simulator, sizes, seed),
        "probes": _probes(data, scenes, truth, ask, remake, sizes, seed),
        "bars": [],
        "verdict": [],
        "versions": package_versions(),
        "seconds": time.perf_counter() - started,
    }
    return to_json_types(card)


def _answers(
    simulator: UserSimulator,
    scenes: Sequence[Scene],
    data: CardScenes,
    base: UserSimulator | None,
    choosers: Mapping[str, UserSimulator],
    seed: int,
    ask: _Asker,
) -> list[Answered]:
    """Everybody's answers; the simulator's first."""
    rows: list[Answered] = []

    def add(
        name: str,
        kind: str,
        who: UserSimulator,
        *,
        where: Sequence[Scene] = scenes,
        part: str = "",
        keep: bool = True,
    ) -> None:
        taken = {row.name for row in rows}
        name = f"{name} ({kind})" if name in taken else name
        rows.append(Answered(name, kind, *ask.timed(who, where, name, part=part, keep=keep)))

    add(simulator.name, "simulator", simulator)
    if base is not None:
        add(f"base: {base.name}", BASE, base, part=BASE)
    add(SWAPPED, "swapped", simulator, where=swap_histories(scenes, seed))
    add(LIST_ONLY, "control", HistoryHidden(simulator))
    for name, control in list_controls(data.split, scenes_of(data.train)).items():
        add(name, "control", control, keep=False)
    for name, chooser in choosers.items():
        add(name, KINDS.get(name, "classic"), chooser, keep=False)
    return rows


def _scene_facts(
    data: CardScenes, scenes: Sequence[Scene], truth: Truth, seed: int
) -> dict[str, Any]:
    lengths = truth.shown.sum(axis=1)
    low, high = int(lengths.min()), int(lengths.max())
    seen = data.evaluation["seen_user"].to_numpy(zero_copy_only=False)
    return {
        "source": data.source,
        "t0": None if data.split is None else data.split.t0,
        "count": len(scenes),
        "with_target": int(truth.held.sum()),
        "removed": int((~truth.held).sum()),
        "k": low if low == high else [low, high],
        "seed": seed,
        "users": len(np.unique(truth.users)),
        "seen_users": len(np.unique(truth.users[seen])),
        "hash": scenes_digest(scenes),
    } | exposure(data.evaluation, data.split)


def _outside(
    own: Answered,
    data: CardScenes,
    truth: Truth,
    bootstrap: UserBootstrap,
    ask: _Asker,
    simulator: UserSimulator,
    sizes: CardSizes,
    seed: int,
) -> dict[str, Any] | None:
    if not leaves(own):
        return None
    steps: list[dict[str, Any]] = []
    if data.split is not None and sizes.ladder:
        steps = ladder(
            lambda scenes, what: ask(simulator, scenes, what), data.split, data.evaluation,
            count=min(sizes.ladder, int(truth.held.sum())), seed=seed,
            n_resamples=sizes.n_resamples,
        )  # fmt: skip
    return detection(own.probs, truth, bootstrap) | {"ladder": steps}


def _order(
    own: Answered,
    scenes: Sequence[Scene],
    truth: Truth,
    ask: _Asker,
    simulator: UserSimulator,
    sizes: CardSizes,
    seed: int,
) -> dict[str, Any] | None:
    rows = _first(truth.held, sizes.order)
    if not len(rows):
        return None
    chosen, probs = [scenes[row] for row in rows], own.probs[rows]
    found = order_sensitivity(
        lambda scenes, what: ask(simulator, scenes, what), chosen, _narrowed(probs, chosen),
        permutations=sizes.permutations, seed=seed, n_resamples=sizes.n_resamples,
    )  # fmt: skip
    few = chosen[: sizes.repeats]
    found["duplicates_max_difference"] = None
    if few:
        found["duplicates_max_difference"] = repeat_difference(
            # Never from the store: the question is whether the answer is the same.
            lambda scenes, what: ask.timed(simulator, scenes, what, keep=False, chunk=7)[0],
            few, _narrowed(probs[: len(few)], few),
        )  # fmt: skip
    return found


def _probes(
    data: CardScenes,
    scenes: Sequence[Scene],
    truth: Truth,
    ask: _Asker,
    remake: Remake | None,
    sizes: CardSizes,
    seed: int,
) -> list[dict[str, Any]]:
    rows = _first(truth.held, sizes.probes)
    if remake is None or data.split is None or not len(rows):
        return []
    return text_probes(
        remake, data.split, [scenes[row] for row in rows],
        # Other texts under the same ids: each probe has a store of its own.
        lambda who, asked, what: ask.timed(who, asked, what, part=_slug(what))[0],
        seed=seed, n_resamples=sizes.n_resamples,
    )  # fmt: skip


def _first(members: BoolArray, count: int) -> np.ndarray:
    return np.flatnonzero(members)[:count]


def _slug(words: str) -> str:
    return "-".join(re.findall("[a-z0-9]+", words.lower()))


def _narrowed(probs: FloatArray, scenes: Sequence[Scene]) -> FloatArray:
    """Without the columns that only longer lists have."""
    width = max(len(scene.slate) for scene in scenes)
    return np.column_stack([probs[:, :width], probs[:, -1]])


def _model(simulator: UserSimulator) -> str | None:
    """The LLM behind a simulator, if there is one."""
    return getattr(getattr(simulator, "engine", None), "model_id", None)
