"""What a user's history is worth once page order is gone, on users whom no model saw.

    python benchmarks/taste.py --dataset ml-1m --data-folder DIR --json taste.json
    python benchmarks/taste.py --rows "session none,session llm" --set steps=600
    python benchmarks/taste.py --cold 0.15          # items kept out of training, on their lists
    python benchmarks/taste.py --blocks "{layers: [12, 16], lines: 32, steps: 200}"

A fifth of the users is kept apart and looked at once; an eighth of the others is for validation.
Lists are of five: the film that was taken, and four that the user never took, drawn from all or by
popularity.  *Far*: an hour and more after the user's last choice; *near*: within a minute.  Every
row is a conditional logit of its scores and of what can be said of an item without knowing the
user, fitted on the validation users' lists of the same kind; the history is all of it, and for
*swapped* the newest lines, as many, of another user.

rows      non-personal, item-kNN (cosine), and the session readout with what the LLM says of the
          items, with noise in its place, with categories and years, or with nothing but ids; with
          --blocks the pooled network alone against the LLM's blocks beside it: tuned by LoRA from
          what is pretrained, the same frozen, and random ones tuned
columns   accuracy, log-loss (nats), own minus swapped in points and in nats, and the difference in
          log-loss to the first session row, all with paired intervals over users; in the file
          with --blocks every session row against every one before it too
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from usermirror_gym.data import RecDataset, TimeSplit, load_dataset
from usermirror_gym.data.appeal import appeal
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.files import write_json
from usermirror_gym.measures.bootstrap import UserBootstrap
from usermirror_gym.measures.choice_models import fit_linear, linear_logprobs
from usermirror_gym.progress import Display
from usermirror_gym.run_folder import package_versions
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import PromptBuilder, PromptConfig
from usermirror_gym.scenes.words.template import domain_text
from usermirror_gym.simulators.readouts.utility import SessionWeights
from usermirror_gym.simulators.session.blocks import load_reader, served_reader
from usermirror_gym.simulators.session.session import SessionSimulator
from usermirror_gym.simulators.session.session_head import read_session
from usermirror_gym.train.config import Session
from usermirror_gym.train.session.heads import SessionHeads, words_of
from usermirror_gym.types import (
    ITEM_ID,
    RATING,
    TIMESTAMP,
    USER_ID,
    BoolArray,
    FloatArray,
    IntArray,
)

NEAR, FAR, LEAST, DRAWS, SIZE = 60, 3600, 3, 3, 5
RECENT = 14 * 86_400
KINDS = ("uniform", "popular")
ROWS = ("non-personal", "item-kNN", "session none", "session noise", "session metadata",
        "session llm")  # fmt: skip
BLOCK_ROWS = ("session llm", "session llm frozen pretrained", "session llm lora random",
              "session llm lora pretrained")  # fmt: skip


@dataclass(frozen=True)
class User:
    """What one user did, oldest first."""

    items: IntArray
    ratings: FloatArray
    times: IntArray


@dataclass(frozen=True)
class Question:
    """One choice: whose, what was known of them, and of somebody else instead."""

    user: int
    time: int
    own: Scene
    swapped: Scene


@dataclass
class Data:
    """Users of one data set, parted."""

    dataset: RecDataset
    seed: int
    cold: BoolArray
    """``(n + 1,)`` items that no model sees."""

    @cached_property
    def users(self) -> dict[int, User]:
        events = self.dataset.interactions.sort_values([USER_ID, TIMESTAMP], kind="stable")
        return {
            int(str(user)): User(
                own[ITEM_ID].to_numpy(), own[RATING].to_numpy(np.float64), own[TIMESTAMP].to_numpy()
            )
            for user, own in events.groupby(USER_ID)
        }

    @cached_property
    def parts(self) -> dict[str, set[int]]:
        """Users for training, validation and the test."""
        mixed = np.random.default_rng(self.seed).permutation(sorted(self.users))
        test, rest = np.split(mixed, [len(mixed) // 5])
        validation, train = np.split(rest, [len(rest) // 8])
        named = {"test": test, "validation": validation, "train": train}
        return {name: set(own.tolist()) for name, own in named.items()}

    @cached_property
    def split(self) -> TimeSplit:
        """The events of the users for training, all before the cut."""
        events = self.dataset.interactions
        kept = events[USER_ID].isin(self.parts["train"]) & ~self.cold[events[ITEM_ID]]
        dataset = replace(self.dataset, interactions=events[kept].reset_index(drop=True))
        return TimeSplit(dataset, int(events[TIMESTAMP].max()) + 1)

    def non_personal(self, time: int) -> FloatArray:
        """``(n + 1, F)`` of the training users; what is recent is so at this time."""
        when = time // RECENT
        if when not in self._recent:
            first = int(self.split.before[TIMESTAMP].min())
            cut = max(when * RECENT, first + 1)
            self._recent[when] = appeal(TimeSplit(self.split.dataset, cut)).values[:, [2, 4]]
        return np.concatenate([self._all, self._recent[when]], axis=1)

    @cached_property
    def _all(self) -> FloatArray:
        return appeal(self.split).values

    @cached_property
    def _recent(self) -> dict[int, FloatArray]:
        return {}

    def questions(self, part: str, far: bool, most: int) -> list[Question]:
        """Every far choice of these users, or as many near ones."""
        rng = np.random.default_rng([self.seed, part == "test", far])
        own = {user: self.users[user] for user in sorted(self.parts[part])}
        found = []
        for user, log in own.items():
            gaps = np.diff(log.times, prepend=log.times[:1])
            right = gaps > FAR if far else gaps <= NEAR
            if self.cold.any():
                right = right & self.cold[log.items]
            places = np.flatnonzero(right)
            found += [(user, int(place)) for place in places if place >= LEAST]
        if len(found) > most:
            found = [found[i] for i in np.sort(rng.permutation(len(found))[:most])]
        people = sorted(own, key=lambda user: -len(own[user].items))
        return [self._question(own, people, user, place, rng) for user, place in found]

    def _question(
        self, own: Mapping[int, User], people: list[int], user: int, place: int,
        rng: np.random.Generator,
    ) -> Question:  # fmt: skip
        log = own[user]
        able = [other for other in people if len(own[other].items) > place and other != user]
        able = able if len(able) >= 5 else [p for p in people[:30] if p != user]
        other = own[able[rng.integers(len(able))]]
        end = min(place, len(other.items) - 1)
        return Question(
            user, int(log.times[place]), self._scene(user, log, place, log.items[place], rng),
            self._scene(user, other, end, 0, rng),
        )  # fmt: skip

    def _scene(
        self, user: int, log: User, end: int, target: int, rng: np.random.Generator
    ) -> Scene:
        """The lines before one; of the target there is no list yet, but what was taken."""
        known = np.flatnonzero(~self.cold[log.items[:end]])
        return Scene(
            user, tuple(log.items[known].tolist()), tuple(log.ratings[known].tolist()),
            tuple((log.times[end] - log.times[known]).tolist()), (int(target),),
        )  # fmt: skip

    def lists(self, asked: list[Question], kind: str) -> IntArray:
        """``(Q, DRAWS, SIZE)``, what was taken first."""
        rng = np.random.default_rng([self.seed, 7, kind == "uniform"])
        counts = np.bincount(self.dataset.interactions[ITEM_ID], minlength=len(self.cold))
        shares = np.ones(len(counts)) if kind == "uniform" else counts.astype(float)
        shares[0] = 0.0
        if self.cold.any():
            shares[~self.cold] = 0.0
        lists = np.zeros((len(asked), DRAWS, SIZE), np.int64)
        for row, question in enumerate(asked):
            free = shares.copy()
            free[self.users[question.user].items] = 0.0
            free /= free.sum()
            for draw in range(DRAWS):
                company = rng.choice(len(free), SIZE - 1, replace=False, p=free)
                lists[row, draw] = [question.own.slate[0], *company]
        return lists


Scorer = Callable[[list[Scene], IntArray], FloatArray]
"""Scenes and their lists ``(Q, DRAWS, SIZE)`` -> ``(Q, DRAWS, SIZE, F)``."""


def item_knn(data: Data) -> Scorer:
    """Mean shrunken cosine of an option to the lines, in logs."""
    n = len(data.cold)
    events = data.split.before
    seen = np.zeros((data.dataset.n_users + 1, n), np.float32)
    seen[events[USER_ID], events[ITEM_ID]] = 1.0
    counts = seen.sum(axis=0)
    cosine = (seen.T @ seen) / (np.sqrt(np.outer(counts, counts)) + 20.0)
    np.fill_diagonal(cosine, 0.0)

    def score(scenes: list[Scene], lists: IntArray) -> FloatArray:
        rows = [cosine[list(scene.history)].mean(axis=0)[own]
                for scene, own in zip(scenes, lists, strict=True)]  # fmt: skip
        return np.log(np.stack(rows) + 1e-2)[..., None]

    return score


def session(
    data: Data, settings: Session, folder: Path, display: Display, dtype: str = "float32"
) -> Scorer:
    """Trained on the users for training; the real simulator scores, in float32."""
    builder = PromptBuilder(domain_text(data.dataset), PromptConfig(form="session"))
    asked = builder.item_lines(tuple(range(1, data.dataset.n_items + 1)))
    engine = None
    if settings.words == "llm":
        engine = load_engine(CHECKPOINT, "transformers")
    words = words_of(
        settings, data.dataset, asked, engine, folder / "states", seed=data.seed, display=display
    )
    # What was trained is found again by its settings, and by nothing less.
    told = hashlib.sha256((settings.model_dump_json() + dtype).encode()).hexdigest()[:8]
    place = folder / f"{settings.words}-{data.seed}-{int(data.cold.sum())}-{told}"
    heads = SessionHeads(
        settings, place, place, words, asked.options, removed=0.0, seed=data.seed,
        blocks=partial(load_reader, CHECKPOINT, dtype=dtype), display=display,
    )  # fmt: skip
    heads.write(data.split)
    simulator = SessionSimulator(
        read_session(place), SessionWeights(), data.split, builder,
        blocks=partial(served_reader, CHECKPOINT),
    )  # fmt: skip

    def score(scenes: list[Scene], lists: IntArray) -> FloatArray:
        flat = [replace(scene, slate=tuple(dict.fromkeys(own.ravel().tolist())))
                for scene, own in zip(scenes, lists, strict=True)]  # fmt: skip
        features = np.zeros((*lists.shape, 2))
        for start in range(0, len(flat), 256):
            part = flat[start : start + 256]
            told, _, _ = simulator.scores(part)
            for row, scene in enumerate(part):
                place_of = {item: j for j, item in enumerate(scene.slate)}
                where = np.vectorize(place_of.__getitem__)(lists[start + row])
                features[start + row] = told[row][where]
        return features

    return score


def judged(
    data: Data, score: Scorer | None, sets: Mapping[str, list[Question]], kind: str
) -> dict[str, FloatArray]:
    """Accuracy and log-loss of every question of the test, ``(Q, 2)``, own and swapped."""
    feats: dict[tuple[str, str], FloatArray] = {}
    for part, asked in sets.items():
        lists = data.lists(asked, kind)
        shared = np.stack(
            [data.non_personal(q.time)[own] for q, own in zip(asked, lists, strict=True)]
        )
        for whose in ("own", "swapped"):
            told = [_without(getattr(q, whose), own) for q, own in zip(asked, lists, strict=True)]
            own = [] if score is None else [score(told, lists)]
            feats[part, whose] = np.concatenate([*own, shared], axis=-1)
    fit = feats["validation", "own"].reshape(-1, SIZE, feats["validation", "own"].shape[-1])
    mask, zeros = np.ones(fit.shape[:2], np.bool_), np.zeros(len(fit), np.int64)
    slopes = fit_linear(fit, mask, zeros, outside=False).slopes
    found = {}
    for whose in ("own", "swapped"):
        x = feats["test", whose]
        flat = x.reshape(-1, SIZE, x.shape[-1])
        logs = linear_logprobs(flat, slopes, None, np.ones(flat.shape[:2], np.bool_))[:, :-1]
        best = logs >= logs.max(axis=1, keepdims=True) - 1e-12
        hit = best[:, 0] / best.sum(axis=1)
        both = np.stack([100 * hit, -logs[:, 0]], axis=1)
        found[whose] = both.reshape(len(x), DRAWS, 2).mean(axis=1)
    return found


def _plain(interval: Iterable[float]) -> list[float | None]:
    """As JSON has it: no interval where all values are equal."""
    return [None if np.isnan(value) else float(value) for value in interval]


def _without(scene: Scene, options: IntArray) -> Scene:
    """Without lines of what is on the lists, which the user's own history never has."""
    kept = np.flatnonzero(~np.isin(scene.history, options)).tolist()
    return replace(
        scene, history=tuple(scene.history[i] for i in kept),
        ratings=tuple(scene.ratings[i] for i in kept), ages=tuple(scene.ages[i] for i in kept),
    )  # fmt: skip


