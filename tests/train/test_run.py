"""A run from raw data to a simulator; killed anywhere, it ends with the same weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from usermirror_gym.corpus.build import build_data
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.errors import ConfigError, RunError
from usermirror_gym.files import read_json, sha256, write_jsonl
from usermirror_gym.progress import Display
from usermirror_gym.scenes.words.prompt import ANSWER_PREFIX
from usermirror_gym.scenes.words.prompt import LETTERS as LETTER
from usermirror_gym.simulators import make_simulator
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.train import run as run_module
from usermirror_gym.train.config import TrainConfig, read_config
from usermirror_gym.train.data import read_train_data
from usermirror_gym.train.estimate import estimate_training
from usermirror_gym.train.loop.model import write_weights
from usermirror_gym.train.run import train
from usermirror_gym.types import TIMESTAMP, Prompt

QUIET = Display(quiet=True)
NEXT_ITEM = {"objective": "next_item", "max_steps": 4, "batch_size": 4, "max_length": 400,
             "learning_rate": 1e-2, "eval_every": 0.2, "save_every": 1}  # fmt: skip
LETTERS = NEXT_ITEM | {"objective": "letters", "max_steps": 3}
SCENES = {"train": 60, "validation": 16, "eval": 20, "train_slate": [3, 5], "removed": 0.2}


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A data set of 60 users and 60 films in CSV files."""
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
    return {"name": str(mapping), "folder": str(folder)}


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory, base: Path, source: dict[str, str]) -> Path:
    """A finished build."""
    config = read_config(
        "smollm2-ml100k-next-item",
        {"name": "tiny", "checkpoint": str(base), "data": {"sources": [source], "scenes": SCENES}},
    )
    return build_data(config.build_config(), tmp_path_factory.mktemp("build"), display=QUIET)


@pytest.fixture
def recipe(base: Path, build: Path) -> Callable[..., TrainConfig]:
    def make(**overrides: Any) -> TrainConfig:
        values = {
            "name": "tiny", "checkpoint": str(base), "data": {"build": str(build)},
            "stages": [NEXT_ITEM, LETTERS], "lora.r": 4, "prompt.history_lines": 6,
        }  # fmt: skip
        return read_config("smollm2-ml100k-next-item", values | overrides)

    return make


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, base: Path, build: Path) -> Path:
    """The folder of a run of two stages."""
    folder = tmp_path_factory.mktemp("finished")
    config = read_config(
        "smollm2-ml100k-next-item",
        {
            "name": "tiny", "checkpoint": str(base), "data": {"build": str(build)},
            "stages": [NEXT_ITEM, LETTERS], "lora.r": 4, "prompt.history_lines": 6,
        },
    )  # fmt: skip
    train(config, folder, display=QUIET)
    return folder


def results(folder: Path) -> dict[str, str]:
    """Checksums of what a run leaves that says nothing of clocks."""
    patterns = ("stages/*/trained.safetensors", "checkpoint/adapter*", "checkpoint/*.yaml")
    names = [path for pattern in patterns for path in folder.glob(pattern)]
    return {path.relative_to(folder).as_posix(): sha256(path) for path in names}


def test_a_run_leaves_a_simulator_that_chooses(finished: Path, build: Path) -> None:
    data = read_train_data(build, read_config("smollm2-ml100k-next-item").prompt_config)
    simulator = make_simulator(str(finished / "checkpoint"), data.split)
    probs = simulator.choose(data.scenes_validation[:4]).probs
    np.testing.assert_allclose(probs.sum(axis=1), 1)
    assert probs.std() > 0
    assert (finished / "checkpoint" / "README.md").is_file()


def test_settings_of_the_simulator_are_fitted(finished: Path) -> None:
    settings = yaml.safe_load((finished / "checkpoint" / "simulator.yaml").read_text())
    assert settings["readout"] == "likelihood"
    assert settings["history_lines"] == 6
    assert settings["outside_utility"] != 0
    scores = read_json(finished / "checkpoint" / "training.json")["scores"]
    assert scores["scenes"] == 16
    assert scores["all"]["log_loss"] > 0


