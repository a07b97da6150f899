"""The affinity head: least squares against a reference, and whole runs that are killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from usermirror_gym.corpus.build import build_data
from usermirror_gym.engines.local.transformers_engine import TransformersEngine
from usermirror_gym.errors import ConfigError, EngineError
from usermirror_gym.files import read_json, sha256
from usermirror_gym.progress import Display
from usermirror_gym.simulators import make_simulator
from usermirror_gym.simulators.affinity.affinity_head import read_head
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.train import finish as finish_module
from usermirror_gym.train.affinity_head import _largest, fit_head, follow_matrix
from usermirror_gym.train.config import Affinity, TrainConfig, read_config
from usermirror_gym.train.data import TrainData, read_train_data
from usermirror_gym.train.estimate import estimate_training
from usermirror_gym.train.run import train
from usermirror_gym.types import TIMESTAMP

QUIET = Display(quiet=True)
N, WIDTH = 12, 10
LINES = tuple(f"film {item}\n" for item in range(1, N + 1))
SETTINGS = Affinity(parts=((0, "mean"), (1, "last")), rank=N, ridge=0.0, window=5)


def events(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    count = 300
    return pd.DataFrame(
        {
            "user_id": rng.integers(1, 9, count),
            "item_id": rng.integers(1, N - 1, count),  # the last two are never chosen
            "timestamp": rng.permutation(count),
        }
    )


def states(width: int = WIDTH, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N + 1, 2 * width)) * np.repeat([30.0, 0.2], width) + 5
    return x.astype(np.float32)


def wanted(settings: Affinity = SETTINGS) -> np.ndarray:
    return follow_matrix(events(), N, settings)


def product(head, x: np.ndarray) -> np.ndarray:
    vectors = head.vectors(x[1 : N - 1], LINES[: N - 2])
    return vectors.history @ vectors.option.T


def centred(matrix: np.ndarray) -> np.ndarray:
    """States are centred: what is alike for all items cannot be told from them."""
    left = matrix - matrix.mean(axis=0)
    return left - left.mean(axis=1, keepdims=True)


class TestFit:
    def test_rich_states_and_full_rank_reproduce_the_counts(self) -> None:
        head = fit_head(states(), events(), SETTINGS, 4, LINES)
        np.testing.assert_allclose(product(head, states()), centred(wanted()), atol=1e-3)

    def test_rank_cuts_to_the_nearest_matrix(self) -> None:
        head = fit_head(states(), events(), SETTINGS.model_copy(update={"rank": 2}), 4, LINES)
        u, s, v = np.linalg.svd(centred(wanted()))
        np.testing.assert_allclose(product(head, states()), (u[:, :2] * s[:2]) @ v[:2], atol=1e-3)
        assert head.history.shape == (2 * WIDTH, 2)

    def test_ridge_is_ridge_regression_from_both_sides(self) -> None:
        ridge = 0.05
        head = fit_head(states(3), events(), SETTINGS.model_copy(update={"ridge": ridge}), 4, LINES)
        x = states(3)[1 : N - 1].astype(float)
        x -= x.mean(axis=0)
        for part in (slice(0, 3), slice(3, 6)):
            x[:, part] /= np.sqrt((x[:, part] ** 2).sum(axis=1).mean())
        gram = x.T @ x
        penalty = ridge * np.linalg.eigvalsh(gram)[-1] * np.eye(6)
        hat = x @ np.linalg.solve(gram + penalty, x.T)
        np.testing.assert_allclose(product(head, states(3)), hat @ wanted() @ hat, atol=1e-4)
        counts = np.log1p(events().item_id.value_counts().sort_index().to_numpy())
        appeal = head.vectors(states(3)[1 : N - 1], LINES[: N - 2]).item_bias
        np.testing.assert_allclose(appeal, hat @ (counts - counts.mean()), atol=1e-4)

    @pytest.mark.parametrize("count", [2, N])
    def test_what_the_words_leave_open_is_remembered(self, count: int) -> None:
        """As near to the counts as that many numbers more allow, and the popularity exactly."""
        blurred = SETTINGS.model_copy(update={"ridge": 0.5})
        told = fit_head(states(), events(), blurred, 4, LINES)
        both = fit_head(states(), events(), blurred.model_copy(update={"memory": count}), 4, LINES)
        assert both.d == told.d + min(count, N - 2)
        u, s, v = np.linalg.svd(centred(wanted()) - product(told, states()))
        nearest = product(told, states()) + (u[:, :count] * s[:count]) @ v[:count]
        np.testing.assert_allclose(product(both, states()), nearest, atol=1e-4)
        counts = np.log1p(events().item_id.value_counts().sort_index().to_numpy())
        appeal = both.vectors(states()[1 : N - 1], LINES[: N - 2]).item_bias
        np.testing.assert_allclose(appeal, counts - counts.mean(), atol=1e-5)
        strangers = [f"other {line}" for line in LINES]
        unknown, by_words = both.vectors(states()[1:], strangers), told.vectors(states()[1:], LINES)
        np.testing.assert_array_equal(unknown.item_bias, by_words.item_bias)
        for of_both, of_told in ((unknown.history, by_words.history),
                                 (unknown.option, by_words.option)):  # fmt: skip
            np.testing.assert_array_equal(of_both[:, : told.d], of_told)
            assert not of_both[:, told.d :].any()

    def test_a_few_of_many_numbers_are_found_as_by_the_whole_decomposition(self) -> None:
        matrix = np.random.default_rng(3).normal(size=(40, 40))
        left, size, right = _largest(matrix, 5)
        u, s, v = np.linalg.svd(matrix)
        np.testing.assert_allclose(size, s[:5])
        np.testing.assert_allclose((left * size) @ right, (u[:, :5] * s[:5]) @ v[:5], atol=1e-9)

    def test_lags_and_floor(self) -> None:
        settings = SETTINGS.model_copy(update={"lag_decay": 1.0, "floor": 0.125})
        head = fit_head(states(), events(), settings, 3, LINES)
        np.testing.assert_allclose(np.exp(head.lags), [1, 1 / 2, 1 / 3], rtol=1e-6)
        assert head.floor == 0.125

    def test_states_of_items_that_nobody_chose_do_not_matter(self) -> None:
        other = states()
        other[[0, N - 1, N]] = 1e3
        assert (
            fit_head(other, events(), SETTINGS, 4, LINES).digest
            == fit_head(states(), events(), SETTINGS, 4, LINES).digest
        )

    def test_items_that_read_alike_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="all items read alike"):
            fit_head(np.ones((N + 1, 8), np.float32), events(), SETTINGS, 4, LINES)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Vectors of heads that nobody will use again do not stay behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("USERMIRROR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Callable[..., TrainConfig]:
    folder = tmp_path_factory.mktemp("log")
    data = tiny_split(n_users=60, n_items=60).dataset
    data.items.reset_index().to_csv(folder / "films.csv", index=False)
    data.interactions.to_csv(folder / "log.csv", index=False)
    mapping = folder / "mine.yaml"
    mapping.write_text(
        "name: mine\ndomain: movie\n"
        "interactions: {file: log.csv, user: user_id, item: item_id, time: timestamp}\n"
        "items: {file: films.csv, item: item_id, title: title, texts: [genres], numbers: [year]}\n"
    )
    values: dict[str, Any] = {
        "name": "tiny", "checkpoint": str(base), "prompt.history_lines": 6,
        "affinity": {"parts": [[1, "mean"], [2, "last"]], "rank": 4, "ridge": 1e-3},
    }  # fmt: skip
    drawn = {
        "sources": [{"name": str(mapping), "folder": str(folder)}],
        "scenes": {"train": 60, "validation": 40, "eval": 20, "train_slate": [3, 5]}
        | {"eval_slate": [3, 5], "removed": 0.2},
    }
    build = build_data(
        read_config("smollm2-ml100k", values | {"data": drawn}).build_config(),
        tmp_path_factory.mktemp("build"), display=QUIET,
    )  # fmt: skip

    def make(**overrides: Any) -> TrainConfig:
        return read_config("smollm2-ml100k", values | {"data": {"build": str(build)}} | overrides)

    return make


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recipe: Callable[..., TrainConfig]) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "a run"
    train(recipe(), folder, display=QUIET)
    return folder


def data_of(config: TrainConfig) -> TrainData:
    assert config.data.build is not None
    return read_train_data(config.data.build, config.prompt_config)


def results(folder: Path) -> dict[str, str]:
    names = ("affinity.safetensors", "simulator.yaml")
    return {name: sha256(folder / "checkpoint" / name) for name in names}


class TestRuns:
    def test_the_simulator_chooses_and_reads_the_history(self, finished: Path, recipe) -> None:
        data = data_of(recipe())
        simulator = make_simulator(str(finished / "checkpoint"), data.split)
        scenes = data.scenes_validation[:8]
        probs = simulator.choose(scenes).probs
        np.testing.assert_allclose(probs.sum(axis=1), 1)
        assert not np.allclose(probs, probs.mean(axis=0))
        settings = yaml.safe_load((finished / "checkpoint" / "simulator.yaml").read_text())
        assert settings["readout"] == "affinity"
        assert settings["checkpoint"] == recipe().checkpoint
        assert settings["affinity"] > 0
        assert settings["outside_utility"] != 0

    def test_nothing_is_left_but_what_is_documented(self, finished: Path) -> None:
        visible = {path.name for path in finished.iterdir() if path.name[0] != "."}
        assert visible == {"config.json", "inputs.json", "data.json", "states", "checkpoint"}
        files = {path.name for path in (finished / "checkpoint").iterdir()}
        assert files == {"README.md", "affinity.safetensors", "simulator.yaml", "training.json"}

    def test_the_shipped_head_knows_the_choices_up_to_t0(
        self, finished: Path, recipe, tmp_path: Path
    ) -> None:
        """Calibrated before the validation time, fitted again with what came after."""
        config, data = recipe(), data_of(recipe())
        state = np.concatenate([np.load(p) for p in (finished / "states").iterdir()])
        state = np.concatenate([np.zeros_like(state[:1]), state])
        lines = data.builder.item_lines(tuple(range(1, len(state)))).options
        shipped = read_head(finished / "checkpoint")
        whole = fit_head(state, data.split.dataset.interactions, config.affinity, 6, lines)
        np.testing.assert_allclose(shipped.history, whole.history, rtol=1e-2, atol=1e-3)
        train(recipe(**{"affinity.refit": False}), tmp_path / "run", display=QUIET)
        early = read_head(tmp_path / "run" / "checkpoint")
        before = fit_head(state, data.split.before, config.affinity, 6, lines)
        np.testing.assert_allclose(early.history, before.history, rtol=1e-2, atol=1e-3)
        assert early.digest != shipped.digest
        fitted = [
            yaml.safe_load((folder / "checkpoint" / "simulator.yaml").read_text())
            for folder in (finished, tmp_path / "run")
        ]
        assert fitted[0] == fitted[1]

    def test_what_happens_from_t0_on_cannot_be_seen(self, recipe) -> None:
        config = recipe()
        data = data_of(config)
        t0 = read_json(Path(config.data.build) / "manifest.json")["sources"]["mine"]["t0"]
        assert data.split.dataset.interactions[TIMESTAMP].max() < t0

    @pytest.mark.parametrize("where", ["read_states", "fit_head", "_calibrate", "write_card"])
    def test_a_killed_run_goes_on_to_the_same_bytes(
        self, finished: Path, recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        def die(*args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(finish_module, where, die)
            with pytest.raises(KeyboardInterrupt):
                train(recipe(), tmp_path / "run", display=QUIET)
        assert not (tmp_path / "run" / "checkpoint").exists()
        train(recipe(), tmp_path / "run", display=QUIET)
        assert results(tmp_path / "run") == results(finished)

    def test_items_are_not_read_again(
        self, finished: Path, recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(finish_module, "fit_head", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                train(recipe(), tmp_path / "run", display=QUIET)
        (kept,) = (tmp_path / "run" / "states").iterdir()
        before = kept.stat().st_mtime_ns
        train(recipe(), tmp_path / "run", display=QUIET)
        assert kept.stat().st_mtime_ns == before

    def test_every_item_is_read_once_up_to_the_first_answers(
        self, recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[str] = []
        plain = TransformersEngine.item_hidden_states

        def counted(engine: TransformersEngine, lines: Sequence[str], **settings: Any) -> Any:
            read.extend(lines)
            return plain(engine, lines, **settings)

        monkeypatch.setattr(TransformersEngine, "item_hidden_states", counted)
        config = recipe(**{"affinity.ridge": 0.02})  # a head that no other test has left vectors of
        train(config, tmp_path, display=QUIET)
        data = data_of(config)
        make_simulator(str(tmp_path / "checkpoint"), data.split).choose(data.scenes_validation)
        assert len(read) == len(set(read)) == 60

    def test_an_adapter_comes_first_and_is_read_with(self, recipe, tmp_path: Path) -> None:
        stage = {
            "objective": "next_item", "max_steps": 3, "batch_size": 4, "max_length": 400,
            "learning_rate": 3e-2, "eval_every": 0, "scheduler": "constant",
        }  # fmt: skip
        config = recipe(stages=[stage], **{"lora.r": 4})
        train(config, tmp_path, display=QUIET)
        checkpoint = tmp_path / "checkpoint"
        assert (checkpoint / "adapter_model.safetensors").is_file()
        data = data_of(config)
        adapted = make_simulator(str(checkpoint), data.split)
        bare = make_simulator(str(checkpoint), data.split, adapter=None)
        scenes = data.scenes_validation[:4]
        assert np.abs(adapted.choose(scenes).probs - bare.choose(scenes).probs).max() > 1e-4

    def test_the_card_says_what_was_fitted(self, finished: Path) -> None:
        text = " ".join((finished / "checkpoint" / "README.md").read_text().split())
        for words in (
            "library_name: usermirror-gym", "all that was trained",
            "none, the weights are the base's",
            "rank 4 on states mean of layer 1, last of layer 2", "on all choices before T0",
        ):  # fmt: skip
            assert words in text, words
        assert "Validation log-loss while it learned" not in text

    def test_a_dry_run_says_how_long_reading_takes(self, recipe, tmp_path: Path) -> None:
        (estimate,) = estimate_training(recipe(), tmp_path, display=QUIET)
        assert estimate.items == 60
        assert "affinity: 60 items are read" in str(estimate)
        assert not (tmp_path / "checkpoint").exists()

    def test_a_layer_that_the_model_does_not_have(self, recipe, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="layer 3: this model has 0"):
            train(recipe(**{"affinity.parts": [[3, "mean"]]}), tmp_path, display=QUIET)


class TestSettings:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"affinity": None}, "need each other"),
            ({"readout": "likelihood"}, "need each other"),
            ({"readout": "likelihood", "affinity": None}, "nothing to train"),
            ({"merge": True}, "nothing to merge"),
            ({"affinity.parts": []}, "parts"),
            ({"affinity.parts": [[1, "max"]]}, "parts"),
            ({"affinity.floor": 0}, "floor"),
        ],
    )
    def test_what_does_not_fit_together(self, changes: dict, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            read_config("smollm2-ml100k", changes)
