from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from usermirror_gym.engines.local.transformers_engine import TransformersEngine
from usermirror_gym.errors import ConfigError, RunError
from usermirror_gym.files import write_text
from usermirror_gym.scenes.words.prompt import ANSWER_PREFIX
from usermirror_gym.train.config import Stage
from usermirror_gym.train.data import TrainData, TrainSource
from usermirror_gym.train.objectives.letters import Letters
from usermirror_gym.train.objectives.next_item import Histories
from usermirror_gym.train.objectives.sequences import (
    IGNORED,
    Wording,
    epoch_keys,
    name_keys,
    orders,
)
from usermirror_gym.train.objectives.validation import (
    LettersLoss,
    LikelihoodLoss,
    ReasonedLoss,
    held_out,
)
from usermirror_gym.types import Message, Prompt


def reasons(n: int = 4) -> list[dict]:
    def row(i: int) -> dict:
        asked = [{"role": "user", "content": f"user {i}: [A] Heat [B] Big"}]
        right, wrong = ("AB", "BA")[i % 2]
        return {
            "scene_id": str(i),
            "prompt": asked,
            "completion": said(f"Film {i}.", right),
            "chosen": said(f"Film {i}.", right),
            "rejected": said(f"Hm {i}?", wrong),
        }

    return [row(i) for i in range(n)]


def said(text: str, letter: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": f"{text}\n{ANSWER_PREFIX}{letter}]"}]


@pytest.fixture
def few(data: TrainData) -> TrainData:
    """Four scenes, nobody to validate on."""
    (source,) = data.sources
    source = replace(source, scenes_train=source.scenes_train[:4], scenes_validation=[])
    return TrainData((source,), rationales=reasons())


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def train_losses(result) -> list[float]:
    return [p.train_loss for p in result.history if p.train_loss is not None]


class Killed(Exception):
    pass


class DieAt(TrainerCallback):
    """Leaves the folder as a process that was killed at this step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


class LeapAt(TrainerCallback):
    """Turns what an adapter has learned into its opposite, and far beyond, after this step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            with torch.no_grad():
                for name, parameter in kwargs["model"].named_parameters():
                    if "lora_B" in name:  # one factor of the product: two signs would cancel
                        parameter.mul_(-8)


# Learning


@pytest.mark.parametrize("objective", ["next_item", "letters", "rationale", "options"])
def test_loss_falls_on_a_few_examples(train, tiny_model, few, duels, objective):
    told = {"letters": duels, "options": duels, "rationale": few}
    settings = {"data": told.get(objective), "epochs": 30, "batch_size": 2, "learning_rate": 1e-2}
    if objective == "next_item":
        source = replace(few.sources[0], split=few_users(few.split, 2))
        settings |= {"alone": 0.0, "data": TrainData((source,))}
    losses = train_losses(train(tiny_model(), objective, **settings))
    assert np.mean(losses[-4:]) < 0.5 * losses[0]


@pytest.fixture
def duels(data: TrainData) -> TrainData:
    """Two scenes with the choice between two options: two orders of each can be learned."""
    (source,) = data.sources
    forced = replace(source.builder, config=replace(source.builder.config, outside_option=False))
    chosen = [s for s in source.scenes_train if s.target < len(s.slate)][:2]
    scenes = [
        replace(s, slate=(s.slate[s.target], s.slate[s.target - 1]), target=0) for s in chosen
    ]
    return TrainData((replace(source, builder=forced, scenes_train=scenes, scenes_validation=[]),))


def few_users(split, n: int):
    events = split.dataset.interactions
    kept = events[events["user_id"] <= n].reset_index(drop=True)
    return replace(split, dataset=replace(split.dataset, interactions=kept))


@pytest.mark.parametrize("kind", ["letters", "rationales"])
def test_dpo_begins_at_log_2_and_falls(train, tiny_model, duels, kind):
    preferences = reasons() if kind == "rationales" else []
    result = train(
        tiny_model(), "dpo", data=TrainData(duels.sources, preferences=preferences),
        epochs=32, batch_size=2, beta=0.5, max_steps=32, learning_rate=1e-2,
    )  # fmt: skip
    losses = train_losses(result)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert np.mean(losses[-3:]) < 0.35


