"""A tiny model, a tiny data set, and stages on them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from usermirror_gym.data import TimeSplit
from usermirror_gym.progress import Display
from usermirror_gym.scenes import (
    PromptBuilder,
    PromptConfig,
    Scene,
    ScenePlan,
    build_scenes,
    domain_text,
)
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.train.config import Stage
from usermirror_gym.train.data import TrainData, TrainSource


def _engine_fixtures() -> Any:
    path = Path(__file__).parents[1] / "engines" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tests_engines_fixtures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TINY = _engine_fixtures()


@pytest.fixture(scope="session")
def tokenizer():
    return TINY.build_tokenizer()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A tiny checkpoint."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("base")
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def own_log(tmp_path: Path) -> Path:
    """Description of a log of 60 users and 40 films, in files beside it."""
    data = tiny_split(n_users=60, n_items=40, seed=2).dataset
    data.items.reset_index().to_csv(tmp_path / "films.csv", index=False)
    data.interactions.to_csv(tmp_path / "log.csv", index=False)
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\ndomain: movie\n"
        "interactions: {file: log.csv, user: user_id, item: item_id, time: timestamp, "
        "rating: rating}\n"
        "items: {file: films.csv, item: item_id, title: title, texts: [genres], numbers: [year]}\n"
    )
    return path


@pytest.fixture
def tiny_model():
    """``tiny_model(lora=..., kind=..., seed=...)``: a new random model each time."""

    def make(*, lora: bool = True, kind: str = "llama", seed: int = 0, dropout: float = 0.0):
        model = TINY.build_model(kind, seed)
        if not lora:
            return model
        from peft import LoraConfig, get_peft_model

        settings = LoraConfig(
            r=4, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        return get_peft_model(model, settings)

    return make


@pytest.fixture(scope="session")
def split() -> TimeSplit:
    return tiny_split(n_users=30, n_items=40, seed=1)


@pytest.fixture(scope="session")
def builder(split: TimeSplit) -> PromptBuilder:
    return PromptBuilder(domain_text(split.dataset), PromptConfig(history_lines=4, drop_lines=2))


@pytest.fixture(scope="session")
def scenes(split: TimeSplit) -> list[Scene]:
    plan = ScenePlan(count=24, slate_size=(2, 4), history=4, removed=0.2, seed=5)
    return build_scenes(split, plan, after_t0=False)


@pytest.fixture(scope="session")
def data(split: TimeSplit, builder: PromptBuilder, scenes: list[Scene]) -> TrainData:
    plan = ScenePlan(count=8, slate_size=3, history=4, removed=0.2, seed=6)
    later = build_scenes(split, plan, after_t0=True)
    return TrainData((TrainSource("tiny", split, builder, scenes, later),))


@pytest.fixture
def train(tokenizer, data: TrainData, tmp_path: Path):
    """``train(model, objective, **settings)`` runs a short stage."""
    from usermirror_gym.train.loop.trainers import run_stage

    def run(model, objective: str, *, folder: Path = tmp_path / "stage", **settings):
        call = {"data": data, "precision": "float32", "display": Display(quiet=True), "seed": 3}
        for name in ("data", "precision", "display", "seed", "head", "callbacks",
                     "gradient_checkpointing"):  # fmt: skip
            if name in settings:
                call[name] = settings.pop(name)
        stage = Stage(**{"objective": objective, "max_length": 500, "scheduler": "constant",
                         "warmup": 0, "learning_rate": 1e-2, **settings})  # fmt: skip
        return run_stage(stage, model, tokenizer, call.pop("data"), folder, **call)

    return run
