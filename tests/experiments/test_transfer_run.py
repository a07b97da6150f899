"""The whole experiment: a tiny one that is killed, and a small one with the real model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from usermirror_gym.agents import PopAgent, RandomAgent
from usermirror_gym.data import load_dataset
from usermirror_gym.errors import ConfigError, RunError, UnknownNameError
from usermirror_gym.experiments.transfer import run as transfer_run
from usermirror_gym.experiments.transfer.report import sentences
from usermirror_gym.experiments.transfer.run import TransferConfig, run_transfer
from usermirror_gym.progress import Display
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.types import TIMESTAMP

TINY: dict[str, Any] = {
    "truth": {"factors": 4, "penalty": 1.0, "iterations": 30}, "log": {"ticks": 60, "lists": 25},
    "models": ("EASE", "ItemKNN"), "updates": 2, "train_users": 6, "evaluations": 2, "trainings": 2,
    "users": 20, "steps": 3, "slate_size": 3, "n_resamples": 50,
}  # fmt: skip


SURROGATE: dict[str, Any] = {
    "questions.total": 400, "questions.agents": ["Random", "Pop"], "questions.strangers": [],
    "questions.min_history": 1, "questions.slate_sizes": [3], "fit.epochs": 2,
}  # fmt: skip


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny real log, a popularity user where a trained simulator would be, simple models."""

    def fitted(run: Any, name: str) -> Any:
        agent = RandomAgent() if name == "Random" else PopAgent()
        agent.name = name
        return agent.fit(run.split)

    monkeypatch.setattr(
        transfer_run, "load_dataset", lambda *a: tiny_split(n_users=30, n_items=60).dataset
    )
    monkeypatch.setattr(transfer_run._Run, "checkpoint", lambda run, number: "popularity")
    monkeypatch.setattr(transfer_run._Run, "_fitted", fitted)


