"""Blocks of the LLM that read users: they learn, are kept, and come back on the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests.train.test_session import check_same_weights, killed_at
from usermirror_gym.data import TimeSplit, load_dataset, time_cut
from usermirror_gym.envs import SlateVectorEnv, make_world
from usermirror_gym.errors import CheckpointError, ConfigError
from usermirror_gym.progress import Display
from usermirror_gym.scenes import PromptBuilder, PromptConfig, Scene, domain_text
from usermirror_gym.scenes.scene import Turn
from usermirror_gym.simulators import SessionSimulator, SessionWeights, make_simulator
from usermirror_gym.simulators.checkpoint import write_simulator
from usermirror_gym.simulators.session.blocks import BlockReader, load_reader, served_reader
from usermirror_gym.simulators.session.session_head import (
    SESSION_WEIGHTS,
    read_session,
    write_session,
)
from usermirror_gym.simulators.session.session_net import Lines, SessionShape
from usermirror_gym.simulators.session.trained_blocks import BlockShape
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.train.config import Blocks, Session, read_config
from usermirror_gym.train.run import train
from usermirror_gym.train.session import fit as fit_module
from usermirror_gym.train.session.fit import Student, fit_student
from usermirror_gym.train.session.heads import SessionHeads, Words

BLOCKS = Blocks(layers=(0, 2), rank=2, lines=12, learning_rate=3e-3)
SETTINGS = Session(
    words="none", dim=8, tastes=2, steps=40, list_steps=0, batch_size=16, blocks=BLOCKS,
    store="float32",
)  # fmt: skip
SHAPE = BlockShape(8, (0, 2), rank=2, lines=12)
DAY = 86_400
TUNES = [("lora", "pretrained"), ("whole", "pretrained"), ("frozen", "pretrained"),
         ("lora", "random")]  # fmt: skip


@pytest.fixture(scope="module")
def log() -> TimeSplit:
    return tiny_split(n_users=60, n_items=40, seed=1)


def asking(**changes: Any) -> Session:
    return SETTINGS.model_copy(update={"blocks": BLOCKS.model_copy(update=changes)})


def fitted(log: TimeSplit, settings: Session, base: Path | None, **options: Any) -> Student:
    codes = np.zeros((log.dataset.n_users + 1, 0), np.int64)
    own, blocks = settings.blocks, None
    if base is not None and own is not None:
        shape = BlockShape(8, own.layers, own.tune, own.start, own.rank, own.lines)
        blocks = load_reader(base, shape, device="cpu", dropout=settings.dropout)
    options = {"words": None, "seed": 0, "blocks": blocks, **options}
    return fit_student(log, codes, shape=SessionShape(8, 2), settings=settings, **options)


def some_lines(users: int = 3, length: int = 20) -> tuple[Lines, torch.Tensor]:
    """Of users with different numbers of events, and what the items are."""
    draw = torch.Generator().manual_seed(0)
    items = torch.randint(1, 30, (users, length), generator=draw)
    for user in range(1, users):
        items[user, length // (user + 1) :] = 0
    classes = torch.randint(0, 5, (2, users, length), generator=draw)
    empty = torch.zeros(users, 0, dtype=torch.long)
    past = torch.randn(31, 8, generator=draw)
    past[0] = 0
    return Lines(items, classes[0], classes[1], empty, empty), past


def awake(reader: BlockReader) -> BlockReader:
    """Every number of it counts."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for values in reader.parameters():
            values += 0.1 * torch.randn(values.shape, generator=draw)
    return reader.eval()


@pytest.mark.parametrize(("tune", "start"), TUNES)
def test_training_begins_at_the_pooled_network_and_moves_what_the_settings_say(
    log: TimeSplit, base: Path, tune: Any, start: Any
) -> None:
    shape = replace(SHAPE, tune=tune, start=start)
    before = load_reader(base, shape, device="cpu").eval()
    lines, past = some_lines()
    assert not before(lines, past).any()
    after = fitted(log, asking(tune=tune, start=start), base).blocks
    assert after is not None
    assert after(lines, past).abs().max() > 1e-3
    moved = {
        name for name, values in after.trunk.named_parameters()
        if not torch.equal(values, before.trunk.get_parameter(name))
    }  # fmt: skip
    expected = {"lora": 2 * 7 * 2, "whole": 2 * 9 + 1, "frozen": 0}[tune]
    assert len(list(after.trunk.parameters())) == expected
    assert len(moved) == expected
    for name, values in after.trunk.named_buffers():
        assert torch.equal(values, before.trunk.get_buffer(name)), name


