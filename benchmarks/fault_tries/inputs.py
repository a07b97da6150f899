"""The commands that are disturbed, and their inputs: an invented log, a random LLM, an agent.

All settings are tiny, so that each command takes seconds; paths are relative to the folder of a
try, in which the command runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

DATA, SIMULATOR, AGENT = "data", "simulator", "agent"
INPUTS = "in"

_MAPPING = {
    "name": "mine", "domain": "movie",
    "interactions": {
        "file": "log.csv", "user": "user_id", "item": "item_id", "time": "timestamp",
        "rating": "rating",
    },
    "items": {
        "file": "films.csv", "item": "item_id", "title": "title", "texts": ["genres"],
        "numbers": ["year"],
    },
}  # fmt: skip
_SOURCES = [{"name": "in/mine.yaml"}]
_BUILD = {
    "name": "small", "sources": _SOURCES,
    "scenes": {"train": 24, "validation": 4, "eval": 12, "train_slate": [2, 4], "removed": 0.0},
    "rationales": {
        "strong": {"checkpoint": "in/llm"}, "weak": {"checkpoint": "in/llm"}, "scenes": 8,
        "sampling": {"n": 2, "batch_size": 2, "max_tokens": 12, "max_attempts": 2},
    },
    "selection": {"size": 2},
}  # fmt: skip
_STAGE = {
    "max_steps": 6, "batch_size": 4, "max_length": 1500, "learning_rate": 0.01, "eval_every": 0.2,
    "save_every": 1,
}  # fmt: skip
_TRAIN = {
    "name": "tiny", "checkpoint": "in/llm", "readout": "likelihood", "lora": {"r": 4},
    "data": {
        "sources": _SOURCES,
        "scenes": {
            "train": 60, "validation": 16, "eval": 20, "train_slate": [3, 5], "removed": 0.2,
        },
    },
    "prompt": {"form": "session", "history_lines": 6},
    "stages": [_STAGE | {"objective": name} for name in ("next_item", "letters")],
}  # fmt: skip
_RECIPE = {
    "name": "truth", "checkpoint": "in/llm", "readout": "affinity", "lora": None,
    "data": {
        "sources": [{"name": "ml-100k"}],  # whose place the experiment's own log takes
        "scenes": {"train": 40, "validation": 40, "eval": 20, "train_slate": [3, 5]},
    },
    "prompt": {"form": "session", "history_lines": 6, "drop_lines": 3, "max_turns": 4},
    "affinity": {"parts": [[1, "mean"]], "rank": 4, "memory": 4},
}  # fmt: skip


@dataclass(frozen=True)
class Command:
    """One command of ``usermirror``.

    Attributes:
        words: without ``--out``, which is always ``out``.
        reads: which inputs it reads, :data:`DATA`, :data:`SIMULATOR` or :data:`AGENT`; these are
            changed.
    """

    words: tuple[str, ...]
    reads: tuple[str, ...]


def _command(text: str, *reads: str) -> Command:
    return Command(tuple(text.split()), reads)


COMMANDS = {
    "benchmark": _command(
        "benchmark --dataset in/mine.yaml --simulator in/user --agents Pop,ItemKNN,in/agent "
        "--users 6 --steps 3 --slate-size 3 --fidelity-scenes 10 --batch-size 2",
        DATA, SIMULATOR, AGENT,
    ),
    "data build": _command("data build --config in/build.yaml", DATA, SIMULATOR),
    "train": _command("train --config in/train.yaml", DATA, SIMULATOR),
    "train-agent": _command(
        "train-agent --algo slateq --dataset in/mine.yaml --simulator in/user --steps 120 "
        "--users 10 --horizon 4 --eval-users 6 --eval-every 1 --slate-size 3 --agent-set d=8",
        DATA, SIMULATOR,
    ),
    "evaluate": _command(
        "evaluate --simulator in/user --scenes in/mine.yaml --count 30 --checks 5 --no-classic",
        DATA, SIMULATOR,
    ),
    "transfer": _command(
        "transfer --dataset in/mine.yaml --recipe in/recipe.yaml --learners climber "
        "--models EASE,ItemKNN --truth factors=4 --truth iterations=30 --truth penalty=1.0 "
        "--log ticks=60 --log lists=25 --updates 2 --train-users 6 --evaluations 2 --trainings 2 "
        "--users 20 --steps 3 --slate-size 3 --n-resamples 50",
        DATA, SIMULATOR,
    ),
}  # fmt: skip


def write_inputs(folder: Path) -> None:
    """Everything that the commands read; the same bytes whenever it is called."""
    from usermirror_gym.agents.learners.bandits import LinUCBAgent
    from usermirror_gym.data import load_dataset, time_cut
    from usermirror_gym.simulators.checkpoint import write_simulator
    from usermirror_gym.testing.data import tiny_split

    folder.mkdir(parents=True)
    data = tiny_split(n_users=60, n_items=60).dataset
    data.items.reset_index().to_csv(folder / "films.csv", index=False)
    data.interactions.to_csv(folder / "log.csv", index=False)
    for name, content in {
        "mine": _MAPPING, "build": _BUILD, "train": _TRAIN, "recipe": _RECIPE,
    }.items():  # fmt: skip
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    for name in ("llm", "user"):
        _write_llm(folder / name)
    write_simulator(folder / "user", {"readout": "letters", "form": "scene", "history_lines": 6})
    split = time_cut(load_dataset(str(folder / "mine.yaml")))
    LinUCBAgent(seed=0, d=8).fit(split).save(folder / "agent")


def _write_llm(folder: Path) -> None:
    """A Llama of a few thousand random weights, whose tokens are bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    places = {text: place for place, text in enumerate([*marks, *letters])}
    core = Tokenizer(models.BPE(vocab=places, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=marks[0], eos_token=marks[2], pad_token=marks[2],
        additional_special_tokens=[marks[1]],
    )  # fmt: skip
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096,
        tie_word_embeddings=True, initializer_range=0.2, bos_token_id=0, eos_token_id=2,
        pad_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _change_data(folder: Path) -> None:
    """Another film in one early interaction: every table still has its form and size."""
    path = folder / "log.csv"
    lines = path.read_text().splitlines()
    user, item, *rest = lines[1].split(",")
    lines[1] = ",".join([user, str(int(item) % 50 + 1), *rest])
    path.write_text("\n".join(lines) + "\n")


def _change_weights(folder: Path) -> None:
    """One weight a little larger, in both copies of the LLM."""
    from safetensors.numpy import load_file, save_file

    for name in ("llm", "user"):
        path = folder / name / "model.safetensors"
        arrays = load_file(path)
        arrays["model.norm.weight"] = arrays["model.norm.weight"] * 1.5
        save_file(arrays, path, metadata={"format": "pt"})


def _change_agent(folder: Path) -> None:
    """The agent has seen other things: its arrays are a little different."""
    from safetensors.numpy import load_file, save_file

    path = folder / "agent" / "agent.safetensors"
    arrays = load_file(path)
    arrays = {k: a + a.dtype.type(1) if a.dtype.kind == "f" else a for k, a in arrays.items()}
    save_file(arrays, path)


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    DATA: (_change_data, r"data|log\.csv|mine"),
    SIMULATOR: (_change_weights, r"simulator|in/llm|in/user|checkpoint|model"),
    AGENT: (_change_agent, r"agent"),
}
"""How an input is changed, and what an error must name that says so (a regular expression)."""
