"""The whole experiment: a tiny one that is killed, and a small one with the real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from usermirror_gym.agents import PopAgent, RandomAgent
from usermirror_gym.errors import ConfigError, RunError, UnknownNameError
from usermirror_gym.experiments.transfer import run as transfer_run
from usermirror_gym.experiments.transfer.report import sentences
from usermirror_gym.experiments.transfer.run import TransferConfig, run_transfer
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
     ({"learners": ("climber", "climber")}, "learners must be different")],
)  # fmt: skip
def test_settings_are_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TransferConfig(**wrong)


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
        models=("ItemKNN",), learners=("climber",), updates=8, evaluations=2, trainings=1,
        users=60, n_resamples=200,
    )  # fmt: skip
    results = run_transfer(config, tmp_path)
    assert results["ranking"]["simulator"]["tau_b"]["mean"] > 0.2
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