def test_what_the_llm_knows_is_where_training_starts(base: Path) -> None:
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(base)
    kept = load_reader(base, replace(SHAPE, layers=(1, 2), tune="whole"), device="cpu")
    noise = load_reader(base, replace(SHAPE, layers=(1, 2), tune="whole", start="random"))
    name = "layers.{}.mlp.up_proj.weight"
    own = whole.model.get_parameter(name.format(1))
    assert torch.equal(kept.trunk.get_parameter(name.format(0)), own)
    assert not torch.equal(noise.trunk.get_parameter(name.format(0)).cpu(), own)
    # A sentence of the LLM's own vectors is read as the LLM reads it, through its last block.
    with torch.no_grad():
        asked = whole.model(torch.tensor([[3, 7, 9]]), output_hidden_states=True)
        read = kept.trunk(inputs_embeds=asked.hidden_states[1], use_cache=False)
    assert torch.allclose(read.last_hidden_state, asked.last_hidden_state, atol=1e-5)


def test_the_pooled_network_learns_alone_until_the_blocks_join(log: TimeSplit, base: Path) -> None:
    seen: list[bool] = []

    class Watched(BlockReader):
        def forward(self, lines: Lines, past: torch.Tensor) -> torch.Tensor:
            seen.append(True)
            return super().forward(lines, past)

    blocks = load_reader(base, SHAPE, device="cpu")
    blocks.__class__ = Watched
    fitted(log, asking(steps=15), None, blocks=blocks)
    assert len(seen) == 15
    alone = fitted(log, SETTINGS.model_copy(update={"blocks": None}), None)
    idle = fitted(log, asking(steps=1), base)
    # One step at a rate of nearly zero is all the difference that the blocks can make.
    assert torch.allclose(alone.past, idle.past, atol=1e-4)


@pytest.mark.parametrize("at", [10, 30])
def test_a_fit_that_was_killed_ends_with_the_same_weights(
    log: TimeSplit, base: Path, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "_SAVE_EVERY", 5)
    settings = asking(steps=25)
    whole = fitted(log, settings, base)
    state = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fitted(log, settings, base, state=state, progress=killed_at(at))
    with safe_open(state, "pt") as file:
        assert not any("q_proj.base" in name for name in file.keys())  # noqa: SIM118
    told: list[int] = []
    again = fitted(log, settings, base, state=state, progress=told.append)
    assert told[0] == at
    check_same_weights(whole, again)


def test_only_the_newest_events_are_read_in_their_order_and_nothing_behind_them(
    base: Path,
) -> None:
    reader = awake(load_reader(base, SHAPE, device="cpu"))
    lines, past = some_lines()
    with torch.no_grad():
        plain = reader(lines, past)

        def moved(**changes: Any) -> torch.Tensor:
            return (reader(lines._replace(**changes), past) - plain).abs().amax(dim=1)

        items = lines.items.clone()
        items[0, :8] = 29  # 20 events, of which 12 are read
        assert moved(items=items).max() == 0
        items[0, 8] = 30
        assert moved(items=items)[0] > 1e-4
        items = lines.items.clone()
        items[0, [18, 19]] = items[0, [19, 18]]
        assert moved(items=items)[0] > 1e-4
        for name in ("ages", "marks"):
            values = getattr(lines, name).clone()
            values[1, 9] = 5 - values[1, 9] // 5 * 5  # another class at the newest event
            assert moved(**{name: values})[1] > 1e-5
            values = getattr(lines, name).clone()
            values[1, 10:] = 3  # behind the newest event
            assert moved(**{name: values}).max() == 0


