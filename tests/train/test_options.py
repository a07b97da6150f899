from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from usermirror_gym.engines.adapters import HEAD_WEIGHTS
from usermirror_gym.errors import CheckpointError, ConfigError
from usermirror_gym.scenes import Scene
from usermirror_gym.train.config import Stage
from usermirror_gym.train.data import TrainData
from usermirror_gym.train.objectives.options import (
    Lines,
    line_scores,
    lines_batch,
    reading_lines,
    save_head,
)
from usermirror_gym.train.objectives.sequences import Wording
from usermirror_gym.train.objectives.validation import OptionsLoss

STAGE = Stage(objective="options")


@pytest.fixture
def wording(tokenizer) -> Wording:
    return Wording(tokenizer, 500)


def test_line_ends_stand_on_the_last_token_of_each_line(scenes, builder, wording, tokenizer):
    lines = Lines(scenes, builder, wording, STAGE, seed=0)
    for epoch in (0, 1):
        for index, scene in enumerate(lines.scenes):
            row = lines.row(epoch, index)
            ends = row["line_ends"]
            assert len(ends) == len(scene.slate) + 1
            assert ends == sorted(ends)
            assert ends[-1] == len(row["input_ids"]) - 1
            starts = [len(builder_prefix(lines, builder, wording, scene)), *(e + 1 for e in ends)]
            texts = [
                tokenizer.decode(row["input_ids"][a : b + 1])
                for a, b in zip(starts, ends, strict=False)
            ]
            target = row["target"]
            if scene.target == len(scene.slate):
                assert target == len(scene.slate)
            else:
                assert builder.text.option(scene.slate[scene.target]) in texts[target]


def builder_prefix(lines: Lines, builder, wording: Wording, scene: Scene) -> tuple[int, ...]:
    return wording.encode(builder.lines(scene)).prefix


def test_lines_are_permuted_and_none_of_these_stays_last(scenes, builder, wording):
    lines = Lines([s for s in scenes if len(s.slate) == 4], builder, wording, STAGE, seed=0)
    targets = np.array(
        [[lines.row(e, i)["target"] for i in range(len(lines.scenes))] for e in range(40)]
    )
    removed = np.array([s.target == 4 for s in lines.scenes])
    assert (targets[:, removed] == 4).all()
    shares = np.bincount(targets[:, ~removed].ravel(), minlength=5) / targets[:, ~removed].size
    assert shares[4] == 0
    assert abs(shares[:4] - 0.25).max() < 0.1


def test_batches_are_padded_and_missing_lines_have_no_probability(tiny_model):
    rows = [
        {"input_ids": [5, 6, 7, 8], "line_ends": [1, 2, 3], "target": 2},
        {"input_ids": [5, 6, 9], "line_ends": [1, 2], "target": 0},
    ]
    batch = lines_batch(rows, pad=2)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [5, 6, 9, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch["line_ends"].tolist() == [[1, 2, 3], [1, 2, -1]]
    assert batch.pop("targets").tolist() == [2, 0]
    model = tiny_model(lora=False)
    with reading_lines(model) as head, torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(0))
        scores = model(**batch)
        # A naive pass over each row alone, hidden states behind the final norm.
        for b, row in enumerate(rows):
            hidden = model.model(torch.tensor([row["input_ids"]])).last_hidden_state[0]
            wanted = [float(hidden[e] @ head.weight[0]) for e in row["line_ends"]]
            found = scores[b, : len(wanted)].tolist()
            assert found == pytest.approx(wanted, abs=1e-4)
    assert scores[1, 2] == -torch.inf
    assert scores.log_softmax(1)[1].exp().sum() == pytest.approx(1)


def test_scores_do_not_depend_on_lower_precision_of_the_states():
    head = torch.nn.Linear(4, 1)
    hidden = torch.randn(1, 3, 4).bfloat16()
    scores = line_scores(head, hidden, torch.tensor([[0, 2]]))
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores[0], head(hidden.float())[0, [0, 2], 0])


def test_a_new_head_finds_all_options_equally_likely(train, tiny_model, data):
    result = train(tiny_model(), "options", data=data, max_steps=1, learning_rate=1e-12)
    sizes = [len(s.slate) + 1 for s in data.scenes_validation]
    first = result.history[0]
    assert (first.step, first.validation_log_loss) == (0, pytest.approx(np.mean(np.log(sizes))))


def test_the_head_learns_a_rule_and_keeps_it_on_new_scenes(
    train, tiny_model, data, builder, wording, tmp_path
):
    """One film of each list is an action film, and that one is chosen."""
    (source,) = data.sources
    rng = np.random.default_rng(0)
    made = []
    for number in range(60):
        slate = rng.permutation([rng.integers(1, 20), *rng.choice(np.arange(21, 40), 2, False)])
        target = int(slate.argmin())
        made.append(Scene(1, (40,), (3.0,), (9,), tuple(slate.tolist()), target=target,
                          name=f"made {number}"))  # fmt: skip
    ruled = TrainData((replace(source, scenes_train=made[:40], scenes_validation=made[40:]),))
    model = tiny_model()
    result = train(
        model, "options", data=ruled, epochs=6, batch_size=8, learning_rate=1e-2, patience=9,
        eval_every=2.0,
    )  # fmt: skip
    assert result.best.validation_log_loss < 0.3 * np.log(4)
    with reading_lines(model, tmp_path / "stage"):
        loss = OptionsLoss(made[40:], builder, wording)(model)
    assert loss == pytest.approx(result.best.validation_log_loss, abs=1e-4)


def test_the_head_has_a_learning_rate_of_its_own(train, tiny_model, data, tmp_path):
    heads = {}
    for rate in (None, 1e-12):
        train(
            tiny_model(), "options", data=data, max_steps=2, head_learning_rate=rate,
            folder=tmp_path / str(rate),
        )  # fmt: skip
        heads[rate] = load_file(tmp_path / str(rate) / HEAD_WEIGHTS)["weight"].abs().max()
    assert heads[1e-12] < 1e-9 < 1e-3 < heads[None]


def test_heads_are_saved_in_the_documented_form(tiny_model, tmp_path: Path):
    model = tiny_model()
    with reading_lines(model) as head:
        torch.nn.init.normal_(head.weight)
        saved = load_file(save_head(head, tmp_path / HEAD_WEIGHTS))
        kept = head.weight.detach().clone()
    assert {n: (tuple(w.shape), w.dtype) for n, w in saved.items()} == {
        "weight": ((32,), torch.float32), "bias": ((1,), torch.float32),
    }  # fmt: skip
    with reading_lines(model, tmp_path) as again:
        assert torch.equal(again.weight, kept)
    assert not hasattr(model.get_base_model(), "option_head")


def test_the_head_of_another_model_is_an_error(tiny_model, tmp_path: Path):
    save_head(torch.nn.Linear(16, 1), tmp_path / HEAD_WEIGHTS)
    reading = reading_lines(tiny_model(), tmp_path)
    with pytest.raises(CheckpointError, match=r"needs weight \(32,\)"):
        reading.__enter__()


def test_a_forced_choice_has_no_last_line(scenes, builder, wording):
    forced = replace(builder, config=replace(builder.config, outside_option=False))
    lines = Lines(scenes, forced, wording, STAGE, seed=0)
    for index, scene in enumerate(lines.scenes):
        row = lines.row(0, index)
        assert len(row["line_ends"]) == len(scene.slate)
        assert row["target"] < len(scene.slate)
    with pytest.raises(ConfigError, match="none of 1 scenes"):
        Lines([replace(scenes[0], target=len(scenes[0].slate))], forced, wording, STAGE, seed=0)