@pytest.mark.parametrize("objective", ["letters", "dpo", "options"])
def test_whole_models_are_trained_too(train, tiny_model, duels, objective):
    model = tiny_model(lora=False)
    before = weights_of(model)
    result = train(
        model, objective, data=duels, epochs=32, batch_size=2, learning_rate=5e-3, beta=0.5
    )
    losses = train_losses(result)
    assert np.mean(losses[-4:]) < 0.8 * losses[0]
    after = weights_of(model)
    assert after.keys() == before.keys()
    assert not torch.equal(*(w["model.layers.0.mlp.up_proj.weight"] for w in (before, after)))


# The trained positions are what the engine reads.


@pytest.fixture
def engine(tiny_model, tokenizer, tmp_path: Path) -> TransformersEngine:
    tiny_model(lora=False).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return TransformersEngine(tmp_path / "model")


def first_loss(train, model, objective: str, n: int, **settings) -> float:
    """Of all examples in one batch, before anything was learned."""
    result = train(model, objective, batch_size=n, max_steps=1, learning_rate=1e-12, **settings)
    return train_losses(result)[0]


def drawn_orders(scenes, more: int = 0) -> list[tuple[int, ...]]:
    """Of the first epoch, of each list with so many further options."""
    own = epoch_keys(3, 0, name_keys([s.name for s in scenes]))
    return [orders(own[i : i + 1], len(s.slate) + more)[0] for i, s in enumerate(scenes)]


def test_letters_loss_is_what_the_engine_says(train, tiny_model, engine, scenes, builder):
    drawn = drawn_orders(scenes, more=1)
    prompts = [builder.letters(s, order) for s, order in zip(scenes, drawn, strict=True)]
    told = engine.text_logprobs(prompts)
    wanted = [
        -answer.logprobs[order.index(scene.target)]
        for scene, order, answer in zip(scenes, drawn, told, strict=True)
    ]
    assert first_loss(train, tiny_model(), "letters", len(scenes)) == pytest.approx(
        np.mean(wanted), abs=2e-4
    )


def test_next_item_loss_is_what_the_engine_says(
    train, tiny_model, engine, split, builder, tokenizer
):
    stage = Stage(objective="next_item", history=(1, 4), alone=0.2)
    histories = Histories(split, builder, Wording(tokenizer, 500), stage, seed=3)
    prompts = []
    for index in range(len(histories.sizes(0))):
        row = histories.row(0, index)
        start = row["labels"].count(IGNORED)
        head, rest = (tokenizer.decode(ids) for ids in
                      (row["input_ids"][:start], row["input_ids"][start:]))  # fmt: skip
        lines = rest.splitlines(keepends=True)
        prompts += [Prompt((), head + "".join(lines[:i]), (lines[i],)) for i in range(len(lines))]
    told = engine.text_logprobs(prompts)
    wanted = -sum(float(a.logprobs[0]) for a in told) / sum(int(a.n_tokens[0]) for a in told)
    found = first_loss(
        train, tiny_model(), "next_item", len(histories.sizes(0)), history=(1, 4), alone=0.2
    )
    assert found == pytest.approx(wanted, abs=2e-4)


def test_options_loss_is_what_the_engine_reads(
    train, tiny_model, tokenizer, scenes, builder, tmp_path
):
    model = tiny_model(lora=False)
    head = tmp_path / "begin"
    write_head(head, 32)
    loss = first_loss(train, model, "options", len(scenes), head=head)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    engine = TransformersEngine(tmp_path / "model", head=head)
    drawn = drawn_orders(scenes)
    told = engine.line_scores(
        [builder.lines(s, order) for s, order in zip(scenes, drawn, strict=True)]
    )
    wanted = [
        -answer.logprobs[(*order, len(order)).index(scene.target)]
        for scene, order, answer in zip(scenes, drawn, told, strict=True)
    ]
    assert loss == pytest.approx(np.mean(wanted), abs=2e-4)


