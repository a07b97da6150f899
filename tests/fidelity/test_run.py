"""From names to a card: scenes of a data set or a build, the released set, resuming, refusing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.fidelity.fidelity_example import example_card
from usermirror_gym.corpus.released.read import ReleasedEval, read_released
from usermirror_gym.corpus.released.rows import EvalScene
from usermirror_gym.data import TimeSplit
from usermirror_gym.engines.base import OptionScores
from usermirror_gym.errors import ConfigError, RunError, SceneError, UnknownNameError
from usermirror_gym.fidelity import pages as fidelity_pages
from usermirror_gym.fidelity import run as fidelity_run
from usermirror_gym.fidelity.answers import scenes_digest
from usermirror_gym.fidelity.pages import render_markdown
from usermirror_gym.fidelity.released import ReleasedSimulator, released_scenes
from usermirror_gym.fidelity.run import (
    EvaluateConfig,
    card_folders,
    configurations_tried,
    default_folder,
    evaluate,
    is_released,
    shown_settings,
    untrained,
)
from usermirror_gym.fidelity.scenes import find_scenes, first_scenes, has_true_item
from usermirror_gym.progress import Display
from usermirror_gym.scenes import Scene, swap_histories
from usermirror_gym.scenes.table import scenes_of
from usermirror_gym.simulators import ChoiceBatch, UniformChooser, registry
from usermirror_gym.simulators.affinity.affinity_head import AffinityHead, write_head
from usermirror_gym.simulators.checkpoint import write_simulator
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.types import Prompt

QUIET = Display(quiet=True)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One cache for all tests, of this process alone."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("USERMIRROR_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is slow, and tested elsewhere."""
    monkeypatch.setattr(fidelity_pages, "card_plots", lambda card: [])


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data set of one's own: a YAML file beside two tables."""
    folder = tmp_path_factory.mktemp("mine")
    data = tiny_split(n_users=60, n_items=60).dataset
    data.items.reset_index().to_csv(folder / "films.csv", index=False)
    data.interactions.to_csv(folder / "log.csv", index=False)
    (folder / "mine.yaml").write_text(
        "name: mine\ndomain: movie\n"
        "interactions: {file: log.csv, user: user_id, item: item_id, time: timestamp}\n"
        "items: {file: films.csv, item: item_id, title: title, texts: [genres], numbers: [year]}\n"
    )
    return str(folder / "mine.yaml")


@pytest.fixture
def config(mine: str) -> EvaluateConfig:
    return EvaluateConfig("popularity", scenes=mine, count=30, checks=6, classic=False)


