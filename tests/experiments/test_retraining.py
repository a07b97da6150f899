"""The interaction experiment: equal arms, nothing of the test in any of them, resumable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from usermirror_gym.agents import PopAgent, RandomAgent, RecBoleAgent, observations_from_split
from usermirror_gym.benchmark.offline import OFFLINE_METRICS
from usermirror_gym.cli import app
from usermirror_gym.data import TimeSplit, time_cut
from usermirror_gym.envs import make_world
from usermirror_gym.errors import ConfigError, DataError, RunError, UnknownNameError
from usermirror_gym.experiments.retraining import run as retraining
from usermirror_gym.experiments.retraining.feedback import (
    ARMS,
    Feedback,
    Mixture,
    Timeline,
    draw_feedback,
)
from usermirror_gym.experiments.retraining.run import RetrainConfig, check_knowledge, retrain
from usermirror_gym.experiments.retraining.summary import summarise_retraining
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.types import ITEM_ID, TIMESTAMP, USER_ID

FED = [arm for arm in ARMS if arm != "nothing"]
CONFIG = RetrainConfig(
    models=("BPR",), seeds=2, amount=3, lists=6, slate_size=3, simulator="popularity", cut=0.5,
    until=0.7, min_history=3, model_options={"epochs": 1},
)  # fmt: skip


def split_at(share: float = 0.5) -> TimeSplit:
    return time_cut(tiny_split(60, 40).dataset, share)


def timeline_of(split: TimeSplit) -> Timeline:
    return Timeline.of(split, until=0.7, min_history=3)


def feedback_of(timeline: Timeline, seed: int = 0, amount: int = 3) -> Feedback:
    world = make_world(timeline.split, simulator="popularity", min_history=3)
    policy = PopAgent().fit(timeline.split)
    return draw_feedback(
        timeline, world, policy, amount=amount, lists=6, slate_size=3, seed=seed
    )  # fmt: skip


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    return timeline_of(split_at())


@pytest.fixture(scope="module")
def feedback(timeline: Timeline) -> Feedback:
    return feedback_of(timeline)


class TestFeedback:
    def test_every_arm_gives_every_user_as_much(self, feedback: Feedback) -> None:
        sizes = [{u: len(items) for u, items in feedback[arm].items()} for arm in FED]
        assert all(size == sizes[0] for size in sizes)
        assert len(sizes[0]) > 20
        assert set(sizes[0].values()) >= {2, 3}
        assert feedback["nothing"] == {}

    def test_feedback_is_new_to_the_user_and_named_once(
        self, timeline: Timeline, feedback: Feedback
    ) -> None:
        for arm in FED:
            for user, items in feedback[arm].items():
                assert len(set(items)) == len(items)
                assert not np.isin(items, timeline.split.histories[user].items).any()

    def test_no_arm_trains_on_a_test_item_or_on_anything_as_late_as_the_test(
        self, timeline: Timeline, feedback: Feedback
    ) -> None:
        tests = timeline.tests(feedback)
        assert sum(map(len, tests.values())) > 20
        events = timeline.split.dataset.interactions
        late = events[events[TIMESTAMP] >= timeline.t1]
        really = set(zip(late[USER_ID], late[ITEM_ID], strict=True))
        asked = {(user, item) for user, items in tests.items() for item in items.tolist()}
        assert asked <= really
        for arm in ARMS:
            before = timeline.with_feedback(feedback[arm]).before
            assert before[TIMESTAMP].max() < timeline.t1
            assert not asked & set(zip(before[USER_ID], before[ITEM_ID], strict=True))

    def test_an_arm_is_what_was_before_t0_and_its_feedback_in_order(
        self, timeline: Timeline, feedback: Feedback
    ) -> None:
        for arm in ARMS:
            arm_split = timeline.with_feedback(feedback[arm])
            count = sum(map(len, feedback[arm].values()))
            assert len(arm_split.before) == len(timeline.split.before) + count
            for user, items in feedback[arm].items():
                was = timeline.split.histories[user].items.tolist()
                assert arm_split.histories[user].items.tolist() == was + items

    def test_real_feedback_is_what_the_user_did_next(
        self, timeline: Timeline, feedback: Feedback
    ) -> None:
        for user, items in feedback["real"].items():
            own = timeline.split.after.query(f"{USER_ID} == {user}")
            first = [
                i for i in own[ITEM_ID] if i not in timeline.split.histories[user].items.tolist()
            ]
            assert items == first[: len(items)]

    def test_what_came_later_is_nowhere_in_the_feedback(self, timeline: Timeline) -> None:
        """Another future gives the same feedback, apart from the real one."""
        data = timeline.split.dataset
        events = data.interactions.copy()
        late = events[TIMESTAMP] >= timeline.t1
        events.loc[late, ITEM_ID] = 1 + (events.loc[late, ITEM_ID] + 16) % data.n_items
        other = timeline_of(TimeSplit(replace(data, interactions=events), timeline.split.t0))
        assert other.later != timeline.later
        assert feedback_of(other) == feedback_of(timeline)

    def test_nobody_recommends_what_any_arm_was_given(
        self, timeline: Timeline, feedback: Feedback
    ) -> None:
        tests = timeline.tests(feedback)
        mask = timeline.blocked(feedback, list(tests))
        for row, (user, items) in enumerate(tests.items()):
            assert mask[row, [0, *feedback["random"][user], *timeline.real[user]]].all()
            assert not mask[row, items].any()

    def test_seeds_draw_differently_and_alike(self, timeline: Timeline) -> None:
        first, again, other = (feedback_of(timeline, seed) for seed in (0, 0, 1))
        assert first == again
        assert first["random"] != other["random"]
        assert first["simulated"] != other["simulated"]

    def test_cuts_that_leave_nothing_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="no time behind T0"):
            Timeline.of(split_at(0.7), until=0.6, min_history=3)
        with pytest.raises(DataError, match="move the cuts"):
            Timeline.of(split_at(), until=0.7, min_history=1000)


def test_a_mixture_shows_everybodys_best_once(timeline: Timeline) -> None:
    split = timeline.split
    pop, chance = PopAgent().fit(split), RandomAgent(3).fit(split)
    asked = observations_from_split(split, timeline.users, slate_size=4)
    lists = Mixture([pop, chance]).fit(split).recommend(asked, 4)
    assert lists.shape == (len(timeline.users), 4)
    assert all(len(set(row)) == 4 for row in lists.tolist())
    np.testing.assert_array_equal(lists[:, 0], pop.recommend(asked, 4)[:, 0])
    assert (lists[:, 1] == chance.recommend(asked, 4)[:, 0]).mean() > 0.8


def test_reciprocal_rank_is_of_the_first_hit() -> None:
    hits = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0]], bool)
    assert OFFLINE_METRICS["mrr"].values(hits, np.ones(3, int)).tolist() == [0.5, 1.0, 0.0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("retrain") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retraining, "load_dataset", lambda *_: tiny_split(60, 40).dataset)
        return folder, retrain(CONFIG, folder)


class TestRun:
    @pytest.fixture(autouse=True)
    def _data(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retraining, "load_dataset", lambda *_: tiny_split(60, 40).dataset)

    def test_all_arms_are_judged_on_the_same_users(
        self, finished: tuple[Path, dict[str, Any]]
    ) -> None:
        folder, results = finished
        scores = sorted((folder / "scores").glob("*.json"))
        assert len(scores) == 2 * len(ARMS)
        (model,) = results["models"]
        assert set(model["arms"]) == set(ARMS)
        for arm in ARMS:
            for metric in ("recall", "ndcg", "mrr"):
                assert 0 <= model["arms"][arm][metric]["mean"] <= 1
        gain = model["arms"]["real"]["ndcg"]["mean"] - model["arms"]["nothing"]["ndcg"]["mean"]
        assert model["gain"]["real"]["ndcg"]["mean"] == pytest.approx(gain)
        assert results["users"]["tested"] > 20
        assert "NDCG@5" in results["verdict"][0]

    def test_a_run_that_was_killed_goes_on_and_ends_alike(
        self, finished: tuple[Path, dict[str, Any]], tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        fit, fits = RecBoleAgent.fit, []

        def counted(agent: RecBoleAgent, data: TimeSplit) -> RecBoleAgent:
            if len(fits) == 8:
                raise KeyboardInterrupt
            fits.append(agent.seed)
            return fit(agent, data)

        monkeypatch.setattr(RecBoleAgent, "fit", counted)
        with pytest.raises(KeyboardInterrupt):
            retrain(CONFIG, tmp_path / "run")
        assert len(list((tmp_path / "run" / "scores").iterdir())) >= 7
        monkeypatch.setattr(RecBoleAgent, "fit", lambda a, d: fits.append(a.seed) or fit(a, d))
        assert retrain(CONFIG, tmp_path / "run") == finished[1]
        assert len(fits) == 2 * len(ARMS)  # none was trained twice

    def test_a_folder_of_another_run_is_refused(
        self, finished: tuple[Path, dict[str, Any]], tmp_path: Path
    ) -> None:
        with pytest.raises(RunError, match=rf"other settings \(amount={CONFIG.amount}\)"):
            retrain(replace(CONFIG, amount=2), finished[0])
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(RunError, match="holds no run"):
            retrain(CONFIG, tmp_path)

    def test_a_folder_in_which_somebody_is_at_work_is_refused(
        self, tmp_path: Path, refused_while_busy
    ) -> None:
        refused_while_busy(tmp_path / "run", lambda: retrain(CONFIG, tmp_path / "run"))

    def test_the_command_prints_the_table_and_what_may_be_said(self, tmp_path: Path) -> None:
        words = (
            f"retrain --models BPR --seeds 1 --amount 2 --lists 4 --simulator popularity --cut 0.5 "
            f"--until 0.7 --model-set epochs=1 --out {tmp_path / 'run'}"
        )
        done = CliRunner().invoke(app, words.split())
        assert done.exit_code == 0, done.output
        assert "popular" in done.output
        assert "the users really took later" in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"amount": 0}, "amount must be at least 1"),
        ({"models": ()}, "models must be names"),
        ({"models": ("BPR", "bpr")}, "each once"),
        ({"models": ("LightGCM",)}, "Did you mean 'LightGCN'"),
        ({"logging_policy": "modl"}, "Did you mean 'model'"),
    ],
)
def test_settings_that_cannot_be_used(values: dict, error: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=error):
        replace(CONFIG, **values)


def test_a_user_who_knows_what_came_after_t0_is_refused() -> None:
    trained_until = 889_237_269  # see checkpoints/smollm2-ml100k/training.json
    check_knowledge("smollm2-ml100k", "ml-100k", trained_until)
    check_knowledge("smollm2-ml100k", "ml-1m", 0)
    check_knowledge("popularity", "ml-100k", 0)
    check_knowledge("smollm2-likelihood", "ml-100k", 0)
    with pytest.raises(ConfigError, match="it knows what shall be foretold"):
        check_knowledge("smollm2-ml100k", "ml-100k", trained_until - 1)


def outcome(gain: dict[str, float], users: int = 40, noise: float = 0.05) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    level = rng.uniform(0.1, 0.4, users)
    scores = {
        arm: {
            m: (level + gain.get(arm, 0.0) + rng.normal(0, noise, users)).tolist()
            for m in ("recall", "ndcg", "mrr")
        }
        for arm in ARMS
    }
    return {
        "model": "BPR", "seed": 0, "users": list(range(1, users + 1)), "scores": scores,
        "amount": 100, "taken": dict.fromkeys(ARMS, 7),
    }  # fmt: skip


class TestVerdict:
    def said(self, timeline: Timeline, gain: dict[str, float]) -> str:
        found = summarise_retraining({"k": 5}, timeline, [outcome(gain)])
        return " ".join(found["verdict"])

    def test_a_gain_that_is_there_is_called_one(self, timeline: Timeline) -> None:
        said = self.said(timeline, {"simulated": 0.2, "real": 0.4})
        assert "raises NDCG@5" in said
        assert "better than listed, random, popular; worse than real" in said
        assert "not shown to be worth more" not in said

    def test_where_nothing_is_shown_nothing_is_claimed(self, timeline: Timeline) -> None:
        said = self.said(timeline, {})
        assert "is not shown to change NDCG@5" in said
        assert "not beyond chance different from" in said
        assert "is not shown to be worth more than other items of the same lists" in said

    def test_harm_is_called_harm(self, timeline: Timeline) -> None:
        assert "lowers NDCG@5" in self.said(timeline, {"simulated": -0.1})

    def test_users_who_were_not_tested_in_a_seed_are_left_out_of_it(
        self, timeline: Timeline
    ) -> None:
        one, two = outcome({}), outcome({})
        two |= {"seed": 1, "users": two["users"][:1]}
        two["scores"] = {a: {m: [0.9] for m in v} for a, v in two["scores"].items()}
        found = summarise_retraining({"k": 5}, timeline, [one, two])
        first = one["scores"]["nothing"]["ndcg"]
        mean = found["models"][0]["arms"]["nothing"]["ndcg"]["mean"]
        assert mean == pytest.approx(((first[0] + 0.9) / 2 + sum(first[1:])) / 40)
