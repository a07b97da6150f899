"""Real weights, from the command line: killed and resumed, and in two processes at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from usermirror_gym.corpus.build import build_data
from usermirror_gym.data import load_dataset, time_cut
from usermirror_gym.files import read_json, sha256
from usermirror_gym.progress import Display
from usermirror_gym.scenes import ScenePlan, build_scenes
from usermirror_gym.simulators import make_simulator
from usermirror_gym.train.config import read_config

pytestmark = pytest.mark.slow

SHORT = {"batch_size": 2, "max_length": 200, "save_every": 1, "eval_every": 0, "validation": 2}
SETTINGS: dict[str, Any] = {
    "stages": [
        SHORT | {"objective": "next_item", "max_steps": 3, "learning_rate": 1e-3},
        SHORT | {"objective": "letters", "max_steps": 2, "learning_rate": 1e-3, "max_length": 400},
    ],
    "lora.r": 4,
    "calibration.scenes": 4,
    "prompt.history_lines": 5,
}  # fmt: skip
SCENES = {"data.scenes.train": 60, "data.scenes.validation": 12, "data.scenes.eval": 40}
LAST = "stages/1-letters/trained.safetensors"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = read_config("smollm2-ml100k-next-item", SCENES).build_config()
    return build_data(config, tmp_path_factory.mktemp("build"), display=Display(quiet=True))


def command(build: Path, out: Path, *launcher: str, stages: int = 2) -> list[str]:
    chosen = {"stages": SETTINGS["stages"][:stages], "data": {"build": str(build)}}
    settings = SETTINGS | chosen
    return [
        *(launcher or (sys.executable, "-m", "usermirror_gym.cli")),
        "train", "--config", "smollm2-ml100k-next-item", "--out", str(out),
        *(f"--set={name}={json.dumps(value)}" for name, value in settings.items()),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def calm(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    out = tmp_path_factory.mktemp("calm")
    subprocess.run(command(build, out), check=True, capture_output=True)
    return out


def test_kill_9_in_both_stages_changes_nothing(build: Path, calm: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for place in ("stages/0-next_item/checkpoint-2", "stages/1-letters/checkpoint-1"):
        process = subprocess.Popen(
            command(build, out), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while not (out / place).is_dir():
            assert process.poll() is None, f"ended before {place} was there"
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (out / "checkpoint").exists()
    subprocess.run(command(build, out), check=True, capture_output=True)
    for name in (LAST, "checkpoint/adapter_model.safetensors", "checkpoint/simulator.yaml"):
        assert sha256(out / name) == sha256(calm / name), name


def test_the_trained_simulator_is_not_its_base(calm: Path) -> None:
    split = time_cut(load_dataset())
    scenes = build_scenes(split, ScenePlan(count=4))
    trained = make_simulator(str(calm / "checkpoint"), split)
    same = json.loads((calm / "checkpoint" / "training.json").read_text())["recipe"]["prompt"]
    base = make_simulator("smollm2-likelihood", split, history_lines=same["history_lines"])
    first, second = (s.engine.text_logprobs([s.builder.likelihood(x) for x in scenes])
                     for s in (trained, base))  # fmt: skip
    moved = [np.abs(a.logprobs - b.logprobs).max() for a, b in zip(first, second, strict=True)]
    assert min(moved) > 0.01
    card = (calm / "checkpoint" / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "MovieLens" in card


def test_two_processes_train_one_model(build: Path, tmp_path: Path) -> None:
    # What 'accelerate launch' starts for GPUs; for CPUs it would want MPI.
    launcher = (
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        "-m", "usermirror_gym.cli",
    )  # fmt: skip
    out = tmp_path / "run"
    done = subprocess.run(
        command(build, out, *launcher, stages=1), capture_output=True, text=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    facts = read_json(out / "stages" / "0-next_item" / "done.json")
    assert (facts["steps"], facts["samples"]) == (3, 3 * 2 * 2)  # twice the samples a step
    weights = load_file(out / "checkpoint" / "adapter_model.safetensors")
    assert all(np.isfinite(w).all() for w in weights.values())
    assert done.stdout.count("usermirror benchmark") == 1  # one process speaks
