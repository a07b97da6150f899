"""Training files: what a row says, that TRL and datasets take it, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from usermirror_gym.corpus.preferences import direct_rows, preference_rows, sft_rows, write_rows
from usermirror_gym.corpus.selection.assessment import assess
from usermirror_gym.corpus.selection.select import select
from usermirror_gym.errors import ConfigError, DataError
from usermirror_gym.measures.uncertainty import Predictions
from usermirror_gym.types import Message, Prompt

IDS = ["films-1", "films-2", "films-3"]
HIT, MISS, NONE = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]


@pytest.fixture
def scenes() -> pa.Table:
    """Scene 1: the first item; scene 2: never hit; scene 3: none of these."""
    return pa.table(
        {
            "scene_id": IDS,
            "dataset": ["films"] * 3,
            "domain": ["movie"] * 3,
            "kind": ["choice", "choice", "removed"],
            "slate": [[4, 7], [5, 6], [8, 9]],
            "target": pa.array([0, 0, 2], pa.int32()),
        }
    )


@pytest.fixture
def selection(scenes) -> pa.Table:
    weak = Predictions.of("weak", IDS, [[None, MISS], [HIT], [[0, 1.0, 0]]])
    strong = Predictions.of("strong", IDS, [[MISS, HIT], [MISS], [NONE]])
    return select(assess(scenes, weak, strong, reading="likeliest"), size=3).table


@pytest.fixture
def rationales() -> dict[str, dict[str, list[str | None]]]:
    return {
        "weak": {"films-1": [None, "w1"], "films-2": ["w"], "films-3": ["Stimulus: rain"]},
        "strong": {"films-1": ["s0 \ud800", "s1 \u2028 “zwei”"], "films-2": ["s"],
                   "films-3": ["Evaluation: nothing fits"]},
    }  # fmt: skip


@pytest.fixture
def prompts() -> dict[str, Prompt]:
    def ask(scene: str) -> Prompt:
        messages = (Message("system", "You choose."), Message("user", f"{scene}?\n[A] x\n[B] y"))
        return Prompt(messages, "", ("A", "B", "C"), scene)

    return {scene: ask(scene) for scene in IDS}


@pytest.fixture
def pairs(scenes, selection, prompts, rationales) -> list[dict]:
    return list(preference_rows(scenes, selection, prompts=prompts, rationales=rationales))


def test_a_pair_is_the_hit_and_the_miss_with_their_own_letters(pairs) -> None:
    first, third = pairs
    assert first["prompt"] == [
        {"role": "system", "content": "You choose."},
        {"role": "user", "content": "films-1?\n[A] x\n[B] y"},
    ]
    assert first["chosen"] == [{"role": "assistant", "content": "s1 \u2028 “zwei”\nMy choice: [A]"}]
    # The strong model's miss ties with the weak one's and comes first; its surrogate is mended.
    assert first["rejected"] == [{"role": "assistant", "content": "s0 ?\nMy choice: [B]"}]
    assert third["chosen"][0]["content"] == "Evaluation: nothing fits\nMy choice: [C]"
    assert third["rejected"][0]["content"] == "Stimulus: rain\nMy choice: [B]"


def test_a_pair_says_where_it_comes_from(pairs) -> None:
    about = {k: v for k, v in pairs[1].items() if k not in ("prompt", "chosen", "rejected")}
    assert about.pop("difficulty") == pytest.approx(-0.9219, abs=1e-4)
    assert about.pop("chosen_entropy") == pytest.approx(0.9219, abs=1e-4)
    assert about == {
        "scene_id": "films-3", "dataset": "films", "domain": "movie", "kind": "removed",
        "list_size": 2, "rejected_by": "weak", "rejected_entropy": 0.0,
    }  # fmt: skip


def test_sft_rows_are_the_chosen_sides(pairs, scenes, selection, prompts, rationales) -> None:
    rows = list(sft_rows(scenes, selection, prompts=prompts, rationales=rationales))
    assert [(r["prompt"], r["completion"]) for r in rows] == [
        (p["prompt"], p["chosen"]) for p in pairs
    ]


def test_direct_rows_answer_every_scene_whose_choice_is_known(scenes, prompts) -> None:
    rows = list(direct_rows(scenes, prompts=prompts))
    assert [(r["scene_id"], r["completion"][0]["content"]) for r in rows] == [
        ("films-1", "My choice: [A]"), ("films-2", "My choice: [A]"), ("films-3", "My choice: [C]")
    ]  # fmt: skip
    unknown = scenes.set_column(5, "target", pa.array([0, None, 2], pa.int32()))
    assert [r["scene_id"] for r in direct_rows(unknown, prompts=prompts)] == ["films-1", "films-3"]


# --- Files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.parquet"])
def test_datasets_reads_back_what_was_written(name: str, pairs, tmp_path: Path) -> None:
    import datasets

    path = write_rows(tmp_path / "train" / name, iter(pairs))
    kind = "json" if name.endswith("jsonl") else "parquet"
    loaded = datasets.load_dataset(
        kind, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.to_list() == pairs
    assert [p.name for p in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.parquet"])
def test_a_file_is_replaced_whole_or_not_at_all(name: str, pairs, tmp_path: Path) -> None:
    path = write_rows(tmp_path / name, pairs)
    before = path.read_bytes()

    def breaks():
        yield pairs[0]
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_rows(path, breaks())
    with pytest.raises((TypeError, pa.ArrowInvalid)):
        write_rows(path, [*pairs, {"prompt": object()}])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_same_rows_same_bytes(pairs, tmp_path: Path) -> None:
    for ending in ("jsonl", "parquet"):
        one, two = (write_rows(tmp_path / f"{n}.{ending}", pairs) for n in "ab")
        assert one.read_bytes() == two.read_bytes()


def test_files_that_cannot_be_written(pairs, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.jsonl or \.parquet, got 'x\.csv'"):
        write_rows(tmp_path / "x.csv", pairs)
    with pytest.raises(DataError, match="no scene was kept"):
        write_rows(tmp_path / "x.jsonl", [])


# --- TRL ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    """Bytes and two marks: enough for a chat template, built offline."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = ["<|end|>", "<|turn|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>")
    made.chat_template = (
        "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    )
    return made


def test_trl_sees_conversations_and_splits_them_at_the_answer(
    pairs, scenes, prompts, tokenizer
) -> None:
    from trl.data_utils import apply_chat_template, extract_prompt, is_conversational

    assert all(is_conversational(row) for row in pairs)
    text = apply_chat_template(pairs[1], tokenizer)
    assert text["prompt"].endswith("[B] y<|end|><|turn|>assistant\n")
    assert text["chosen"] == "Evaluation: nothing fits\nMy choice: [C]<|end|>"
    assert text["rejected"] == "Stimulus: rain\nMy choice: [B]<|end|>"
    # With the prompt inside both sides TRL finds the same boundary by itself.
    implicit = {side: pairs[1]["prompt"] + pairs[1][side] for side in ("chosen", "rejected")}
    found = extract_prompt(implicit)
    assert found == {k: pairs[1][k] for k in ("prompt", "chosen", "rejected")}
    direct = next(direct_rows(scenes, prompts=prompts))
    assert is_conversational(direct)
    assert apply_chat_template(direct, tokenizer)["completion"] == "My choice: [A]<|end|>"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dpo", "sft", "direct"])
def test_trl_trains_on_the_files(kind: str, pairs, scenes, selection, prompts, rationales,
                                 tokenizer, tmp_path: Path) -> None:  # fmt: skip
    import datasets
    import transformers
    import trl

    rows = {
        "dpo": pairs,
        "sft": sft_rows(scenes, selection, prompts=prompts, rationales=rationales),
        "direct": direct_rows(scenes, prompts=prompts),
    }[kind]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    data = datasets.load_dataset(
        "json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=512, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    # From a folder: DPO loads its reference model from where the model came from.
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "model")
    settings = {
        "output_dir": str(tmp_path / "out"), "max_steps": 1, "per_device_train_batch_size": 2,
        "report_to": [], "use_cpu": True, "save_strategy": "no", "bf16": False,
    }  # fmt: skip
    if kind == "dpo":
        trainer = trl.DPOTrainer(
            model, args=trl.DPOConfig(**settings), train_dataset=data, processing_class=tokenizer
        )
    else:
        trainer = trl.SFTTrainer(
            model,
            args=trl.SFTConfig(**settings, completion_only_loss=True),
            train_dataset=data,
            processing_class=tokenizer,
        )
    loss = trainer.train().training_loss
    assert 0 < loss < 100


# --- Bad input ---------------------------------------------------------------------------------


def test_what_does_not_fit_is_named(scenes, selection, prompts, rationales) -> None:
    def rows(**more) -> list[dict]:
        given = {"scenes": scenes, "selection": selection, "prompts": prompts,
                 "rationales": rationales} | more  # fmt: skip
        return list(preference_rows(given.pop("scenes"), given.pop("selection"), **given))

    with pytest.raises(DataError, match="'films-1' was selected, but is not among the 2"):
        rows(scenes=scenes.slice(1))
    with pytest.raises(DataError, match="no prompt for scene 'films-3'"):
        rows(prompts={s: prompts[s] for s in IDS[:2]})
    with pytest.raises(DataError, match=r"'films-1'.*strong rationale 1 .*missing: there are 1"):
        rows(rationales=rationales | {"strong": rationales["strong"] | {"films-1": ["s0"]}})
    with pytest.raises(DataError, match=r"'films-3'.*weak rationale 0 .*missing"):
        rows(rationales={"strong": rationales["strong"]})
    two = ["s0", "s1\nMy choice: [B]"]
    with pytest.raises(DataError, match="'films-1', strong rationale 1: it holds an answer line"):
        rows(rationales=rationales | {"strong": rationales["strong"] | {"films-1": two}})
    forced = {s: replace(p, options=("A", "B")) for s, p in prompts.items()}
    with pytest.raises(DataError, match=r"'films-3' needs option 2 .*its prompt has 2"):
        rows(prompts=forced)


def test_a_selection_made_from_other_scenes_is_refused(
    scenes, selection, prompts, rationales
) -> None:
    moved = scenes.set_column(5, "target", pa.array([1, 0, 2], pa.int32()))
    with pytest.raises(DataError, match=r"'films-1': option 1 is the true one, .* Select again"):
        list(preference_rows(moved, selection, prompts=prompts, rationales=rationales))


def test_jsonl_is_one_object_a_line_and_parquet_has_the_same_columns(pairs, tmp_path) -> None:
    lines = write_rows(tmp_path / "p.jsonl", pairs).read_text("utf-8").splitlines()
    table = pq.read_table(write_rows(tmp_path / "p.parquet", pairs))
    assert [list(json.loads(line)) for line in lines] == [table.column_names] * len(pairs)