def test_users_who_did_nothing_are_read_too(base: Path) -> None:
    reader = awake(load_reader(base, SHAPE, device="cpu"))
    lines, past = some_lines()
    none = Lines(*(c[:2, :0] for c in lines))
    both = lines._replace(items=lines.items * torch.tensor([[1], [0], [1]]))
    with torch.no_grad():
        alone, among = reader(none, past), reader(both, past)[1]
    assert alone.shape == (2, 8)
    assert torch.allclose(alone[0], among, atol=1e-5)


def test_bfloat16_is_the_same_reader_but_for_rounding(base: Path) -> None:
    exact, rounded = (
        awake(load_reader(base, SHAPE, dtype=dtype, device="cpu"))
        for dtype in ("float32", "bfloat16")
    )
    assert exact.base == rounded.base
    lines, past = some_lines()
    one, other = exact(lines, past), rounded(lines, past)
    assert other.dtype == torch.float32
    assert 0 < (one - other).abs().max() < 0.05 * one.abs().max()
    other.sum().backward()
    assert all(values.grad is not None for values in rounded.parameters())
    assert {v.dtype for v in rounded.parameters()} == {torch.float32}


@pytest.fixture
def ships(log: TimeSplit, base: Path, tmp_path: Path) -> Callable[..., Path]:
    """Train, and write a simulator's folder."""

    def folder(checkpoint: Path = base, **changes: Any) -> Path:
        settings = asking(**changes)
        builder = PromptBuilder(domain_text(log.dataset), PromptConfig(form="session"))
        lines = builder.item_lines(tuple(range(1, log.dataset.n_items + 1))).options
        noise = np.zeros((log.dataset.n_items + 1, 3), np.float32)

        def blocks(shape: BlockShape, **options: Any) -> BlockReader:
            return load_reader(base, shape, device="cpu", **options)

        place = tmp_path / f"{settings.blocks}".replace("/", "")[-40:]
        heads = SessionHeads(
            settings, place / "run", place, Words(None, noise), lines, removed=0.0, seed=0,
            blocks=blocks, display=Display(quiet=True),
        )  # fmt: skip
        heads.write(log)
        write_simulator(place, {"readout": "session", "checkpoint": str(checkpoint),
                                "engine": {"device": "cpu"}})  # fmt: skip
        return place

    return folder


SCENES = [
    Scene(user, tuple(range(1, n + 1)), (4.0,) * n, (DAY,) * n, slate)
    for user, n, slate in ((1, 5, (30, 31, 32)), (2, 14, (33, 34)), (3, 0, (30, 35)),
                           (1, 5, (32, 30, 31)))
]  # fmt: skip


@pytest.mark.parametrize(("tune", "start"), TUNES)
def test_the_simulator_reads_by_the_blocks_of_its_checkpoint(
    log: TimeSplit, ships: Callable[..., Path], tune: str, start: str
) -> None:
    folder = ships(tune=tune, start=start)
    simulator = make_simulator(str(folder), log)
    assert isinstance(simulator, SessionSimulator)
    together = simulator.choose(SCENES).probs
    plain = replace(simulator.head, blocks=None)
    pooled = SessionSimulator(plain, SessionWeights(), log, simulator._builder)
    assert np.abs(pooled.choose(SCENES).probs - together).max() > 1e-4
    assert plain.digest != simulator.head.digest
    # Products of matrices round otherwise in batches of another size, hence no equality.
    for scene, row in zip(SCENES, together, strict=True):
        alone = simulator.choose([scene]).probs[0]
        kept = [*range(len(scene.slate)), -1]
        assert np.abs(alone[kept] - row[kept]).max() < 1e-5
    assert np.abs(together[0, [2, 0, 1, 3]] - together[3]).max() < 1e-5
    taken = replace(SCENES[0], turns=(Turn((36, 37), 37),))
    assert np.abs(simulator.choose([taken]).probs - together[0]).max() > 1e-5


def test_the_file_holds_what_was_trained_and_comes_back(
    ships: Callable[..., Path], tmp_path: Path
) -> None:
    folder = ships()
    head = read_session(folder)
    assert head.blocks is not None
    assert head.blocks.shape == SHAPE
    names = {name.rsplit(".", 1)[-1] for name in head.blocks.weights}
    assert names == {"into", "rest", "marks", "ages", "out", "down", "up"}
    write_session(tmp_path / "copy", head, "float32")
    assert read_session(tmp_path / "copy").digest == head.digest
    with safe_open(folder / SESSION_WEIGHTS, "numpy") as file:
        about = json.loads(file.metadata()["session"])
    assert about["blocks"]["base"] == head.blocks.base