def settings_of(row: str, given: Mapping[str, Any], blocks: Mapping[str, Any] | None) -> Session:
    """Of a row: ``session WORDS``, or ``session WORDS TUNE START`` for one with blocks."""
    _, words, *how = row.split()
    own = None
    if how:
        if blocks is None or len(how) != 2:
            raise SystemExit(f"row {row!r}: write 'session llm lora pretrained', and give --blocks")
        own = {**blocks, "tune": how[0], "start": how[1]}
    return Session(**{"words": words, **given, "blocks": own})


def differences(
    found: Mapping[str, Mapping[tuple[str, str], FloatArray]],
    sets: Mapping[str, Mapping[str, list[Question]]],
) -> list[dict[str, Any]]:
    """Every session row against every one before it: accuracy (points) and log-loss (nats)."""
    names = [row for row in found if row.startswith("session")]
    told = []
    for i, row in enumerate(names):
        for other in names[:i]:
            for (where, kind), own in found[row].items():
                users = np.array([q.user for q in sets[where]["test"]])
                points, nats = map(
                    _plain, UserBootstrap(users, seed=0).intervals(own - found[other][where, kind])
                )
                told.append({"row": row, "against": other, "where": where, "company": kind,
                             "accuracy": points, "log_loss": nats})  # fmt: skip
    return told