class Counting:
    """Chooses evenly, counts the questions, and stops at one of them if told to."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.name = "counting"
        self.asked, self.stop_at = 0, stop_at
        self.uniform = UniformChooser(outside=0.1)

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        if self.stop_at is not None and self.asked >= self.stop_at:
            raise KeyboardInterrupt
        self.asked += len(scenes)
        return self.uniform.choose(scenes)


def test_a_card_holds_what_the_settings_name(config: EvaluateConfig, tmp_path: Path) -> None:
    card = evaluate(config, tmp_path / "card")
    kinds = {chooser["name"]: chooser["kind"] for chooser in card["choosers"]}
    assert kinds["popularity"] == "simulator"
    assert {"uniform", "position only", "popularity only", "list only"} <= kinds.keys()
    assert kinds["swapped history"] == "swapped"
    assert card["simulator"] == {
        "name": "popularity", "model": "popularity", "options": {}, "tried": None,
    }  # fmt: skip
    assert "configurations tried on validation: unknown" in render_markdown(card)
    # Lines of what is on the list are left out, and ten are all that there are.
    assert 0.5 < card["scenes"]["swapped_as_long"] <= 1
    assert card["scenes"]["source"] == "mine"
    assert card["scenes"]["with_target"] == 30
    assert card["order"]["scenes"] == 6
    assert all(pair["chooser"] == "popularity" for pair in card["paired"])
    assert len(card["verdict"]) >= 6
    assert {p.name for p in (tmp_path / "card").iterdir()} >= {
        "card.html", "card.md", "card.json", "run.json", "scores.parquet",
    }  # fmt: skip


def test_a_base_and_options_stand_in_the_card(config: EvaluateConfig, tmp_path: Path) -> None:
    config = replace(config, base="uniform", options={"outside_quantile": 0.5})
    card = evaluate(config, tmp_path / "card")
    assert card["simulator"]["name"] == "popularity (outside_quantile=0.5)"
    assert card["base"] == "uniform (base)"
    assert ("uniform (base)", "base") in [(c["name"], c["kind"]) for c in card["choosers"]]
    assert any(s.startswith("Against the untrained model: it") for s in card["verdict"])


def test_a_key_among_the_options_is_not_in_the_card(
    config: EvaluateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "s3cr3t-marker"
    options = {"engine": {"base_url": f"http://u:{secret}@host/v1"}}
    monkeypatch.setattr(fidelity_run, "make_simulator", lambda *names, **options: Counting())
    keyed = replace(config, options=options)
    for _ in range(2):  # and goes on
        evaluate(keyed, tmp_path / "card")
    written = [path for path in (tmp_path / "card").rglob("*") if path.is_file()]
    assert not [path for path in written if secret.encode() in path.read_bytes()]
    assert "http://***@host/v1" in (tmp_path / "card" / "card.json").read_text()
    assert keyed.options == options


@pytest.mark.parametrize("who", ["simulator", "base"])
def test_who_cannot_answer_is_found_before_anything_is_fitted_or_asked(
    who: str, config: EvaluateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    longest: list[int] = []

    class Refusing(Counting):
        def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
            calls.append(f"refuses {len(scenes)}")
            longest.append(len(scenes[0].slate))
            raise SceneError(f"{scenes[0].name}: the server is down")

    class Able(Counting):
        def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
            calls.append(f"answers {len(scenes)}")
            return super().choose(scenes)

    def made(name: str, *split: Any, **options: Any) -> Counting:
        return Able() if (name == "uniform") == (who == "simulator") else Refusing()

    monkeypatch.setattr(fidelity_run, "make_simulator", made)
    monkeypatch.setattr(fidelity_run, "_baselines", lambda *_: calls.append("baselines") or {})
    with pytest.raises(SceneError, match="the server is down"):
        evaluate(replace(config, base="uniform", classic=True), tmp_path / "card")
    assert calls == [*(["answers 1"] if who == "base" else []), "refuses 1"]
    data = find_scenes(
        config.scenes, count=config.count, seed=config.seed, display=Display(quiet=True)
    )
    assert longest == [max(len(scene.slate) for scene in scenes_of(data.evaluation))]


def trained(folder: Path, **settings: Any) -> str:
    """A folder that says it is a trained simulator with an adapter; it is never loaded."""
    write_simulator(folder, settings)
    (folder / "adapter_config.json").write_text("{}")
    return str(folder)


@pytest.mark.parametrize(
    ("settings", "base"),
    [
        ({"checkpoint": "smollm2-135m-instruct", "readout": "likelihood"}, "smollm2-likelihood"),
        ({"checkpoint": "smollm2-135m-instruct", "readout": "letters"}, "smollm2-letters"),
        ({"checkpoint": "smollm2-135m-instruct", "readout": "options"}, "smollm2-likelihood"),
        ({"checkpoint": "owner/model", "readout": "letters"}, None),
    ],
)
def test_the_base_is_the_preset_of_the_base_weights(
    settings: dict, base: str | None, tmp_path: Path
) -> None:
    config = EvaluateConfig(trained(tmp_path / "mine", **settings))
    assert untrained(config) == base
    assert untrained(replace(config, base="uniform")) == "uniform"
    assert untrained(replace(config, base="none")) is None
    assert untrained(EvaluateConfig("popularity")) is None
    assert untrained(EvaluateConfig()) == "smollm2-likelihood"


def test_settings_of_a_folder_are_shown_without_paths(tmp_path: Path) -> None:
    folder = trained(tmp_path / "mine", checkpoint=str(tmp_path / "base"), readout="letters")
    assert shown_settings(folder) == {"checkpoint": "base"}  # letters is the default
    assert shown_settings("smollm2-likelihood")["readout"] == "likelihood"
    assert shown_settings("uniform") == {}


class States:
    """An engine that reads lines alone: a few numbers that belong to their text."""

    model_id = fingerprint = "states"
    context_length = 1000

    def __init__(self) -> None:
        self.lines: list[str] = []

    def count_tokens(self, prompt: Prompt) -> int:
        return 1

    def item_hidden_states(self, lines: Sequence[str], *, parts: Sequence, **_: Any) -> np.ndarray:
        self.lines += lines
        digests = [hashlib.sha256(line.encode()).digest() for line in lines]
        size = 4 * len(parts)
        return np.array([list(d[:size]) for d in digests], np.float32) / 128 - 1


@pytest.fixture
def affinity(tmp_path: Path) -> str:
    """The folder of a simulator that reads states, as a training would leave it."""
    folder, rng = tmp_path / "mine", np.random.default_rng(0)
    arrays = (rng.normal(size=shape) for shape in ((8,), (8, 3), (8, 3), (8,), (10,)))
    write_head(folder, AffinityHead(((3, "mean"), (7, "last")), *arrays))
    settings = {"checkpoint": "smollm2-135m-instruct", "readout": "affinity", "history_lines": 10}
    write_simulator(folder, settings | {"item_bias": 0.5, "outside_utility": 0.25})
    return str(folder)


def test_how_many_configurations_were_tried_is_read_from_the_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "simulator.yaml").write_text("checkpoint: smollm2-135m-instruct\n")
    assert configurations_tried(str(folder)) is None  # nothing is said
    told: dict[Any, int | None] = {"30": None, 0: None, 30: 30}
    for value, expected in told.items():
        (folder / "training.json").write_text(json.dumps({"configurations_tried": value}))
        assert configurations_tried(str(folder)) == expected
    assert configurations_tried("popularity") is None
    card = example_card()
    card["simulator"]["tried"] = 30
    assert "configurations tried on validation: 30" in render_markdown(card)


def test_a_simulator_that_reads_states_gets_every_part_of_a_card(
    config: EvaluateConfig, affinity: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = States()
    monkeypatch.setattr(registry, "_engine", lambda settings: engine)
    assert untrained(EvaluateConfig(affinity)) == "smollm2-likelihood"  # of the same weights
    card = evaluate(replace(config, simulator=affinity, base="none"), tmp_path / "card")
    assert card["simulator"]["model"].startswith("affinity(")
    options = card["simulator"]["options"]
    assert options["readout"] == "affinity"
    assert options["checkpoint"] == "smollm2-135m-instruct"
    assert options["states"] == ["layer 3, mean", "layer 7, last"]
    assert options["head"] == {"dimensions": 3, "lines": 10}
    assert str(tmp_path) not in json.dumps(card)
    # Its lists have no order, and it asks about edited titles anew.
    assert card["order"]["mean_change"]["mean"] == pytest.approx(0, abs=1e-9)
    assert card["order"]["duplicates_max_difference"] < 1e-9
    assert any("choose me" in line for line in engine.lines)
    changes = {probe["name"]: probe["change"]["mean"] for probe in card["probes"]}
    assert abs(changes["praise in the title"]) > 1e-6
    assert card["history"]["accuracy"]["mean"] is not None
    assert len(card["outside"]["ladder"]) == 4
    asked = len(engine.lines)
    evaluate(replace(config, simulator=affinity, base="none"), tmp_path / "card")
    assert len(engine.lines) == asked


def test_the_same_settings_give_the_same_card(config: EvaluateConfig, tmp_path: Path) -> None:
    one, two = (evaluate(config, tmp_path / name) for name in ("one", "two"))
    for card in (one, two):
        del card["seconds"], card["versions"]
        for chooser in card["choosers"]:
            del chooser["seconds"]
    assert one == two
    other = evaluate(replace(config, seed=1), tmp_path / "three")
    assert other["scenes"]["hash"] != one["scenes"]["hash"]


def test_a_stopped_run_goes_on_and_a_finished_one_asks_nothing(
    config: EvaluateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(simulator: Counting) -> Counting:
        monkeypatch.setattr(fidelity_run, "make_simulator", lambda *_, **__: simulator)
        return simulator

    whole = made(Counting())
    evaluate(config, tmp_path / "whole")
    first = made(Counting(stop_at=50))
    with pytest.raises(KeyboardInterrupt):
        evaluate(config, tmp_path / "card")
    assert not (tmp_path / "card" / "card.json").exists()
    second = made(Counting())
    evaluate(config, tmp_path / "card")
    # One scene of each part of the store is asked again, to see that the answers still hold.
    assert first.asked >= 32
    assert second.asked <= whole.asked - 32 + 2
    again = made(Counting())
    (tmp_path / "card" / "card.html").unlink()
    evaluate(config, tmp_path / "card")
    assert again.asked == 0
    assert (tmp_path / "card" / "card.html").exists()


def test_a_finished_card_is_made_anew_when_the_weights_have_changed(
    config: EvaluateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(config, tmp_path / "card")
    other = Counting()
    monkeypatch.setattr(fidelity_run, "make_simulator", lambda *_, **__: other)
    card = evaluate(config, tmp_path / "card")
    assert card["simulator"]["model"] == "counting"
    assert other.asked > 0
    kept = [path.name for path in (tmp_path / "card" / "answers").iterdir()]
    assert any(name.startswith("counting") for name in kept)
    assert not any(name.startswith(config.simulator) for name in kept)  # nothing is mixed


def test_folders_of_others_are_refused(config: EvaluateConfig, tmp_path: Path) -> None:
    evaluate(config, tmp_path / "card")
    with pytest.raises(RunError, match=r"other settings \(count=30\)"):
        evaluate(replace(config, count=31), tmp_path / "card")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("")
    with pytest.raises(RunError, match="holds no card"):
        evaluate(config, tmp_path / "full")


def test_a_folder_in_which_somebody_is_at_work_is_refused(
    config: EvaluateConfig, tmp_path: Path, refused_while_busy
) -> None:
    refused_while_busy(tmp_path / "card", lambda: evaluate(config, tmp_path / "card"))


def test_default_folders_are_named_and_numbered(
    config: EvaluateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = default_folder(config)
    assert first == Path("runs/evaluate/popularity-mine.yaml")
    evaluate(config, first)
    assert default_folder(config) == first
    assert default_folder(replace(config, count=31)) == Path("runs/evaluate/popularity-mine.yaml-2")
    released = EvaluateConfig("owner/model", scenes="Joinn/UserMirrorer-eval")
    assert default_folder(released).name == "model-UserMirrorer-eval"


def test_cards_are_made_where_there_are_none(
    config: EvaluateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluate(config, tmp_path / "done")
    folders = card_folders(config, [str(tmp_path / "done"), "uniform"])
    assert folders == [tmp_path / "done", Path("runs/evaluate/uniform-mine.yaml")]
    assert all((folder / "card.json").is_file() for folder in folders)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"simulator": "popularty"}, UnknownNameError, "Did you mean 'popularity'"),
        ({"scenes": "ml-100"}, UnknownNameError, "Did you mean 'ml-100k'"),
        ({"scenes": "usermirrorer"}, ConfigError, "has 11 data sets"),
        ({"options": {"sharpness": 2}}, ConfigError, "sharpness"),
    ],
)
def test_mistakes_leave_no_folder(
    config: EvaluateConfig, tmp_path: Path, changes: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate(replace(config, **changes), tmp_path / "card")
    assert not (tmp_path / "card").exists()


@pytest.mark.parametrize("wrong", [{"simulator": "uniformm"}, {"base": "uniformm"}])
def test_a_mistaken_name_is_found_before_scenes_are_drawn(
    config: EvaluateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict
) -> None:
    monkeypatch.setenv("USERMIRROR_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UnknownNameError, match="Did you mean 'uniform'"):
        evaluate(replace(config, **wrong), tmp_path / "card")
    assert not (tmp_path / "cache").exists()


def test_counts_are_checked(config: EvaluateConfig) -> None:
    with pytest.raises(ConfigError, match="count must be at least 1, got 0"):
        replace(config, count=0)
    with pytest.raises(ConfigError, match="checks must be at least 0, got -1"):
        replace(config, checks=-1)


def test_lists_are_drawn_as_popular_as_the_settings_say(
    config: EvaluateConfig, tmp_path: Path
) -> None:
    """The true items are the same, their company is not; this data set's default is balanced."""
    found = {
        balance: find_scenes(config.scenes, count=30, balance=balance, display=QUIET).evaluation
        for balance in (None, "popularity", "none")
    }
    assert digest(found[None]) == digest(found["popularity"]) != digest(found["none"])
    assert found[None]["item_id"].to_pylist() == found["none"]["item_id"].to_pylist()
    card = evaluate(replace(config, balance="none", checks=0), tmp_path / "card")
    assert card["scenes"]["hash"] == digest(found["none"])
    with pytest.raises(RunError, match="balance='none'"):
        evaluate(replace(config, checks=0), tmp_path / "card")