def write_head(folder: Path, size: int) -> None:
    from safetensors.torch import save_file

    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(size, generator=generator)
    save_file({"weight": weight, "bias": torch.zeros(1)}, folder / "head.safetensors")


def test_validation_losses_are_those_of_the_readouts(
    tiny_model, engine, scenes, builder, tokenizer
):
    model, wording = tiny_model(), Wording(tokenizer, 500)
    letters = engine.choice_logprobs([builder.letters(s) for s in scenes])
    wanted = -np.mean([a.logprobs[s.target] for a, s in zip(letters, scenes, strict=True)])
    assert LettersLoss(scenes, builder, wording)(model) == pytest.approx(wanted, abs=2e-4)
    uniform = np.mean([np.log(len(s.slate) + 1) for s in scenes])
    assert LikelihoodLoss(scenes, builder, wording)(model) < uniform + 0.05  # fitted


def test_reasoned_validation_reads_the_letter_behind_the_rationale(tiny_model, engine, tokenizer):
    from usermirror_gym.train.objectives.letters import answered

    wording = Wording(tokenizer, 500)
    rows = reasons(6)
    prompts = [
        Prompt(
            tuple(Message(**m) for m in row["prompt"]),
            f"Film {i}.\n{ANSWER_PREFIX}", ("AB"[i % 2],),
        )
        for i, row in enumerate(rows)
    ]  # fmt: skip
    wanted = -np.mean([a.logprobs[0] for a in engine.text_logprobs(prompts)])
    loss = ReasonedLoss([answered(r["prompt"], r["completion"], wording) for r in rows])
    assert loss(tiny_model()) == pytest.approx(wanted, abs=2e-4)


def test_one_row_in_twenty_is_held_out():
    rows = reasons(100)
    kept, out = held_out(rows, seed=0)
    assert (len(kept), len(out)) == (95, 5)
    assert sorted(int(r["scene_id"]) for r in kept + out) == list(range(100))
    assert held_out(rows, seed=0)[1] == out != held_out(rows, seed=1)[1]
    assert held_out(rows[:19], seed=0)[1] == []


# Killed and gone on


def first_scenes(data: TrainData, n: int) -> TrainData:
    (source,) = data.sources
    source = replace(source, scenes_train=source.scenes_train[:n],
                     scenes_validation=source.scenes_validation[:4])  # fmt: skip
    return TrainData((source,))


@pytest.mark.parametrize("objective", ["next_item", "letters", "dpo", "options"])
def test_a_killed_stage_ends_with_the_same_bits(train, tiny_model, data, tmp_path, objective):
    settings = {
        "max_steps": 4, "save_every": 2, "eval_every": 0.5, "batch_size": 2, "warmup": 0.2,
        "scheduler": "linear", "data": first_scenes(data, 8),
    }  # fmt: skip
    make = partial(tiny_model, dropout=0.1)
    whole = make()
    undisturbed = train(whole, objective, folder=tmp_path / "whole", **settings)
    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        train(make(), objective, folder=folder, callbacks=[DieAt(3)], **settings)
    write_text(folder / ".saving.0.tmp" / "checkpoint-3" / "optimizer.pt", "half")
    killed = make()
    went_on = train(killed, objective, folder=folder, **settings)
    assert same(weights_of(whole), weights_of(killed))
    assert (went_on.steps, went_on.samples, went_on.tokens) == (
        undisturbed.steps, undisturbed.samples, undisturbed.tokens,
    )  # fmt: skip
    scores = [
        [(p.step, p.validation_log_loss) for p in r.history if p.validation_log_loss is not None]
        for r in (undisturbed, went_on)
    ]
    assert scores[0] == scores[1]
    assert len(scores[0]) >= 2
    if objective == "options":
        heads = [(tmp_path / n / "head.safetensors").read_bytes() for n in ("whole", "killed")]
        assert heads[0] == heads[1]


