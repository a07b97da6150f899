"""SFT and DPO on the real default model: a few steps, killed in the middle and gone on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
from pathlib import Path
import torch
from peft import LoraConfig, get_peft_model
from usermirror_gym.engines import DEFAULT_CHECKPOINT, resolve_checkpoint
from usermirror_gym.engines.local.model_loading import load_model, load_tokenizer
from usermirror_gym.progress import Display
from usermirror_gym.scenes import *
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.train.config import Stage
from usermirror_gym.train.data import TrainData, TrainSource
from usermirror_gym.train.loop.trainers import run_stage
from usermirror_gym.train.loop.model import save_trained

objective, folder = sys.argv[1], Path(sys.argv[2])
torch.set_num_threads(1)
split = tiny_split()
builder = PromptBuilder(domain_text(split.dataset), PromptConfig(history_lines=3, drop_lines=1))
plan = ScenePlan(count=2, slate_size=3, history=3)
scenes = build_scenes(split, plan, after_t0=False)
data = TrainData((TrainSource("tiny", split, builder, scenes, scenes),))
path = resolve_checkpoint(DEFAULT_CHECKPOINT)
torch.manual_seed(0)
model = get_peft_model(
    load_model(path, torch.float32, torch.device("cpu")),
    LoraConfig(r=4, lora_dropout=0.05, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
)
stage = Stage(
    objective=objective, epochs=8, max_steps=8 if objective == "next_item" else 4, batch_size=2,
    learning_rate=5e-3, warmup=0, scheduler="constant", save_every=1, eval_every=2.0,
    max_length=400, history=(2, 4) if objective == "next_item" else None,
)
result = run_stage(
    stage, model, load_tokenizer(path), data, folder, seed=0, precision="float32",
    display=Display(quiet=True),
)
save_trained(model, folder / "final.safetensors")
losses = [p.train_loss for p in result.history if p.train_loss is not None]
print("LOSSES", *losses)
"""


def start(objective: str, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, objective, str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def finish(process: subprocess.Popen) -> list[float]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return [float(word) for word in out.split("LOSSES")[1].split()]


@pytest.mark.parametrize("objective", ["next_item", "letters", "dpo"])
def test_a_stage_survives_kill_9_with_the_same_weights(objective, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    losses = finish(start(objective, whole))
    assert np.isfinite(losses).all()
    if objective == "next_item":  # every step sees all there is, so steps can be compared
        assert np.mean(losses[-3:]) < 0.7 * losses[0]
    if objective == "dpo":
        assert losses[0] == pytest.approx(np.log(2), abs=1e-3)
    process = start(objective, killed)
    deadline = time.monotonic() + 300
    while not list(killed.glob("checkpoint-2")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (killed / "final.safetensors").exists()
    finish(start(objective, killed))
    one, other = (load_file(folder / "final.safetensors") for folder in (whole, killed))
    assert one.keys() == other.keys()
    for name, weights in one.items():
        assert weights.equal(other[name]), name
    left = sorted(path.name for path in killed.glob("*checkpoint*"))
    assert left == [f"checkpoint-{len(losses) - 1}", f"checkpoint-{len(losses)}"]