def test_a_large_number_at_the_first_position_and_a_wrong_size_in_the_file(
    ships: Callable[..., Path], tmp_path: Path
) -> None:
    head = read_session(ships())
    assert head.blocks is not None
    large = {**head.blocks.weights, "rest": np.full(32, 1e5, np.float32)}
    write_session(tmp_path / "large", replace(head, blocks=replace(head.blocks, weights=large)))
    again = read_session(tmp_path / "large").blocks
    assert again is not None
    assert again.weights["rest"].tolist() == [1e5] * 32
    other = replace(head.blocks, shape=replace(head.blocks.shape, rank=10**9))
    write_session(tmp_path / "wrong", replace(head, blocks=other))
    with pytest.raises(CheckpointError, match=r"session\.safetensors.* rank = 1000000000"):
        read_session(tmp_path / "wrong")


def test_another_llm_under_the_readout_is_refused(
    base: Path, tmp_path: Path, ships: Callable[..., Path], tokenizer: Any
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    head = read_session(ships())
    assert head.blocks is not None
    wider = LlamaConfig.from_pretrained(base)
    wider.hidden_size, wider.num_attention_heads, wider.head_dim = 48, 4, 12
    torch.manual_seed(99)  # weights that are not those of the fixture
    for name, config in (("same", LlamaConfig.from_pretrained(base)), ("wider", wider)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4321)  # other weights than those of base, whatever was drawn before
            LlamaForCausalLM(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"has other weights .* --set checkpoint=NAME"):
        served_reader(tmp_path / "same", head.blocks, device="cpu")
    with pytest.raises(CheckpointError, match=r"does not fit .*'into' .* --set checkpoint=NAME"):
        served_reader(tmp_path / "wider", head.blocks, device="cpu")
    deeper = replace(head.blocks, shape=replace(head.blocks.shape, layers=(1, 3)))
    with pytest.raises(CheckpointError, match="has 2 blocks"):
        served_reader(base, deeper, device="cpu")


def test_blocks_that_cannot_be(base: Path) -> None:
    with pytest.raises(ConfigError, match=r"layers = \[1, 3\]: base.* has 2 blocks"):
        load_reader(base, replace(SHAPE, layers=(1, 3)))
    with pytest.raises(ValueError, match="is no block"):
        Blocks(layers=(3, 3))


def test_the_recipe_for_a_gpu_ends_with_a_simulator_on_a_tiny_llm_too(
    base: Path, own_log: Path, tmp_path: Path
) -> None:
    recipe = read_config(
        "llama3.2-1b-session",
        {
            "checkpoint": str(base), "data.sources": [{"name": str(own_log)}],
            "data.scenes": {"train": 30, "validation": 60, "eval": 30, "train_slate": [3, 5],
                            "eval_slate": [4, 4], "history": [2, 100], "removed": 0.2},
            "session.parts": [[1, "mean"]], "session.components": 6, "session.dim": 8,
            "session.steps": 40, "session.batch_size": 16,
            "session.blocks.layers": [1, 2], "session.blocks.steps": 20,
        },
    )  # fmt: skip
    folder = train(recipe, tmp_path / "run", display=Display(quiet=True))
    card = (folder / "README.md").read_text("utf-8")
    assert "blocks 1 to 1 (fine-tuned by LoRA) read the newest 64 events" in card
    assert "as they were" not in card
    split = time_cut(load_dataset(str(own_log)))
    simulator = make_simulator(str(folder), split)
    assert isinstance(simulator, SessionSimulator)
    assert simulator.head.blocks is not None
    assert simulator.head.blocks.shape == BlockShape(8, (1, 2), "lora", "pretrained", 16, 64, 0)
    assert np.abs(simulator.head.blocks.weights["out"]).max() > 1e-4
    env = SlateVectorEnv(3, world=make_world(split, simulator=simulator), slate_size=3)
    env.reset(seed=0)
    rewards = env.step(np.tile(np.arange(1, 4), (3, 1)))[1]
    assert np.isfinite(rewards).all()