def test_at_most_two_checkpoints_are_kept_and_nothing_half_written(
    train, tiny_model, few, tmp_path
):
    train(tiny_model(), "letters", data=few, epochs=6, batch_size=4, save_every=1)
    left = sorted(path.name for path in (tmp_path / "stage").iterdir())
    assert left == ["checkpoint-5", "checkpoint-6"]


def test_a_finished_stage_is_not_trained_again(train, tiny_model, few):
    model = tiny_model()
    first = train(model, "letters", data=few, epochs=2)
    again = tiny_model()
    second = train(again, "letters", data=few, epochs=2, callbacks=[DieAt(0), DieAt(2)])
    assert same(weights_of(model), weights_of(again))
    assert (second.steps, second.tokens) == (first.steps, first.tokens)


def test_the_folder_of_another_model_is_an_error(train, tiny_model, few):
    train(tiny_model(), "letters", data=few, epochs=1)
    with pytest.raises(RunError, match="does not fit the model"):
        train(tiny_model(lora=False), "letters", data=few, epochs=1)


# Early stopping


def test_a_stage_that_only_gets_worse_stops_and_keeps_the_best_weights(train, tiny_model, data):
    model = tiny_model()
    before = weights_of(model)
    settings = {"data": data, "epochs": 5, "eval_every": 0.25, "patience": 2, "learning_rate": 5.0}
    result = train(model, "letters", **settings)
    assert result.steps < 30
    if result.best.step == 0:
        assert same(weights_of(model), before)
    later = [p.validation_log_loss for p in result.history if p.validation_log_loss is not None]
    assert min(later) == result.best.validation_log_loss
    assert all(loss >= result.best.validation_log_loss for loss in later[-2:])
    again = tiny_model()
    second = train(again, "letters", callbacks=[DieAt(0), DieAt(result.steps)], **settings)
    assert same(weights_of(again), weights_of(model))
    assert second.best == result.best


def test_the_best_weights_come_back_and_not_the_first(train, tiny_model, duels, tokenizer):
    """Validation on what is trained, until the last step spoils it."""
    (source,) = duels.sources
    data = TrainData((replace(source, scenes_validation=source.scenes_train),))
    settings = {"data": data, "batch_size": 2, "epochs": 24, "eval_every": 8.0, "patience": 9}
    model = tiny_model()
    result = train(model, "letters", callbacks=[LeapAt(23)], **settings)
    last = [p for p in result.history if p.validation_log_loss is not None][-1]
    assert 0 < result.best.step < last.step
    assert result.best.validation_log_loss < last.validation_log_loss
    loss = LettersLoss(source.scenes_train, source.builder, Wording(tokenizer, 500))
    assert loss(model) == pytest.approx(result.best.validation_log_loss, abs=1e-6)


def test_without_patience_the_last_weights_stay(train, tiny_model, data, tmp_path):
    settings = {"max_steps": 2, "learning_rate": 1.0}
    validated, silent = tiny_model(), tiny_model()
    watched = train(validated, "letters", data=data, eval_every=0.5, **settings)
    bare = TrainData((replace(data.sources[0], scenes_validation=[]),))
    unwatched = train(silent, "letters", data=bare, folder=tmp_path / "silent", **settings)
    assert same(weights_of(validated), weights_of(silent))
    assert watched.best is not None
    assert unwatched.best is None


# Precision and memory


def test_bfloat16_on_a_cpu_rounds_the_frozen_weights_and_gives_them_back(train, tiny_model, duels):
    rounded, seen = tiny_model(), Spy()
    frozen = {n: p.detach().clone() for n, p in rounded.named_parameters() if not p.requires_grad}
    other = train(
        rounded, "letters", precision="bfloat16", callbacks=[seen], data=duels, epochs=12,
        batch_size=2,
    )  # fmt: skip
    assert seen.dtypes == {(False, torch.bfloat16), (True, torch.float32)}
    assert train_losses(other)[-1] < 0.6 * train_losses(other)[0]
    for name, p in rounded.named_parameters():
        if not p.requires_grad:
            assert torch.equal(p, frozen[name])


