"""A simulator's answers to many scenes, kept on disk so that a killed run does not ask again.

A store folder has one folder per simulator, and in it one file per chunk of answers, each written
whole.  An answer belongs to the content of its scene: a longer list of scenes asks only for what
is new, in whatever order it comes.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from usermirror_gym.errors import DataError, RunError
from usermirror_gym.files import load_arrays, save_arrays
from usermirror_gym.scenes import Scene
from usermirror_gym.scenes.randomness import KeyArray, keys
from usermirror_gym.simulators.base import UserSimulator, fingerprint, forget_questions
from usermirror_gym.types import FloatArray

Progress = Callable[[int], None]
CHUNK = 32
"""Scenes per call of the simulator, and the most that are lost when the process is killed."""
_AGREE = 0.02
"""How far a stored probability may be from one computed now (another batch, half precision)."""


class Answer(NamedTuple):
    """Choice probabilities, and the seconds that it took to give them."""

    probs: FloatArray  # (K + 1,) of one scene, (S, K + 1) of S
    seconds: float


def answer(
    simulator: UserSimulator,
    scenes: Sequence[Scene],
    *,
    store: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress = lambda done: None,
    chunk: int = CHUNK,
) -> Answer:
    """Choice probabilities of S scenes, ``(S, K + 1)``, in the order of the scenes.

    The seconds are those that the simulator took, for stored answers too.

    Args:
        simulator: asked in chunks, the scenes of a user together.
        scenes: K is the longest list; shorter ones have zeros before the last column, which is
            *none of these*.
        store: folder in which answers are kept; without it nothing is.
        settings: what tells this simulator from others of the same name in the store.
        progress: told how many scenes were answered since the last call.
        chunk: scenes per call.

    Raises:
        DataError: an answer is no distribution over the options; names the scene.
        RunError: the store is damaged, or holds answers that the simulator no longer gives.
    """
    folder = None if store is None else store / _folder_name(simulator, settings)
    digests = [scene_digest(scene) for scene in scenes]
    wanted = dict(zip(digests, scenes, strict=True))
    known = {} if folder is None else _read(folder, wanted)
    if known:
        _check_current(simulator, wanted, known, folder)
    found = [known.get(digest) for digest in digests]
    progress(len(found) - found.count(None))
    # The scenes of a user share the start of their prompts, which engines keep.
    missing = [row for row, own in enumerate(found) if own is None]
    missing.sort(key=lambda row: scenes[row].user_id)
    for start in range(0, len(missing), chunk):
        part = missing[start : start + chunk]
        answers = _ask(simulator, [scenes[row] for row in part])
        if folder is not None:
            _write(folder, [digests[row] for row in part], answers)
        for row, own in zip(part, answers, strict=True):
            found[row] = own
        progress(len(part))
    complete = [own for own in found if own is not None]
    seconds = sum(own.seconds for own in complete)
    return Answer(_in_order([own.probs for own in complete]), seconds)


def scene_digest(scene: Scene) -> str:
    """Thirty-two hexadecimal digits of everything a simulator is told, and of the name."""
    # Two NaN are equal here, and numpy's scalars read like Python's.
    told = (
        scene.name, int(scene.user_id), _plain(scene.history), _plain(scene.ratings),
        _plain(scene.ages), _plain(scene.slate), scene.behaviours, scene.notes,
        [(_plain(turn.slate), int(turn.chosen)) for turn in scene.turns],
    )  # fmt: skip
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def scenes_digest(scenes: Sequence[Scene]) -> str:
    """Sixteen hexadecimal digits of the content of scenes and their targets, in order."""
    digest = hashlib.sha256()
    for scene in scenes:
        digest.update(f"{scene_digest(scene)} {scene.target}\n".encode())
    return digest.hexdigest()[:16]


def scene_keys(scenes: Sequence[Scene], seed: int) -> KeyArray:
    """Keys of what is drawn for each scene, a function of the seed and the scene alone."""
    digests = np.array([int(scene_digest(scene)[:15], 16) for scene in scenes], np.int64)
    return keys(seed, digests)


def _plain(values: Sequence[float]) -> list[float]:
    return np.asarray(values).tolist()


def _folder_name(simulator: UserSimulator, settings: Mapping[str, Any] | None) -> str:
    told = [simulator.name, fingerprint(simulator), dict(settings or {})]
    whole = json.dumps(told, sort_keys=True, default=str)
    short = re.sub(r"[^A-Za-z0-9]+", "-", simulator.name).strip("-")[:40]
    return f"{short}-{hashlib.sha256(whole.encode()).hexdigest()[:12]}"


def _ask(simulator: UserSimulator, scenes: Sequence[Scene]) -> list[Answer]:
    started = time.perf_counter()
    forget_questions(simulator)  # chunks are what a run that was killed goes on from
    probs = np.asarray(simulator.choose(scenes).probs, np.float64)
    width = max(len(scene.slate) for scene in scenes)
    if probs.ndim != 2 or len(probs) != len(scenes) or probs.shape[1] <= width:
        raise DataError(
            f"simulator {simulator.name!r} answered {len(scenes)} lists of at most {width} items "
            f"with an array of shape {probs.shape}; it must be {(len(scenes), width + 1)}"
        )
    each = (time.perf_counter() - started) / len(scenes)
    return [
        Answer(_checked(simulator, scene, row), each)
        for scene, row in zip(scenes, probs, strict=True)
    ]


def _checked(simulator: UserSimulator, scene: Scene, row: FloatArray) -> FloatArray:
    """``(K_i + 1,)``: a row without its padding."""
    own = np.append(row[: len(scene.slate)], row[-1])
    if not (np.isfinite(own).all() and (own >= 0).all() and abs(own.sum() - 1) <= 1e-6):
        raise DataError(
            f"{scene.name}: simulator {simulator.name!r} answered {np.round(row, 4).tolist()}, "
            f"which is no distribution over {len(scene.slate)} items and none of these"
        )
    return own


def _in_order(rows: list[FloatArray]) -> FloatArray:
    """``(S, K + 1)``: *none of these* moves to the last column."""
    width = max((len(row) for row in rows), default=1)
    probs = np.zeros((len(rows), width))
    for out, row in zip(probs, rows, strict=True):
        out[: len(row) - 1] = row[:-1]
        out[-1] = row[-1]
    return probs


def _check_current(
    simulator: UserSimulator,
    wanted: Mapping[str, Scene],
    known: Mapping[str, Answer],
    folder: Path | None,
) -> None:
    """Names do not tell everything (weights that were fitted anew, texts): ask one scene again."""
    digest = min(known)
    now = _ask(simulator, [wanted[digest]])[0].probs
    before = known[digest].probs
    if np.abs(now - before).max() > _AGREE:
        raise RunError(
            f"{folder} holds other answers than {simulator.name!r} gives now: for "
            f"{wanted[digest].name} {np.round(before, 3).tolist()} then, "
            f"{np.round(now, 3).tolist()} now; delete the folder to ask again"
        )


def _write(folder: Path, digests: Sequence[str], answers: Sequence[Answer]) -> None:
    name = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
    save_arrays(
        folder / f"{name}.npz",
        digests=np.array(digests),
        probs=np.concatenate([a.probs for a in answers]),
        lengths=np.array([len(a.probs) for a in answers]),
        seconds=np.array([a.seconds for a in answers]),
    )


def _read(folder: Path, wanted: Mapping[str, Scene]) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    for path in sorted(folder.glob("*.npz")):
        names = ("digests", "seconds", "lengths", "probs")
        kept = load_arrays(path, *names, cure="Delete it to ask again.")
        digests, seconds, lengths, probs = (kept[name] for name in names)
        rows = np.split(probs, np.cumsum(lengths)[:-1])
        found |= {
            digest: Answer(row, cost)
            for digest, row, cost in zip(digests.tolist(), rows, seconds.tolist(), strict=True)
            if digest in wanted
        }
    return found
