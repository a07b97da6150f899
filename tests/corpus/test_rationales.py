"""Writing rationales and reading choices behind them: retried, counted, resumed after kill -9."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from usermirror_gym.corpus.estimate import estimate
from usermirror_gym.corpus.rationales.plan import RationaleSettings, read_attempts
from usermirror_gym.corpus.rationales.predictions import (
    load_predictions,
    predict_choices,
    read_predictions,
)
from usermirror_gym.corpus.rationales.write import read_rationales, write_rationales
from usermirror_gym.errors import ConfigError, EngineError, RunError, SceneError
from usermirror_gym.measures.uncertainty import Predictions
from usermirror_gym.progress import Display
from usermirror_gym.scenes.words.rationale_prompt import rationale_prompt, reading_prompt

QUIET = Display(quiet=True)
SETTINGS = RationaleSettings(n=3, batch_size=6)


@pytest.fixture(scope="module")
def builder(scripted):
    return scripted.make_builder()


@pytest.fixture
def write(scripted, builder, tmp_path):
    """``write(engine, scenes=7, role="weak", **settings)`` on one journal."""

    def call(engine, scenes=7, role="weak", **changes):
        made = scripted.make_scenes(scenes) if isinstance(scenes, int) else scenes
        settings = replace(SETTINGS, **changes)
        path = tmp_path / "r.jsonl"
        return write_rationales(made, builder, engine, path, settings, role=role, display=QUIET)

    return call


@pytest.fixture
def predict(scripted, builder, tmp_path):
    def call(engine, scenes=7):
        return predict_choices(
            scripted.make_scenes(scenes), builder, engine, read_rationales(tmp_path / "r.jsonl"),
            tmp_path / "p.jsonl", batch_size=8, display=QUIET,
        )  # fmt: skip

    return call


def test_every_scene_gets_n_texts_of_its_own(scripted, write, tmp_path: Path) -> None:
    summary = write(scripted.ScriptedEngine(), prompt_price=1.0, completion_price=10.0)
    found = read_rationales(tmp_path / "r.jsonl")
    keys = [(r.scene_id, r.index) for r in found]
    assert keys == [(f"s{i:03d}", k) for i in range(7) for k in range(3)]
    assert len({r.text for r in found}) == 21
    assert all(r.ok and r.error is None and r.attempt == 0 for r in found)
    assert not any("\n\n" in r.text or r.text.endswith("\n") for r in found)
    assert (summary.wanted, summary.written, summary.failed) == (21, 21, 0)
    assert summary.completion_tokens == sum(r.completion_tokens for r in found) > 0
    paid = summary.prompt_tokens + 10 * summary.completion_tokens
    assert summary.cost == pytest.approx(paid / 1e6)


def test_a_question_is_paid_once_for_its_n_texts(scripted, builder, write, tmp_path) -> None:
    engine = scripted.ScriptedEngine()
    summary = write(engine)
    prompts = [rationale_prompt(scene, builder) for scene in scripted.make_scenes(7)]
    assert summary.prompt_tokens == sum(
        engine.count_tokens(replace(prompt, options=())) for prompt in prompts
    )
    assert [n for _, n, _ in engine.calls] == [3] * 4
    assert [len(names) for _, _, names in engine.calls] == [2, 2, 2, 1]


def test_failures_are_retried_with_other_seeds_then_given_up(scripted, write, tmp_path) -> None:
    def script(prompt, seed, k):
        if prompt.name == "s002":
            return "I take B."
        return scripted.flaky(prompt, seed, k)

    summary = write(scripted.ScriptedEngine(script))
    attempts = list(read_attempts(tmp_path / "r.jsonl"))
    bad = [a for a in attempts if a.scene_id == "s002"]
    assert [(a.index, a.attempt) for a in bad] == [(i, t) for i in range(3) for t in range(3)]
    assert all(a.error.startswith("unreadable") and a.text == "I take B." for a in bad)
    empties = [a for a in attempts if a.error and a.error.startswith("empty")]
    assert empties
    assert summary.failures == {"unreadable": 9, "empty": len(empties)}
    assert summary.failed == 21 - summary.written >= 3
    later = [a for a in attempts if a.ok and a.attempt > 0]
    assert later
    seeds = {(a.index if a.attempt else 0, a.attempt): a.seed for a in attempts}
    assert len(set(seeds.values())) == len(seeds)
    assert "gave" not in str(summary)
    assert f"{summary.failed} given up" in str(summary)


def test_any_text_will_do_if_stages_are_not_required(scripted, write) -> None:
    summary = write(scripted.ScriptedEngine(lambda *_: "Hm.\nMy choice: [A]"), require="text")
    assert (summary.written, summary.failures) == (21, {})


def test_one_prompt_that_breaks_the_engine_costs_the_others_nothing(
    scripted, write, tmp_path: Path
) -> None:
    def script(prompt, seed, k):
        if prompt.name == "s003":
            raise EngineError("prompt 's003' is cursed")
        return None

    summary = write(scripted.ScriptedEngine(script))
    assert (summary.written, summary.failed) == (18, 3)
    assert summary.failures == {"engine": 9}
    lost = [r for r in read_rationales(tmp_path / "r.jsonl") if not r.ok]
    assert {r.scene_id for r in lost} == {"s003"}
    assert lost[0].error == "engine: prompt 's003' is cursed"


def test_an_engine_that_is_down_stops_the_run_which_goes_on_later(
    scripted, write, tmp_path: Path
) -> None:
    calls = 0

    def script(prompt, seed, k):
        nonlocal calls
        calls += 1
        if calls > 9:
            raise EngineError("connection refused")
        return None

    with pytest.raises(EngineError, match="answers nothing at the moment: connection refused"):
        write(scripted.ScriptedEngine(script))
    assert calls < 20
    kept = list(read_attempts(tmp_path / "r.jsonl"))
    assert len(kept) == 6  # the second call failed half-way, so its prompts were asked alone
    again = scripted.ScriptedEngine()
    assert write(again).written == 21
    assert sum(n * len(names) for _, n, names in again.calls) == 15


def test_a_model_that_never_keeps_the_form_stops_the_run(scripted, write, tmp_path: Path) -> None:
    engine = scripted.ScriptedEngine(lambda *_: "yes yes yes")
    with pytest.raises(EngineError, match=r"none of 66 answers of scripted.*require='text'"):
        write(engine, scenes=29)
    assert len(engine.calls) == 11


def test_a_scene_that_does_not_fit_is_given_up_by_name(scripted, write, tmp_path: Path) -> None:
    engine = scripted.ScriptedEngine()
    engine.context_length = 500
    summary = write(engine, max_tokens=499)
    assert summary.failures == {"scene": 63}
    assert engine.calls == []
    assert "s000" in next(read_attempts(tmp_path / "r.jsonl")).error


def test_the_engine_starts_every_call_afresh(scripted, write) -> None:
    engine = scripted.ScriptedEngine()
    write(engine)
    assert engine.forgotten == len(engine.calls)


def test_a_finished_journal_is_not_touched_and_asks_nothing(scripted, write, tmp_path) -> None:
    first = write(scripted.ScriptedEngine(scripted.flaky))
    before = (tmp_path / "r.jsonl").read_bytes()
    engine = scripted.ScriptedEngine(scripted.flaky)
    assert write(engine, batch_size=100) == first
    assert engine.calls == []
    assert (tmp_path / "r.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": 0.5}, "settings.temperature was 1.0 and is now 0.5"),
        ({"seed": 1}, "settings.seed was 0 and is now 1"),
        ({"role": "strong"}, "role was 'weak' and is now 'strong'"),
        ({"scenes": 6}, "scenes was 7 and is now 6"),
    ],
)
def test_going_on_differently_is_an_error_that_names_the_difference(
    change, words, scripted, write
) -> None:
    write(scripted.ScriptedEngine())
    with pytest.raises(RunError, match=words):
        write(scripted.ScriptedEngine(), **change)


def test_going_on_with_another_model_or_other_words_is_an_error(
    scripted, write, monkeypatch
) -> None:
    write(scripted.ScriptedEngine())
    with pytest.raises(RunError, match="model was 'scripted' and is now 'other'"):
        write(scripted.ScriptedEngine(model_id="other"))
    monkeypatch.setattr("usermirror_gym.corpus.rationales.plan.prompt_version", lambda: "new")
    with pytest.raises(RunError, match=r"prompt was '[0-9a-f]+' and is now 'new'"):
        write(scripted.ScriptedEngine())


def test_other_scenes_of_the_same_names_are_an_error(scripted, write) -> None:
    write(scripted.ScriptedEngine())
    changed = scripted.make_scenes(7)
    changed[4] = replace(changed[4], slate=changed[4].slate[::-1])
    with pytest.raises(RunError, match="questions was"):
        write(scripted.ScriptedEngine(), scenes=changed)


def test_scene_names_must_be_unique(scripted, write) -> None:
    scenes = scripted.make_scenes(3)
    with pytest.raises(SceneError, match="two scenes are called 's001'"):
        write(scripted.ScriptedEngine(), scenes=[*scenes, scenes[1]])


def test_an_edited_journal_is_refused(scripted, write, tmp_path: Path) -> None:
    write(scripted.ScriptedEngine())
    path = tmp_path / "r.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[3]]))
    with pytest.raises(RunError, match="out of turn"):
        write(scripted.ScriptedEngine())
    path.write_text("".join(lines).replace('"index": 2', '"number": 2'))
    with pytest.raises(RunError, match="no rationale"):
        read_rationales(path)


@pytest.mark.parametrize(
    "bad",
    [
        {"n": 0}, {"n": True}, {"n": 2.5}, {"temperature": -1.0}, {"temperature": float("nan")},
        {"temperature": 0.0}, {"top_p": 0.0}, {"top_p": "0.9"}, {"max_attempts": 0},
        {"require": "poetry"}, {"prompt_price": -1.0}, {"seed": "0"},
    ],
)  # fmt: skip
def test_settings_are_checked(bad) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        RationaleSettings(**bad)


# Predictions


def test_choices_are_read_behind_every_rationale_and_behind_none(
    scripted, builder, write, predict, tmp_path: Path
) -> None:
    write(scripted.ScriptedEngine())
    engine = scripted.ScriptedEngine()
    assert predict(engine) == {"read": 28, "failed": 0}
    scenes, ids = scripted.make_scenes(7), [f"s{i:03d}" for i in range(7)]
    texts = {(r.scene_id, r.index): r.text for r in read_rationales(tmp_path / "r.jsonl")}
    loaded = load_predictions(tmp_path / "p.jsonl", ids, 3)
    for s, scene in enumerate(scenes):
        for k in range(3):
            prompt = reading_prompt(scene, builder, texts[scene.name, k])
            wanted = np.exp(scripted.ScriptedEngine().choice_logprobs([prompt])[0].logprobs)
            np.testing.assert_array_equal(loaded["weak"][s][k], wanted)
            assert len(wanted) == len(scene.slate) + 1
        assert loaded["strong"][s] == [None, None, None]
        bare = reading_prompt(scene, builder)
        wanted = np.exp(scripted.ScriptedEngine().choice_logprobs([bare])[0].logprobs)
        np.testing.assert_array_equal(loaded["none"][s], [wanted])
    assert Predictions.of("weak", ids, loaded["weak"]).present.all()


def test_failed_rationales_are_absent_at_their_place(
    scripted, write, predict, tmp_path: Path
) -> None:
    write(scripted.ScriptedEngine(scripted.flaky), max_attempts=1)
    missing = {(r.scene_id, r.index) for r in read_rationales(tmp_path / "r.jsonl") if not r.ok}
    assert missing
    predict(scripted.ScriptedEngine())
    rows = load_predictions(tmp_path / "p.jsonl", ["s001", "s000", "s002"], 3)["weak"]
    for name, row in zip(["s001", "s000", "s002"], rows, strict=True):
        assert [k for k in range(3) if row[k] is None] == [
            k for k in range(3) if (name, k) in missing
        ]


def test_a_reading_that_fails_is_recorded_and_the_others_are_kept(
    scripted, write, predict, tmp_path: Path
) -> None:
    def script(prompt, seed, k):
        if prompt.name == "s004" and "Stimulus" not in prompt.answer_prefix:
            raise EngineError("no letters here")
        return None

    write(scripted.ScriptedEngine())
    assert predict(scripted.ScriptedEngine(script)) == {"read": 27, "failed": 1}
    (lost,) = [p for p in read_predictions(tmp_path / "p.jsonl") if p.probs is None]
    assert (lost.scene_id, lost.role, lost.error) == ("s004", "none", "engine: no letters here")
    assert predict(scripted.ScriptedEngine()) == {"read": 27, "failed": 1}


def test_a_predictor_that_is_down_stops_the_run(scripted, write, predict, tmp_path: Path) -> None:
    def script(prompt, seed, k):
        raise EngineError("connection refused")

    write(scripted.ScriptedEngine())
    with pytest.raises(EngineError, match="answers nothing at the moment: engine: connection"):
        predict(scripted.ScriptedEngine(script))
    assert list(read_predictions(tmp_path / "p.jsonl")) == []


def test_predictions_belong_to_their_rationales_and_predictor(
    scripted, builder, write, predict, tmp_path: Path
) -> None:
    write(scripted.ScriptedEngine())
    predict(scripted.ScriptedEngine())
    with pytest.raises(RunError, match="model was 'scripted' and is now 'other'"):
        predict(scripted.ScriptedEngine(model_id="other"))
    with pytest.raises(RunError, match="a rationale for scene 's006', but no such scene"):
        predict(scripted.ScriptedEngine(), scenes=6)
    (tmp_path / "r.jsonl").unlink()
    write(scripted.ScriptedEngine(), seed=9)
    with pytest.raises(RunError, match="rationales was"):
        predict(scripted.ScriptedEngine())
    with pytest.raises(RunError, match="load it with the n"):
        load_predictions(tmp_path / "p.jsonl", ["s000"], 2)


# kill -9


def die(where: str, when: int, folder: Path) -> None:
    script = Path(__file__).with_name("scripted.py")
    done = subprocess.run([sys.executable, str(script), str(folder), where, str(when)], timeout=120)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("where", "when"),
    # Writes: two headers, four first calls, retries, the sorted file, readings.
    [("text", 1), ("text", 11), ("text", 23), ("write", 1), ("write", 3), ("write", 7),
     ("write", 9), ("write", 13)],
)  # fmt: skip
def test_killed_at_any_moment_the_end_is_the_same(
    where: str, when: int, scripted, tmp_path: Path
) -> None:
    scripted.run(tmp_path / "calm")
    die(where, when, tmp_path / "killed")
    journal = tmp_path / "killed" / "weak.jsonl"
    kept = [json.loads(line) for line in journal.read_bytes().split(b"\n")[1:-1]]
    kept_calls = {(r["scene_id"], r["seed"], 0 if r["attempt"] else r["index"]) for r in kept}
    asked = []

    def script(prompt, seed, k):
        asked.append((prompt.name, seed, k))
        return scripted.flaky(prompt, seed, k)

    scripted.run(tmp_path / "killed", script)
    for name in ("weak.jsonl", "predictions.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
    assert not list((tmp_path / "killed").glob(".*.tmp"))
    # Only a call whose records the kill cut in two is asked again.
    assert len(kept_calls & set(asked)) <= (0 if where == "text" else 5)


# Estimate


def test_estimate_counts_questions_and_times_a_probe(scripted, builder) -> None:
    engine, scenes = scripted.ScriptedEngine(), scripted.make_scenes(7)
    settings = replace(SETTINGS, max_tokens=50, prompt_price=2.0, completion_price=4.0)
    found = estimate(scenes, builder, engine, settings, role="strong", probe=2)
    asked = sum(
        engine.count_tokens(replace(rationale_prompt(s, builder), options=())) for s in scenes
    )
    assert found.rationales == 21
    assert found.prompt_tokens == asked
    assert found.completion_tokens == 21 * len(scripted.GOOD.split())
    assert found.most_completion_tokens == 21 * 50
    assert found.cost == pytest.approx((2 * asked + 4 * found.completion_tokens) / 1e6)
    assert found.most_cost == pytest.approx((2 * asked + 4 * 1050) / 1e6)
    assert 0 < found.seconds < 60
    assert sum(n * len(names) for _, n, names in engine.calls) == 1 + 2 * 3
    assert "21 texts" in str(found)
    assert "about" not in str(found)


def test_an_estimate_that_cannot_be_made_says_why(scripted, builder) -> None:
    def script(prompt, seed, k):
        raise EngineError("no such model")

    scenes = scripted.make_scenes(2)
    with pytest.raises(EngineError, match="no such model"):
        estimate(scenes, builder, scripted.ScriptedEngine(script), SETTINGS, role="weak")
    with pytest.raises(SceneError, match="no scenes"):
        estimate([], builder, scripted.ScriptedEngine(), SETTINGS, role="weak")


@pytest.mark.slow
def test_smollm2_writes_and_predicts_and_goes_on_bit_for_bit(
    scripted, builder, tmp_path: Path
) -> None:
    from usermirror_gym.engines.choosing import load_engine

    scenes, engine = scripted.make_scenes(2), load_engine()
    settings = RationaleSettings(n=2, max_tokens=40, require="text", batch_size=2)
    paths = tmp_path / "r.jsonl", tmp_path / "p.jsonl"

    def run() -> list[bytes]:
        summary = write_rationales(
            scenes, builder, engine, paths[0], settings, role="weak", display=QUIET
        )
        assert summary.written == 4
        # A text is at most 40 tokens; encoded anew it may be a few more.
        assert 20 < summary.completion_tokens <= 4 * 44
        found = read_rationales(paths[0])
        predict_choices(scenes, builder, engine, found, paths[1], batch_size=1, display=QUIET)
        return [path.read_bytes() for path in paths]

    calm = run()
    for path, whole in zip(paths, calm, strict=True):
        # The last call's records are gone, one of them in the middle of a line.
        path.write_bytes(whole[: whole.rstrip(b"\n").rindex(b"\n") + 30])
    assert run() == calm
    rows = load_predictions(paths[1], ["s000", "s001"], 2)
    for s, scene in enumerate(scenes):
        assert np.asarray(rows["weak"][s]).shape == (2, len(scene.slate) + 1)
        np.testing.assert_allclose(np.sum(rows["weak"][s], axis=1), 1)
