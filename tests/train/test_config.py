"""Recipes are checked when they are read; presets read."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from usermirror_gym.configs import preset_names
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.scenes.words.prompt import PromptConfig
from usermirror_gym.train.config import TrainConfig, read_config

DEFAULT = "smollm2-ml100k-next-item"


def test_every_preset_reads_and_is_named_like_its_file() -> None:
    assert {DEFAULT, "llama3.2-3b-usermirrorer"} <= set(preset_names("train"))
    for name in preset_names("train"):
        assert read_config(name).name == name


def test_the_paper_recipe_has_the_papers_numbers() -> None:
    config = read_config("llama3.2-3b-usermirrorer")
    sft, dpo = config.stages
    assert (sft.objective, sft.epochs, sft.learning_rate, sft.batch_size) == (
        "rationale", 1, 2e-4, 4,
    )  # fmt: skip
    assert (dpo.objective, dpo.epochs, dpo.learning_rate, dpo.beta) == ("dpo", 2, 1e-5, 0.1)
    assert config.prompt_config.form == "scene"


def test_prompt_fields_reach_the_prompt() -> None:
    config = read_config(DEFAULT, {"prompt": {"form": "scene", "history_lines": 7}})
    assert config.prompt_config == PromptConfig(form="scene", history_lines=7)
    assert {f.name for f in fields(PromptConfig)} >= set(read_config(DEFAULT).prompt)


def test_stages_are_overridden_by_number() -> None:
    config = read_config("llama3.2-3b-usermirrorer", {"stages.1.epochs": 3, "lora.r": 4})
    assert [stage.epochs for stage in config.stages] == [1, 3]
    assert config.lora is not None
    assert config.lora.r == 4
    assert read_config(DEFAULT, {"lora": None}).lora is None


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        ({"stages.0.epoch": 2}, UnknownNameError, "Did you mean 'stages.0.epochs'"),
        ({"stages.1.epochs": 2}, ConfigError, "from 0 to 0"),
        ({"stages.0.learning_rate": -1}, ConfigError, "stages.0.learning_rate"),
        ({"stages": []}, ConfigError, "stages"),
        ({"prompt.histroy_lines": 2}, UnknownNameError, "Did you mean 'history_lines'"),
        ({"prompt.history_lines": 2}, ConfigError, "drop_lines"),
        ({"prompt.history_lines": "many"}, ConfigError, "prompt"),
        ({"readout": "letter"}, ConfigError, "readout"),
        ({"readout": "options"}, ConfigError, "last objective"),
        ({"data.build": "there"}, ConfigError, "not both"),
        ({"data": {}}, ConfigError, "or none"),
        ({"data": {"build": "there", "scenes": {"train": 3}}}, ConfigError, "finished build"),
        ({"data.scenes.samplers": {"popular": 1}}, UnknownNameError, "popularity"),
        ({"lora": None, "merge": True}, ConfigError, "nothing to merge"),
        ({"lora.layers": [5, 2]}, ConfigError, "low to high"),
        ({"name": "a/b"}, ConfigError, "folder"),
        ({"seeds": 1}, UnknownNameError, "Did you mean 'seed'"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_an_error_that_names_it(
    overrides: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        read_config(DEFAULT, overrides)


def test_options_readout_ends_with_its_own_objective() -> None:
    stages = [{"objective": "next_item"}, {"objective": "options"}]
    assert read_config(DEFAULT, {"readout": "options", "stages": stages}).readout == "options"


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    content = read_config(DEFAULT).model_dump(mode="json") | {"name": "mine"}
    path.write_text(yaml.safe_dump(content))
    assert read_config(path) == read_config(DEFAULT, {"name": "mine"})
    with pytest.raises(UnknownNameError, match="smollm2-ml100k"):
        read_config("smollm-ml100k")
    with pytest.raises(ConfigError, match="no file"):
        read_config(tmp_path / "yours.yaml")


def test_a_config_survives_json() -> None:
    for name in preset_names("train"):
        config = read_config(name)
        assert TrainConfig.model_validate_json(config.model_dump_json()) == config


def test_a_build_of_its_own_takes_name_seed_and_scenes() -> None:
    build = read_config(DEFAULT, {"seed": 5, "data.scenes.train": 7}).build_config()
    assert (build.name, build.seed, build.rationales) == (DEFAULT, 5, None)
    assert build.scenes_of(build.sources[0]).train == 7


def test_the_callers_settings_stay_as_they_are() -> None:
    own = {"parts": [[1, "mean"]]}
    config = read_config("smollm2-ml100k", {"affinity": own, "affinity.rank": 3})
    assert config.affinity is not None
    assert config.affinity.rank == 3
    assert own == {"parts": [[1, "mean"]]}