def test_lists_that_are_there_already_are_not_balanced(released: Path, tmp_path: Path) -> None:
    for scenes in (str(released), str(tmp_path)):
        config = EvaluateConfig("owner/model", scenes=scenes, balance="none")
        with pytest.raises(ConfigError, match="are there already: leave balance out"):
            evaluate(config, tmp_path / "card")
    with pytest.raises(UnknownNameError, match="Did you mean 'popularity'"):
        EvaluateConfig(balance="populrity")


def digest(table: pa.Table) -> str:
    return scenes_digest(scenes_of(table))


def test_scenes_are_drawn_once_and_a_shorter_card_has_the_first(
    mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USERMIRROR_CACHE", str(tmp_path))
    found = find_scenes(mine, count=30, display=QUIET)
    assert isinstance(found.split, TimeSplit)
    assert has_true_item(found.evaluation).sum() == 30
    assert (found.evaluation["timestamp"].to_numpy() >= found.split.t0).all()
    for before in (found.train, found.validation):
        assert len(before) > 0
        assert (before["timestamp"].to_numpy() < found.split.t0).all()
    (folder,) = (tmp_path / "scenes").iterdir()
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    again = find_scenes(mine, count=30, display=QUIET).evaluation
    assert digest(again) == digest(found.evaluation)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")} == times
    fewer = find_scenes(mine, count=12, display=QUIET).evaluation
    assert digest(fewer) == digest(found.evaluation.slice(0, len(fewer)))


def test_first_scenes_end_with_the_last_that_counts(mine: str) -> None:
    table = find_scenes(mine, count=30, display=QUIET).evaluation
    held = has_true_item(table)
    for count in (1, 7, 30, 1000):
        part = first_scenes(table, count)
        assert has_true_item(part).sum() == min(count, held.sum())
        assert has_true_item(part)[-1] or count == 1000


def test_changed_tables_are_read_anew(
    mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USERMIRROR_CACHE", str(tmp_path / "cache"))
    copy = tmp_path / "data"
    copy.mkdir()
    for path in Path(mine).parent.iterdir():
        (copy / path.name).write_text(path.read_text())
    before = find_scenes(str(copy / "mine.yaml"), count=10, display=QUIET).evaluation
    lines = (copy / "log.csv").read_text().splitlines()
    (copy / "log.csv").write_text("\n".join(lines[:-60]) + "\n")
    after = find_scenes(str(copy / "mine.yaml"), count=10, display=QUIET).evaluation
    assert digest(before) != digest(after)


SYSTEM = "Name one line."
OPTIONS = ("The Salt Map", "Low Tide", "Nine Herons")


def user_message(profile: str, history: str, options: Sequence[str]) -> str:
    listing = "\n".join(f"[{'ABC'[i]}] {text}" for i, text in enumerate(options))
    return f"# Reader\n{profile}\n\n## Shelf\n{history}\n\n# On offer\n{listing}\n"


def released_train() -> dict[str, Any]:
    prompt = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": user_message("Young", "Gull", OPTIONS)},
    ]
    sides = [
        [*prompt, {"role": "assistant", "content": f"Behavior: [{letter}]"}] for letter in "AB"
    ]
    return {"dataset": "goodreads", "messages_chosen": sides[0], "messages_rejected": sides[1]}


def released_row(number: int) -> dict[str, Any]:
    order = np.roll(OPTIONS, number).tolist()
    return {
        "text": {"profile": f"Reader {number // 2}", "history": f"Book {number}",
                 "action_list": order},
        "user_id": f"u{number // 2}", "item_pos": order.index("Low Tide"), "dataset": "goodreads",
    }  # fmt: skip


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A folder with both released sets, of invented rows."""
    folder = tmp_path / "released"
    folder.mkdir()
    for name, rows in (
        ("train.jsonl", [released_train()]), ("eval.jsonl", [released_row(n) for n in range(12)])
    ):  # fmt: skip
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


class Reader:
    """An engine that likes "Low Tide", more so for readers of odd books."""

    model_id, context_length = "reader", 10_000

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []

    def choice_logprobs(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        self.prompts += prompts
        return [self._answer(prompt) for prompt in prompts]

    def _answer(self, prompt: Prompt) -> OptionScores:
        text = prompt.messages[1].content
        lines = text.rpartition("# On offer\n")[2].splitlines()
        odd = any(f"Book {n}\n" in text for n in range(1, 12, 2))
        liking = np.array([2.0 + odd if "Low Tide" in line else 0.0 for line in lines])
        logprobs = liking - np.log(np.exp(liking).sum())
        return OptionScores(logprobs, np.ones(len(lines), np.int64), 10, 0)


def test_released_rows_are_asked_about_as_they_were_released(released: Path) -> None:
    frame = read_released(released, "train").frame()
    rows = read_released(released, "eval")
    data, texts = released_scenes(rows, source="set", count=5)
    scenes = scenes_of(data.evaluation)
    simulator = ReleasedSimulator(Reader(), frame, texts)  # type: ignore[arg-type]
    assert [simulator.prompt(scene) for scene in scenes] == rows.prompts(frame)[:5]
    assert [scene.target for scene in scenes] == rows.targets[:5].tolist()
    assert [scene.user_id for scene in scenes] == [1, 1, 2, 2, 3]
    # Memories are swapped, hidden, and lists reordered as in any other scene.
    swapped = simulator.prompt(swap_histories(scenes)[0]).messages[1].content
    assert "Reader 0" not in swapped
    assert (
        swapped.rpartition("# On offer")[2]
        == (rows.prompts(frame)[0].messages[1].content.rpartition("# On offer")[2])
    )
    hidden = replace(scenes[0], user_id=0, history=(), ratings=(), ages=(), behaviours=())
    assert simulator.prompt(hidden).messages[1].content == user_message("", "", OPTIONS)


def test_rows_without_a_user_are_users_of_their_own() -> None:
    rows = tuple(EvalScene(f"row {n}", "d", "p", "h", OPTIONS, 0) for n in range(3))
    data, _ = released_scenes(ReleasedEval(rows, {}), source="s", count=9)
    assert data.evaluation["user_id"].to_pylist() == [1, 2, 3]


def test_the_released_set_makes_a_card(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader()
    monkeypatch.setattr(fidelity_run, "load_engine", lambda *_, **__: reader)
    monkeypatch.setattr(fidelity_run, "find_simulator", lambda name: None)  # no hub here
    config = EvaluateConfig("owner/model", scenes=str(released), count=10, checks=4)
    card = evaluate(config, tmp_path / "card")
    assert card["scenes"]["with_target"] == 10
    assert card["scenes"]["users"] == 5
    assert card["choosers"][0]["overall"]["forced"]["accuracy"]["mean"] == 1.0
    assert card["outside"] is None  # no such option there
    assert card["probes"] == []
    assert {c["name"] for c in card["choosers"]} == {
        "model", "swapped history", "list only", "uniform",
    }  # fmt: skip
    assert {prompt.messages[0].content for prompt in reader.prompts} == {SYSTEM}


def test_trained_adapters_answer_the_released_set_too(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple] = []

    def load(*names: str, **parts: Any) -> Reader:
        asked.append((*names, parts))
        return Reader()

    monkeypatch.setattr(fidelity_run, "load_engine", load)
    folder = trained(tmp_path / "mine", checkpoint="owner/base", engine={"dtype": "bfloat16"})
    config = EvaluateConfig(
        folder, {"dtype": "float32"}, scenes=str(released / "eval.jsonl"), count=4, checks=1,
        released_train=str(released),
    )  # fmt: skip
    evaluate(config, tmp_path / "card")
    assert asked == [("owner/base", {"dtype": "float32", "adapter": folder})]


def test_what_is_the_released_set_is_told_from_a_build(released: Path, tmp_path: Path) -> None:
    assert is_released("Joinn/UserMirrorer-eval")
    assert is_released(str(released))
    assert is_released(str(released / "eval.jsonl"))
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "manifest.json").write_text("{}")
    (tmp_path / "build" / "scenes.parquet").write_text("")
    for other in (str(tmp_path / "build"), "ml-100k", "amazon:Video_Games", "my.yaml"):
        assert not is_released(other)


def test_released_scenes_need_a_reader_of_texts(released: Path, tmp_path: Path) -> None:
    config = EvaluateConfig("popularity", scenes=str(released))
    with pytest.raises(ConfigError, match="cannot read them; name weights"):
        evaluate(config, tmp_path / "card")
    (released / "eval.jsonl").write_text(
        json.dumps(released_row(0) | {"text": {"profile": "", "history": "", "action_list": []}})
    )
    with pytest.raises(ConfigError, match="none of 1 rows has its texts"):
        evaluate(replace(config, simulator="owner/model"), tmp_path / "card")


def test_answers_stay_unless_it_is_their_own_simulator_that_changed(tmp_path: Path) -> None:
    def note(**inputs: str) -> set[str]:
        fidelity_run._note_inputs(tmp_path, SimpleNamespace(inputs=inputs))
        return {path.name for path in (tmp_path / "answers").iterdir()}

    (tmp_path / "run.json").write_text("{}")
    for name in ("mine-1", "base"):
        (tmp_path / "answers" / name).mkdir(parents=True)
    assert note(simulator="S 1", base="B 1") == {"mine-1", "base"}
    assert note(simulator="S 1", base="B 2") == {"mine-1"}
    (tmp_path / "answers" / "base").mkdir()
    assert note(simulator="S 2", base="B 2") == {"base"}