CHECKPOINT = "smollm2-135m-instruct"
_TOLD = ("dataset", "rows", "seed", "cold", "most", "part", "set", "blocks", "dtype")


def main() -> None:
    """Train, judge, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--data-folder")
    parser.add_argument("--rows", help="comma-separated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cold", type=float, default=0.0, help="share of items kept out")
    parser.add_argument("--most", type=int, default=3000, help="questions of a kind, at most")
    parser.add_argument("--part", default="test", help="test, or validation: a look on the way")
    parser.add_argument("--set", action="append", default=[], help="a setting of `session`")
    parser.add_argument("--blocks", type=yaml.safe_load, help="settings of `session.blocks`")
    parser.add_argument("--dtype", default="float32", help="of blocks in training")
    parser.add_argument("--work", type=Path, default=Path("runs/taste"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    given = dict(word.split("=", 1) for word in args.set)
    args.rows = args.rows or ",".join(BLOCK_ROWS if args.blocks else ROWS)
    given = {name: yaml.safe_load(value) for name, value in given.items()}
    data = prepared(args.dataset, args.data_folder, args.cold, args.seed)
    if args.part == "validation":  # users of training take the place of those for validation
        half = sorted(data.parts["validation"])
        data.parts.update(test=set(half[::2]), validation=set(half[1::2]))
    scorers: dict[str, Callable[[], Scorer | None]] = {
        "non-personal": lambda: None, "item-kNN": lambda: item_knn(data),
    }  # fmt: skip
    rows = [row.strip() for row in args.rows.split(",")]
    sets = {
        where: {p: data.questions(p, where == "far", args.most) for p in ("validation", "test")}
        for where in ("far", "near")
    }  # fmt: skip
    results: list[dict[str, Any]] = []
    base: dict[tuple[str, str], FloatArray] = {}
    per_row: dict[str, dict[tuple[str, str], FloatArray]] = {}
    for row in rows:
        start = time.perf_counter()
        if row in scorers:
            scorer = scorers[row]()
        else:
            settings = settings_of(row, given, args.blocks)
            scorer = session(data, settings, args.work, Display(), args.dtype)
        for where, asked in sets.items():
            boot = UserBootstrap(np.array([q.user for q in asked["test"]]), seed=0)
            for kind in KINDS:
                found = judged(data, scorer, asked, kind)
                per_row.setdefault(row, {})[where, kind] = found["own"]
                own, swapped = found["own"], found["swapped"]
                base.setdefault((where, kind), own) if row.startswith("session") else None
                against = own[:, 1] - base.get((where, kind), own)[:, 1]
                columns = np.column_stack([own, own[:, 0] - swapped[:, 0],
                                           swapped[:, 1] - own[:, 1], against])  # fmt: skip
                names = ("accuracy", "log_loss", "own_minus_swapped_points",
                         "own_minus_swapped_nats", "log_loss_against_first_session")  # fmt: skip
                found_intervals = map(_plain, boot.intervals(columns))
                blocks = dict(zip(names, found_intervals, strict=True))
                counts = {"questions": len(own), "users": len(np.unique(boot.user_ids))}
                results.append({"row": row, "where": where, "company": kind, **blocks, **counts})
        results[-1]["seconds"] = time.perf_counter() - start
        _print(results[-4:])
    if args.json is not None:
        write_json(args.json, {
            "settings": {name: str(getattr(args, name)) for name in _TOLD},
            "session": Session(**given).model_dump(mode="json"),
            "results": results,
            "differences": differences(per_row, sets) if args.blocks else [],
            "versions": package_versions(),
        })  # fmt: skip


def prepared(name: str, folder: str | None, cold: float, seed: int) -> Data:
    """A data set, with a share of its items kept out of training."""
    dataset = load_dataset(name, folder)
    counts = np.bincount(dataset.interactions[ITEM_ID], minlength=dataset.n_items + 1)
    known = np.flatnonzero(counts >= 5)
    out = np.zeros(dataset.n_items + 1, np.bool_)
    rng = np.random.default_rng([seed, 3])
    out[rng.permutation(known)[: round(cold * len(known))]] = True
    return Data(dataset, seed, out)


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(
        "row", "lists", "accuracy", "log-loss", "own - swapped, points", "nats", "against first"
    )
    for row in rows:
        cells = [f"{v:.3f} [{low:.3f}, {high:.3f}]" if name != "accuracy" else f"{v:.1f}"
                 for name in ("accuracy", "log_loss", "own_minus_swapped_points",
                              "own_minus_swapped_nats", "log_loss_against_first_session")
                 for v, low, high in [[np.nan if x is None else x for x in row[name]]]]  # fmt: skip
        table.add_row(row["row"], f"{row['where']}, {row['company']}", *cells)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