def test_a_killed_experiment_ends_like_one_that_was_not(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TransferConfig(**TINY)
    calm = run_transfer(config, tmp_path / "calm")

    kept = transfer_run.judge
    calls: list[int] = []

    def killed(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return kept(*args, **kwargs)

    monkeypatch.setattr(transfer_run, "judge", killed)
    with pytest.raises(KeyboardInterrupt):
        run_transfer(config, tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()
    resumed = run_transfer(config, tmp_path / "run")
    assert len(calls) == 5  # two of four trainings were done before the kill
    assert resumed == calm
    for name in ("report.html", "report.md", "results.json", "curve-climber.svg", "ranking.svg"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()

    page = (tmp_path / "run" / "report.html").read_text()
    text = (tmp_path / "run" / "report.md").read_text()
    for sentence in sentences(resumed):
        assert sentence.split(":")[0] in text
    assert page.count("<svg") == 3
    assert "curve-climber-new.svg" in text
    assert [row["name"] for row in resumed["ranking"]["policies"]] == ["Pop", "EASE", "ItemKNN"]
    assert {row["name"] for row in resumed["probes"]} >= {"Repeat", "MostClicked", "AllBad"}
    assert resumed["curves"]["climber"]["steps"] == [0, 6, 12]

    with pytest.raises(RunError, match=r"other settings \(users=20\)"):
        run_transfer(TransferConfig(**TINY | {"users": 21}), tmp_path / "run")


def test_a_folder_in_which_somebody_is_at_work_is_refused(
    tmp_path: Path, refused_while_busy
) -> None:
    config = TransferConfig(**TINY)
    refused_while_busy(tmp_path / "run", lambda: run_transfer(config, tmp_path / "run"))


def test_mistakes_leave_no_folder(tiny: None, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="climbr"):
        run_transfer(TransferConfig(**TINY | {"learners": ("climbr",)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(RunError, match="not empty and holds no run"):
        run_transfer(TransferConfig(**TINY), tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"users": 0}, "users must be at least 1"), ({"truth": {"satiaton": 1}}, "satiaton"),
     ({"log": {"ticks": 0}}, "ticks must be at least 1"), ({"models": ()}, "models must be"),
     ({"models": ("EASE",)}, "models must be different names, at least 2"),
     ({"learners": ("climber", "climber")}, "learners must be different"),
     ({"held_out": 1.0}, "held_out must be 0 or more and below 1"),
     ({"worlds": ("neighbours",)}, "worlds are given as kind:seed"),
     ({"worlds": ("nieghbours:1",)}, "Did you mean 'neighbours'")],
)  # fmt: skip
def test_settings_are_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        TransferConfig(**wrong)


def test_held_out_users_are_in_no_training_and_have_their_histories_when_played(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real way to a checkpoint, up to the training
    monkeypatch.setattr(
        transfer_run, "load_dataset", lambda *a: tiny_split(n_users=30, n_items=60).dataset
    )
    trained: list[tuple[Any, Path]] = []
    monkeypatch.setattr(
        "usermirror_gym.train.run.train",
        lambda recipe, folder, **more: trained.append((recipe, folder)) or "popularity",
    )
    config = TransferConfig(**TINY, held_out=0.4, recipe_settings={"seed": 7})
    run = transfer_run._Run(config, tmp_path, Display(quiet=True))
    assert len(run.simulators) == 2
    assert [folder.name for _, folder in trained] == ["simulator", "simulator-2"]
    assert [recipe.seed for recipe, _ in trained] == [7, 1007]

    unseen = set(np.flatnonzero(run.unseen).tolist())
    assert len(unseen) == 12
    for recipe, _ in trained:
        [source] = recipe.data.sources
        assert recipe.build_config().scenes_of(source).t0 == run.split.t0
        log = load_dataset(source.name)
        assert not unseen & set(log.interactions["user_id"])
        assert not unseen & set(log.impressions.user_ids.tolist())
        assert log.users["token"].tolist() == run.real.users["token"].tolist()
    whole = run.split.dataset
    assert unseen <= set(whole.impressions.user_ids.tolist())
    kept = whole.interactions[~whole.interactions["user_id"].isin(unseen)]
    assert len(kept) == len(log.interactions)

    for world in (*run.simulators, run.worlds["truth"]):
        played = unseen & set(world.users.tolist())
        assert played
        assert all(world.memory.lengths[user] >= 5 for user in played)
    other = transfer_run._Run(replace(config, seed=1), tmp_path, Display(quiet=True))
    assert set(np.flatnonzero(other.unseen).tolist()) != unseen


def test_the_ranking_is_repeated_in_other_worlds_and_goes_on_where_it_was(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TransferConfig(**TINY | {
        "learners": (), "worlds": ("neighbours:0", "factors:1"), "log": {"ticks": 60, "lists": 25}
    })  # fmt: skip
    generated: list[Any] = []
    kept = transfer_run.generate_log

    def generate(real: Any, user: Any, *args: Any, **more: Any) -> Any:
        generated.append((user.settings.kind, args[1].seed))
        if len(generated) == 3:
            raise KeyboardInterrupt
        return kept(real, user, *args, **more)

    monkeypatch.setattr(transfer_run, "generate_log", generate)
    with pytest.raises(KeyboardInterrupt):
        run_transfer(config, tmp_path)
    results = run_transfer(config, tmp_path)
    assert generated == [("factors", 0), ("neighbours", 0), ("factors", 1), ("factors", 1)]
    assert list(results["worlds"]) == ["neighbours:0", "factors:1"]
    found = [results["ranking"], *results["worlds"].values()]
    levels = [[row["true"]["mean"] for row in ranking["policies"]] for ranking in found]
    assert levels[0] != levels[1] != levels[2] != levels[0]
    assert results["curves"] == {}
    text = (tmp_path / "report.md").read_text()
    assert "| neighbours:0 |" in text
    assert "Training" not in text
    assert len([s for s in sentences(results) if s.startswith("World ")]) == 2


def test_no_sentence_rests_on_degraded_policies(tiny: None, tmp_path: Path) -> None:
    results = run_transfer(TransferConfig(**TINY | {"learners": ()}), tmp_path)
    said = sentences(results)
    assert said[0].startswith("3 recommenders, unseen users")
    apart = results["ranking"]["degraded"]
    assert {"Random", "EASE~0.5", "AllBad"} <= {row["name"] for row in apart["policies"]}
    results["ranking"]["degraded"] = None
    assert sentences(results) == said
    text = (tmp_path / "report.md").read_text()
    assert text.index("## Degraded policies, apart") > text.index("## Takes as a session goes on")
    assert "~0.5" not in (tmp_path / "ranking.svg").read_text()


@pytest.mark.slow
def test_a_simulator_is_trained_on_the_truths_log_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ml-100k, SmolLM2: the simulator ranks policies better than chance, and learns nothing that
    is not in the log before T0."""
    from usermirror_gym.train import finish

    fitted: list[pd.DataFrame] = []
    kept = finish.fit_head

    def fit_head(states: Any, events: pd.DataFrame, *args: Any) -> Any:
        fitted.append(events)
        return kept(states, events, *args)

    monkeypatch.setattr(finish, "fit_head", fit_head)
    scenes = {"train": 40, "validation": 300, "eval": 20}
    config = TransferConfig(
        log={"ticks": 300, "lists": 80},
        recipe_settings={f"data.scenes.{name}": count for name, count in scenes.items()},
        models=("EASE", "ItemKNN"), learners=("climber",), simulator_trainings=1,
        updates=8, evaluations=2, trainings=1, users=60, n_resamples=200,
    )  # fmt: skip
    results = run_transfer(config, tmp_path)
    assert results["ranking"]["degraded"]["simulator"]["mean"] > 0.2
    curve = results["curves"]["climber"]["worlds"]["simulator"]
    assert curve[-1]["mean"] > curve[0]["mean"]
    log = transfer_run.read_dataset(tmp_path / "log" / "tables")
    t0 = transfer_run.time_cut(log).t0
    known = set(map(tuple, log.interactions[["user_id", "item_id", TIMESTAMP]].to_numpy()))
    assert len(fitted) == 2
    for events in fitted:
        assert (events[TIMESTAMP] < t0).all()
        assert set(map(tuple, events[["user_id", "item_id", TIMESTAMP]].to_numpy())) <= known
    repeat = next(row for row in results["probes"] if row["name"] == "Repeat")
    assert repeat["true"]["mean"] == 0
    # What the simulator was trained from: the log and nothing else.
    assert {path.name for path in (tmp_path / "log").iterdir()} == {
        "interactions.parquet", "items.parquet", "users.parquet", "impressions.parquet",
        "truth-log.yaml", "tables",
    }  # fmt: skip


def test_agents_are_trained_in_a_surrogate_of_the_simulator(tiny: None, tmp_path: Path) -> None:
    """Three worlds: the surrogate that is trained in, the simulator, the truth."""
    config = TransferConfig(**TINY | {
        "tier": "surrogate", "surrogate_settings": SURROGATE, "learners": ("slateq", "Thompson"),
    })  # fmt: skip
    results = run_transfer(config, tmp_path)
    assert "surrogate(popularity" in results["about"]["trained_on"]
    for name in config.learners:
        assert set(results["curves"][name]["worlds"]) == {"tier", "simulator", "truth"}
    assert (tmp_path / "surrogate" / "checkpoint" / "distillation.json").is_file()
    assert (tmp_path / "curve-slateq.svg").is_file()
