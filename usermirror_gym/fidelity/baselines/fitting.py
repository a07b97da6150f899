"""Classic baselines for the lists of a fidelity card, each as strong as its kind allows."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import RunError, UnknownNameError
from usermirror_gym.fidelity.baselines.base import ScoredBaseline, Stages, Trial, judge
from usermirror_gym.fidelity.baselines.registry import CONTROLS, PAIRS, RECIPES
from usermirror_gym.files import load_arrays, read_json, save_arrays, write_json
from usermirror_gym.measures.choice_models import NestedLogit
from usermirror_gym.progress import Display
from usermirror_gym.run_folder import locked, package_versions
from usermirror_gym.scenes import SceneBatch
from usermirror_gym.types import FloatArray

FORMAT = 2
"""Changes whenever the same data and recipe would be fitted differently."""
STACK = "stack"
BASELINES = (*RECIPES, *PAIRS, STACK)
"""Names, in the order of reports."""
KINDS = dict.fromkeys(BASELINES, "classic") | dict.fromkeys(CONTROLS, "control")
KINDS[STACK] = "reference"
"""A stack combines the others: it bounds what can be reached and is no rival."""


def classic_baselines(
    split: TimeSplit,
    train: pa.Table,
    validation: pa.Table,
    *,
    names: Sequence[str] = BASELINES,
    seed: int = 0,
    store: Path | None = None,
    display: Display | None = None,
) -> dict[str, ScoredBaseline]:
    """Fit the baselines by name, on what is before T0 alone.

    The last part of the train scenes, with the validation scenes, is set aside.  Every model is
    first trained before it; settings, the scale of the utilities and when nothing is taken are
    what foretells these scenes best.  Then the model is trained again on everything before T0.
    All of them see of a user what the scene shows; what a model with a vector per user trained
    for a user of the log is not used.

    Args:
        split: cut at T0; only ``split.before`` is read.
        train, validation: tables of scenes before T0
            (:data:`usermirror_gym.scenes.table.SCHEMA`).
        names: of :data:`BASELINES`.  The stack weighs the other names that are given and are no
            mixtures themselves, all of them if there are none.
        seed: of whatever draws.
        store: folder for what takes long to fit; a killed run goes on from there.  What another
            recipe, another version of a package, or other data left there is not used, and what
            cannot be read is fitted anew.  Two processes take turns.
        display: says what is going on.

    Returns:
        baselines by name, in the order of ``names``; ``about`` of each says the ``settings``, the
        ``loss`` on the scenes set aside and the ``seconds`` that the fit took.

    Raises:
        UnknownNameError: no such baseline; suggests the nearest.
        ConfigError: too few scenes before T0, or scenes that are not before it.
    """
    for name in names:
        if name not in BASELINES:
            raise UnknownNameError("classic baseline", name, BASELINES)
    single = [name for name in names if name in RECIPES]
    mixed = {n: PAIRS.get(n, single or list(RECIPES)) for n in names if n not in RECIPES}
    stages = Stages.of(split, train, validation, seed=seed)
    folder = None if store is None else store / _key(split, train, validation, seed)
    fitting = _Fitting(stages, folder, display or Display(quiet=True))
    with fitting.alone():
        needed = dict.fromkeys([*single, *(part for parts in mixed.values() for part in parts)])
        found = {name: fitting.baseline(name) for name in needed}
    mixtures = {
        name: fitting.mixture(name, {part: found[part] for part in parts})
        for name, parts in mixed.items()
    }
    found |= mixtures
    return {name: found[name] for name in dict.fromkeys(names)}


@dataclass
class _Fitting:
    """One set of data and scenes, whose baselines are fitted one by one."""

    stages: Stages
    folder: Path | None
    display: Display
    settled: dict[str, Trial] = field(default_factory=dict)

    def alone(self) -> AbstractContextManager[None]:
        """No other process writes into the folder meanwhile."""
        if self.folder is None:
            return nullcontext()
        return locked(self.folder, "fits", wait=self.display.say)

    def baseline(self, name: str) -> ScoredBaseline:
        """One that is no mixture."""
        trial = self.settled[name] = self._read(name) or self._settle(name)
        started = time.perf_counter()
        columns = RECIPES[name].build(self.stages.outer, trial.settings, self.folder)
        seconds = trial.seconds + time.perf_counter() - started
        self.display.say(
            f"{name}: log-loss {trial.loss:.3f} on {len(self.stages.calibration):,} scenes before "
            f"T0, {seconds:.1f} s, {json.dumps(trial.settings)}"
        )
        return ScoredBaseline(name, columns, trial.logit, _about(trial, seconds))

    def mixture(self, name: str, members: dict[str, ScoredBaseline]) -> ScoredBaseline:
        """A choice model over the utilities of others."""
        started = time.perf_counter()
        values = np.stack([self.settled[part].utilities for part in members], axis=2)
        trial = judge({"members": list(members)}, values, self.stages.calibration)
        others = list(members.values())

        def columns(batch: SceneBatch) -> FloatArray:
            return np.stack([other.utilities(batch) for other in others], axis=2)

        seconds = sum(other.about["seconds"] for other in others)
        seconds += time.perf_counter() - started
        return ScoredBaseline(name, columns, trial.logit, _about(trial, seconds))

    def _settle(self, name: str) -> Trial:
        self.display.say(f"{name}: choosing settings")
        started = time.perf_counter()
        trial = RECIPES[name].settle(self.stages)
        trial = replace(trial, seconds=time.perf_counter() - started)
        if self.folder is not None:
            save_arrays(self.folder / f"{name}.npz", utilities=trial.utilities)
            # Last, because it says that the baseline is settled.
            recipe = {"logit": trial.logit.to_json(), "recipe": RECIPES[name].describe()}
            write_json(self.folder / f"{name}.json", _about(trial, trial.seconds) | recipe)
        return trial

    def _read(self, name: str) -> Trial | None:
        """What is kept, unless another recipe made it or it cannot be read."""
        if self.folder is None or not (self.folder / f"{name}.json").is_file():
            return None
        try:
            facts = read_json(self.folder / f"{name}.json")
            if facts["recipe"] != RECIPES[name].describe():
                return None
            utilities = load_arrays(self.folder / f"{name}.npz", "utilities")["utilities"]
            if utilities.shape != self.stages.calibration.shown.shape:
                return None
            logit = NestedLogit.from_json(facts["logit"])
            return Trial(facts["settings"], logit, facts["loss"], utilities, facts["seconds"])
        except (ValueError, KeyError, TypeError, RunError):
            self.display.say(f"{name}: what was kept cannot be read; it is fitted anew")
            return None


def _about(trial: Trial, seconds: float) -> dict[str, Any]:
    return {"settings": trial.settings, "loss": trial.loss, "seconds": seconds}


def _key(split: TimeSplit, train: pa.Table, validation: pa.Table, seed: int) -> str:
    """Changes with the log before T0, items, users, scenes, seed and versions of packages."""
    digest = hashlib.sha256(json.dumps([FORMAT, package_versions(), split.t0, seed]).encode())
    for table in (split.before, split.dataset.items, split.dataset.users):
        plain = table.astype("string").fillna("")
        digest.update(pd.util.hash_pandas_object(plain, index=True).to_numpy().tobytes())
    columns = ("user_id", "timestamp", "history", "ratings", "slate", "target")
    for scenes in (train, validation):
        for column in columns:
            digest.update(json.dumps(scenes[column].to_pylist()).encode())
    return digest.hexdigest()[:16]