def test_nothing_is_left_but_what_is_documented(finished: Path) -> None:
    visible = {path.name for path in finished.iterdir() if path.name[0] != "."}
    assert visible == {
        "config.json",
        "inputs.json",
        "data.json",
        "stages",
        "tensorboard",
        "checkpoint",
    }
    for stage in (finished / "stages").iterdir():
        assert {p.name for p in stage.iterdir()} == {"trained.safetensors", "done.json"}


def test_adapters_come_back_in_peft_and_differ_from_their_beginning(
    finished: Path, base: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), str(finished / "checkpoint")
    )
    trained = [p for name, p in model.named_parameters() if "lora_B" in name]
    assert trained
    assert all(p.abs().max() > 0 for p in trained)
    config = read_json(finished / "checkpoint" / "adapter_config.json")
    assert config["base_model_name_or_path"] == str(base)  # the name that the recipe gave
    # A set in PEFT: without an order of its own the file would be another one in every process.
    assert config["target_modules"] == sorted(config["target_modules"])
    assert len(config["target_modules"]) > 4


def test_merged_weights_answer_like_base_and_adapter(
    finished: Path, base: Path, tmp_path: Path
) -> None:
    config = TrainConfig(**read_json(finished / "config.json"))
    trained = finished / "stages" / "1-letters" / "trained.safetensors"
    write_weights(config.model_copy(update={"merge": True}), trained, tmp_path)
    prompt = Prompt((), "Films I watched:\n", ("Heat\n", "Alien 3\n"))
    base_alone, merged, adapted = (
        engine.text_logprobs([prompt])[0].logprobs
        for engine in (
            load_engine(str(base)),
            load_engine(str(tmp_path)),
            load_engine(str(base), adapter=str(finished / "checkpoint")),
        )
    )
    np.testing.assert_allclose(merged, adapted, atol=1e-4)
    assert np.abs(np.subtract(merged, base_alone)).max() > 1e-2