class Spy(TrainerCallback):
    def __init__(self) -> None:
        self.dtypes: set = set()

    def on_step_end(self, args, state, control, **kwargs):
        self.dtypes |= {(p.requires_grad, p.dtype) for p in kwargs["model"].parameters()}


@pytest.mark.parametrize("objective", ["letters", "options"])
def test_gradient_checkpointing_changes_nothing_but_memory(
    train, tiny_model, few, tmp_path, objective
):
    settings = {"data": few, "epochs": 2, "batch_size": 4}
    models = [tiny_model(), tiny_model()]
    for name, model in zip(("plain", "again"), models, strict=True):
        train(
            model, objective, folder=tmp_path / name, gradient_checkpointing=name == "again",
            **settings,
        )  # fmt: skip
    one, other = map(weights_of, models)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)
    assert not models[1].get_base_model().is_gradient_checkpointing


# What is left of a stage


@pytest.mark.parametrize("objective", ["letters", "dpo", "options"])
def test_nothing_but_the_weights_changes(train, tiny_model, few, objective):
    model = tiny_model()
    inner = model.get_base_model()
    config, names = copy.deepcopy(inner.config.__dict__), [n for n, _ in model.named_parameters()]
    train(model, objective, data=few, epochs=1)
    assert "forward" not in inner.__dict__
    assert inner.config.__dict__ == config
    assert [n for n, _ in model.named_parameters()] == names
    assert list(model.peft_config) == ["default"]


def test_stages_follow_each_other_on_one_model(train, tiny_model, few, tmp_path):
    model = tiny_model()
    for objective in ("next_item", "letters", "dpo"):
        before = weights_of(model)
        result = train(model, objective, data=few, folder=tmp_path / objective, epochs=1)
        assert not same(weights_of(model), before)
    # DPO's reference is the model that the stage before left, not the base.
    assert train_losses(result)[0] == pytest.approx(math.log(2), abs=1e-5)


def test_a_result_counts_what_was_seen(train, tiny_model, few, builder, tokenizer):
    result = train(tiny_model(), "letters", data=few, epochs=1.5, batch_size=2, accumulation=1)
    wording = Wording(tokenizer, 500)
    (source,) = few.sources
    letters = Letters(source.scenes_train, builder, wording, Stage(objective="letters"), seed=3)
    lengths = {len(letters.row(0, i)["input_ids"]) for i in range(4)}
    assert (result.steps, result.samples) == (3, 6)
    assert 6 * min(lengths) <= result.tokens <= 6 * max(lengths)
    assert result.seconds > 0
    assert result.best is None
    assert all(p.validation_log_loss is None for p in result.history)


def test_accumulated_batches_are_one_large_batch(train, tiny_model, few, tmp_path):
    models = [tiny_model(), tiny_model()]
    for model, (size, parts) in zip(models, [(4, 1), (2, 2)], strict=True):
        train(
            model, "letters", data=few, epochs=1, batch_size=size, accumulation=parts,
            folder=tmp_path / str(size),
        )  # fmt: skip
    one, other = map(weights_of, models)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5)


def test_several_data_sets_are_trained_together(train, tiny_model, data):
    (source,) = data.sources
    other = TrainSource("other", source.split, source.builder, source.scenes_train[:6],
                        source.scenes_validation[:2])  # fmt: skip
    result = train(
        tiny_model(), "letters", data=TrainData((source, other)), epochs=0.5, eval_every=0
    )
    assert result.samples == (len(source.scenes_train) + 6) / 2
    assert result.best is not None


def test_an_objective_without_data_says_what_is_missing(train, tiny_model, few):
    with pytest.raises(ConfigError, match="no rationales"):
        train(tiny_model(), "rationale", data=TrainData(few.sources))
