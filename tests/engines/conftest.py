"""Tiny models with random weights and a tokenizer trained on a few lines, in folders on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from usermirror_gym.types import Message, Prompt

CORPUS = [
    "You like films. Which of these films do you watch next?",
    "[A] Toy Story (1995)\n[B] Heat (1995)\n[C] Fargo (1996)\n[D] Alien (1979)\nBehavior: [A]",
    "system user assistant profile history rated watched The Godfather Part II",
]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(chat_template: str | None = CHATML, *, bos: bool = False):
    """ByteLevel BPE of 400 tokens with the special tokens of ChatML."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.add_tokens(["<think>"])  # not special, but markup all the same
    tokenizer.chat_template = chat_template
    return tokenizer


def build_model(kind: str, seed: int = 0):
    """A random-weight model of a few thousand parameters; weights large enough to matter."""
    import transformers

    torch.manual_seed(seed)
    ids = {"vocab_size": 401, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 2}
    if kind == "gpt2":
        config = transformers.GPT2Config(
            **ids, n_positions=512, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2
        )
        return transformers.GPT2LMHeadModel(config).eval()
    small = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
    }
    if kind == "gemma2":  # logits are capped; every second layer sees 24 tokens only
        config = transformers.Gemma2Config(
            **ids, **small, final_logit_softcapping=3.0, sliding_window=24
        )
        return transformers.Gemma2ForCausalLM(config).eval()
    if kind == "mamba":
        config = transformers.MambaConfig(
            **ids, hidden_size=32, state_size=4, num_hidden_layers=2, initializer_range=0.2
        )
        return transformers.MambaForCausalLM(config).eval()
    config = transformers.LlamaConfig(**ids, **small, tie_word_embeddings=True)
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory) -> Callable[..., Path]:
    """Save a tiny checkpoint: ``make_checkpoint("llama", chat_template=..., bos=...)``."""

    def make(kind: str = "llama", **tokenizer_settings) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        build_model(kind).save_pretrained(folder)
        build_tokenizer(**tokenizer_settings).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoints(make_checkpoint) -> Callable[[str], Path]:
    """One saved checkpoint per architecture, made when first asked for."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = make_checkpoint(kind)
        return made[kind]

    return get


@pytest.fixture(scope="session")
def make_adapter(tmp_path_factory) -> Callable[..., Path]:
    """Save a LoRA adapter with random updates: ``make_adapter("llama", rank=4)``."""

    def make(kind: str = "llama", *, rank: int = 4, seed: int = 0) -> Path:
        import peft

        settings = peft.LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        wrapped = peft.get_peft_model(build_model(kind), settings)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:  # peft begins with zeros in B, which change nothing
                parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
        folder = tmp_path_factory.mktemp(f"adapter-{kind}")
        wrapped.save_pretrained(folder, save_embedding_layers=False)
        return folder

    return make


@pytest.fixture(scope="session")
def adapted(checkpoints) -> Callable[[str, Path], Reference]:
    """The batch-1 reference of a checkpoint with an adapter that is not merged."""

    def get(kind: str, folder: Path) -> Reference:
        import peft

        found = Reference(checkpoints(kind))
        found.model = peft.PeftModel.from_pretrained(found.model, str(folder)).eval()
        return found

    return get


@pytest.fixture(scope="session")
def tokenizer_of() -> Callable:
    """The function that builds the tokenizer of these tests."""
    return build_tokenizer


class Reference:
    """Batch 1, whole sequence, full logits, no cache: what every fast path must agree with."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model = AutoModelForCausalLM.from_pretrained(folder).float().eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def prefix(self, prompt: Prompt) -> list[int]:
        if not prompt.messages:
            return self.ids(prompt.answer_prefix)
        text = self.tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in prompt.messages],
            tokenize=False,
            add_generation_prompt=True,
        )
        return self.ids(text) + self.ids(prompt.answer_prefix)

    def logprobs(self, ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return self.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)

    def letters(self, prompt: Prompt) -> np.ndarray:
        last = self.logprobs(self.prefix(prompt))[-1]
        chosen = last[[self.ids(option)[0] for option in prompt.options]]
        return (chosen - chosen.logsumexp(0)).numpy()

    def lines(self, prompt: Prompt, weight: torch.Tensor, bias: torch.Tensor) -> np.ndarray:
        ids, ends = self.prefix(prompt), []
        for option in map(self.ids, prompt.options):
            ids += option
            ends.append(len(ids) - 1)
        with torch.no_grad():
            hidden = self.model.base_model(torch.tensor([ids])).last_hidden_state[0, ends]
        return ((hidden @ weight).double() + bias.double()).log_softmax(0).numpy()

    def texts(self, prompt: Prompt) -> np.ndarray:
        prefix, sums = self.prefix(prompt), []
        for option in map(self.ids, prompt.options):
            table = self.logprobs(prefix + option)
            at = range(len(prefix) - 1, len(prefix) + len(option) - 1)
            sums.append(sum(float(table[i, token]) for i, token in zip(at, option, strict=True)))
        return np.array(sums)


@pytest.fixture(scope="session")
def reference(checkpoints) -> Callable[[str], Reference]:
    """The independent batch-1 reference of an architecture."""
    made: dict[str, Reference] = {}

    def get(kind: str) -> Reference:
        if kind not in made:
            made[kind] = Reference(checkpoints(kind))
        return made[kind]

    return get


FILMS = ["Toy Story (1995)", "Heat (1995)", "Fargo (1996)", "Alien (1979)", "Jaws (1975)", "Big"]


def letters_prompt(user: int, step: int, slate: int, k: int = 4) -> Prompt:
    """The question of a user after some steps; more steps make it longer at the end."""
    history = "".join(f"watched {FILMS[(user + i) % 6]}\n" for i in range(2 + user % 3 + step))
    lines = "".join(f"[{'ABCDEF'[j]}] {FILMS[(slate + j) % 6]}\n" for j in range(k))
    return Prompt(
        messages=(
            Message("system", "You like films."),
            Message("user", f"profile {user}\n{history}"),
            Message("assistant", "[A"),
            Message("user", lines),
        ),
        answer_prefix="Behavior: [",
        options=tuple("ABCDEF"[:k]),
        name=f"user {user} step {step} slate {slate}",
    )


def texts_prompt(user: int, step: int, slate: int, k: int = 4) -> Prompt:
    """The same, for the likelihood readout."""
    history = "".join(f"{FILMS[(user + i) % 6]}\n" for i in range(2 + user % 3 + step))
    options = tuple(f"{FILMS[(slate + j) % 6]}\n" for j in range(k))
    return Prompt((), f"films of {user}\n{history}", options, f"user {user} step {step}")


@pytest.fixture(scope="session")
def letters_prompts() -> Callable[..., list[Prompt]]:
    """6 users x 3 slates, in mixed order, at a given step."""

    def make(step: int = 0) -> list[Prompt]:
        return [letters_prompt(u, step, s, 2 + (u + s) % 4) for s in range(3) for u in range(6)]

    return make


@pytest.fixture(scope="session")
def texts_prompts() -> Callable[..., list[Prompt]]:
    """6 users x 3 slates, in mixed order, at a given step."""

    def make(step: int = 0) -> list[Prompt]:
        return [texts_prompt(u, step, s, 1 + (u + s) % 4) for s in range(3) for u in range(6)]

    return make