def test_curves_are_written_for_tensorboard(finished: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (finished / "tensorboard").glob("0-*")
    events = EventAccumulator(str(folder))
    events.Reload()
    assert {"train/loss", "validation/log_loss"} <= set(events.Tags()["scalars"])
    points = read_json(finished / "stages" / "0-next_item" / "done.json")["history"]
    measured = {p[0]: p[2] for p in points if p[2] is not None}
    curve = {e.step: e.value for e in events.Scalars("validation/log_loss")}
    assert curve == pytest.approx(measured)


def test_a_finished_run_is_not_repeated(
    finished: Path, recipe: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    monkeypatch.setattr(run_module, "_train_stage", None)
    assert train(recipe(), finished, display=QUIET) == finished / "checkpoint"
    after = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    assert {p: t for p, t in after.items() if p.name != ".lock"} == {
        p: t for p, t in before.items() if p.name != ".lock"
    }


class Killed(BaseException):
    """Nothing in the library catches this."""


def dying(step: int) -> Callable[..., list[Any]]:
    """Instead of the curves: a callback that ends the process at a step of the second stage."""
    from transformers import TrainerCallback

    class Dying(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step:
                raise Killed

    return lambda folder, display: [Dying()] if folder.name[0] == "1" else []


def test_a_killed_run_ends_with_the_same_weights(
    finished: Path,
    tmp_path: Path,
    recipe: Callable[..., TrainConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for step in (0, 2):
        with monkeypatch.context() as patch:
            patch.setattr("usermirror_gym.train.loop.tensorboard.curves", dying(step))
            with pytest.raises(Killed):
                train(recipe(), tmp_path, display=QUIET)
    first = tmp_path / "stages" / "0-next_item"
    done = (first / "done.json").stat().st_mtime_ns
    (tmp_path / ".checkpoint.tmp").mkdir()
    (tmp_path / ".checkpoint.tmp" / "half.safetensors").touch()
    train(recipe(), tmp_path, display=QUIET)
    assert (first / "done.json").stat().st_mtime_ns == done  # not repeated
    assert results(tmp_path) == results(finished)


def test_a_kill_right_after_a_stage_leaves_no_checkpoints(
    finished: Path, tmp_path: Path, recipe: Callable[..., TrainConfig]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "checkpoint")
    stage = run / "stages" / "0-next_item"
    (stage / "checkpoint-4").mkdir()
    (stage / "checkpoint-4" / "optimizer.pt").touch()
    (stage / "best.safetensors").touch()
    train(recipe(), run, display=QUIET)
    assert {path.name for path in stage.iterdir()} == {"trained.safetensors", "done.json"}
    assert results(run) == results(finished)


def test_a_full_disk_is_told_whatever_the_trainer_says(
    tmp_path: Path, recipe: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's own words are: basic_ios::clear: iostream error."""
    import torch

    from usermirror_gym import files

    def save(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(RuntimeError, match="iostream"):
        train(recipe(), tmp_path / "roomy", display=QUIET)
    full = SimpleNamespace(free=100)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: full)
    with pytest.raises(OSError, match="No space left") as told:
        train(recipe(), tmp_path / "full", display=QUIET)
    assert told.value.filename == str(tmp_path / "full" / "stages" / "0-next_item")


def test_another_seed_is_another_model(
    finished: Path, tmp_path: Path, recipe: Callable[..., TrainConfig]
) -> None:
    train(recipe(seed=1, stages=[NEXT_ITEM]), tmp_path, display=QUIET)
    name = "stages/0-next_item/trained.safetensors"
    assert results(tmp_path)[name] != results(finished)[name]


def test_a_folder_in_which_somebody_is_at_work_is_refused(
    tmp_path: Path, recipe: Callable[..., TrainConfig], refused_while_busy
) -> None:
    refused_while_busy(tmp_path, lambda: train(recipe(), tmp_path, display=QUIET))
    refused_while_busy(
        tmp_path / "trial", lambda: estimate_training(recipe(), tmp_path / "trial", display=QUIET)
    )


def test_other_settings_in_the_same_folder_are_named(
    finished: Path, recipe: Callable[..., TrainConfig]
) -> None:
    other = recipe(stages=[NEXT_ITEM, LETTERS | {"learning_rate": 0.5}])
    with pytest.raises(RunError, match=r"stages\.1\.learning_rate: 0\.01 there, 0\.5 here"):
        train(other, finished, display=QUIET)


def test_a_folder_with_something_else_is_left_alone(
    tmp_path: Path, recipe: Callable[..., TrainConfig]
) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match="no training run"):
        train(recipe(), tmp_path, display=QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_data_that_changed_meanwhile_are_noticed(
    tmp_path: Path, recipe: Callable[..., TrainConfig]
) -> None:
    config = recipe()
    run_module.prepare_data(config, tmp_path, display=QUIET)
    facts = tmp_path / "data.json"
    facts.write_text(json.dumps({"manifest": "0" * 64}))
    with pytest.raises(RunError, match="not what this run began with"):
        run_module.prepare_data(config, tmp_path, display=QUIET)


def test_nothing_from_t0_on_reaches_a_run(build: Path) -> None:
    from usermirror_gym.corpus.built import read_build

    data = read_train_data(build, read_config("smollm2-ml100k-next-item").prompt_config)
    (whole,) = read_build(build).sources
    times = data.split.dataset.interactions[TIMESTAMP]
    assert whole.dataset.interactions[TIMESTAMP].max() >= whole.t0
    assert times.max() < whole.t0
    assert data.split.before[TIMESTAMP].max() < whole.t_validation == data.split.t0
    assert len(data.split.after) > 0
    assert data.split.dataset.n_items == whole.dataset.n_items  # ids stay


@pytest.mark.parametrize("how", ["merged", "full weights", "half precision", "options"])
def test_the_other_ways_to_keep_weights(
    how: str, tmp_path: Path, recipe: Callable[..., TrainConfig], build: Path
) -> None:
    short = NEXT_ITEM | {"max_steps": 1}
    changes: dict[str, Any] = {
        "merged": {"merge": True, "stages": [short]},
        "full weights": {"lora": None, "stages": [short]},
        "half precision": {"store": "bfloat16", "stages": [short]},
        "options": {"readout": "options", "stages": [short, short | {"objective": "options"}]},
    }[how]
    config = recipe(**changes)
    checkpoint = train(config, tmp_path, display=QUIET)
    kept = how in ("half precision", "options")
    assert (checkpoint / "adapter_model.safetensors").is_file() == kept
    assert (checkpoint / "model.safetensors").is_file() != kept
    assert (checkpoint / "head.safetensors").is_file() == (how == "options")
    data = read_train_data(build, config.prompt_config)
    probs = make_simulator(str(checkpoint), data.split).choose(data.scenes_validation[:3]).probs
    np.testing.assert_allclose(probs.sum(axis=1), 1)
    settings = yaml.safe_load((checkpoint / "simulator.yaml").read_text())
    assert ("checkpoint" in settings) == kept


def test_rationales_then_preferences_in_bfloat16(
    tmp_path: Path, recipe: Callable[..., TrainConfig], build: Path
) -> None:
    """The stages of the paper, with what a GPU would be spared switched on."""
    own = tmp_path / "build"
    shutil.copytree(build, own)
    data = read_train_data(build, recipe(**{"prompt.form": "scene"}).prompt_config)
    sft, dpo = [], []
    for scene in data.sources[0].scenes_train[:24]:
        prompt = data.builder.letters(scene)
        asked = [{"role": m.role, "content": m.content} for m in prompt.messages]
        right, wrong = scene.target or 0, int(scene.target == 0)
        answers = [
            [{"role": "assistant", "content": f"I like it.\n{ANSWER_PREFIX}{LETTER[place]}]"}]
            for place in (right, wrong)
        ]
        sft.append({"prompt": asked, "completion": answers[0]})
        dpo.append({"prompt": asked, "chosen": answers[0], "rejected": answers[1]})
    write_jsonl(own / "train" / "rationales.jsonl", sft)
    write_jsonl(own / "train" / "preferences.jsonl", dpo)
    short = {"max_steps": 2, "batch_size": 2, "max_length": 512}
    config = recipe(
        data={"build": str(own)}, readout="letters", precision="bfloat16",
        gradient_checkpointing=True, permutations=2,
        stages=[short | {"objective": "rationale"}, short | {"objective": "dpo"}],
    )  # fmt: skip
    checkpoint = train(config, tmp_path / "run", display=QUIET)
    settings = yaml.safe_load((checkpoint / "simulator.yaml").read_text())
    assert settings["temperature"] > 0
    assert len(settings["position_bias"]) == 6
    probs = make_simulator(str(checkpoint), data.split).choose(data.scenes_validation[:3]).probs
    np.testing.assert_allclose(probs.sum(axis=1), 1)


def test_adapters_on_named_layers_and_blocks(recipe: Callable[..., TrainConfig]) -> None:
    from usermirror_gym.train.loop.model import load_trainable

    model = load_trainable(recipe(**{"lora.targets": ["q_proj", "v_proj"], "lora.layers": [1, 1]}))
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(names) == 4
    assert all(".layers.1." in name for name in names)


def test_layers_that_the_model_lacks_are_named(recipe: Callable[..., TrainConfig]) -> None:
    from usermirror_gym.train.loop.model import load_trainable

    with pytest.raises(ValueError, match="Did you mean 'q_proj'"):
        load_trainable(recipe(**{"lora.targets": ["q_prj"]}))
    with pytest.raises(ConfigError, match="blocks 0 to 1"):
        load_trainable(recipe(**{"lora.layers": [0, 7]}))


def test_the_dry_run_counts_what_the_run_then_does(
    finished: Path, tmp_path: Path, recipe: Callable[..., TrainConfig]
) -> None:
    estimates = estimate_training(recipe(), tmp_path, display=QUIET)
    assert [e.objective for e in estimates] == ["next_item", "letters"]
    assert {path.name for path in tmp_path.iterdir()} <= {
        "config.json",
        "inputs.json",
        "data.json",
        ".lock",
    }
    for estimate, stage in zip(estimates, ("0-next_item", "1-letters"), strict=True):
        done = read_json(finished / "stages" / stage / "done.json")
        assert (estimate.steps, estimate.examples) == (done["steps"], done["samples"])
        assert estimate.tokens == done["tokens"]  # all were counted, they are so few
        assert estimate.seconds > 0


def test_a_run_from_raw_data_builds_them_itself(
    tmp_path: Path, base: Path, source: dict[str, str], build: Path
) -> None:
    config = read_config(
        "smollm2-ml100k-next-item",
        {"name": "tiny", "checkpoint": str(base), "data": {"sources": [source], "scenes": SCENES}},
    )
    data = run_module.prepare_data(config, tmp_path, display=QUIET)
    assert (tmp_path / "data" / "card.md").is_file()
    again = read_train_data(build, config.prompt_config)
    assert [s.name for s in data.scenes_validation] == [s.name for s in again.scenes_validation]
