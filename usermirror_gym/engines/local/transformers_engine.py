"""The engine that runs a causal LM in process, on CPU or GPU, through transformers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from usermirror_gym.engines.base import Sampling, SamplingOptions, StatePart
from usermirror_gym.engines.local.encoding import EncodedPrompt, Length, Scorer
from usermirror_gym.engines.local.local import LocalEngine
from usermirror_gym.errors import ConfigError
from usermirror_gym.types import Float32Array, Prompt

if TYPE_CHECKING:
    from usermirror_gym.engines.local.tree.tree_scorer import TreeScorer


class TransformersEngine(LocalEngine):
    """Reads option probabilities from a causal LM in one short forward pass.

    The options of a prompt, and prompts that begin alike, are packed into one row in which each
    token attends to its own line only (tree attention); beginnings of earlier calls come from a
    prefix cache.  A check at load compares this with plain forward passes, and a model on which it
    is not exact is asked the plain way.  The weights are loaded at the first question.

    Args:
        path_or_name: a folder, a GGUF file, or a name for
            :func:`~usermirror_gym.engines.checkpoints.resolve_checkpoint`.
        adapter: folder of a LoRA adapter (PEFT) that was trained on these weights; it is merged
            into them in float32.
        head: folder with the option head (``head.safetensors``) that :meth:`line_scores` reads.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        device: ``auto`` (GPU if there is one), ``cpu``, ``cuda``, ``cuda:1`` ...
        batch_tokens: most new tokens of one forward pass, padding included; ``None`` chooses by
            device.
        row_tokens: most new tokens that several prompts share in one row; ``None`` chooses.
        cache_tokens: size of the prefix cache in tokens.  Users who take turns need room for all
            their sessions at once: with less nothing is found again.  SmolLM2 in float32 takes
            46 kB a token.
        padding_side: where shorter rows of a batch are padded; the answers are the same.
        reuse_prefix: share beginnings between prompts and calls.

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
        dtype: str = "float32",
        device: str = "auto",
        batch_tokens: int | None = None,
        row_tokens: int | None = None,
        cache_tokens: int = 81_920,
        padding_side: Literal["left", "right"] = "right",
        reuse_prefix: bool = True,
    ) -> None:
        if padding_side not in ("left", "right"):
            raise ConfigError(f"padding_side is {padding_side!r}: use 'left' or 'right'.")
        for name, size in (("batch_tokens", batch_tokens), ("row_tokens", row_tokens)):
            if size is not None and size < 1:
                raise ConfigError(f"{name} is {size}: use 1 or more, or None for the default.")
        if cache_tokens < 0:
            raise ConfigError(f"cache_tokens is {cache_tokens}: use 0 (no cache) or more.")
        super().__init__(path_or_name, adapter=adapter, head=head, dtype=dtype)
        self._device_name = device
        self._batch_tokens, self._row_tokens = batch_tokens, row_tokens
        self._cache_tokens, self._reuse = cache_tokens, reuse_prefix
        self._pad_left = padding_side == "left"

    @property
    def tree_attention(self) -> bool:
        """Whether the model passed the check for shared and cached prefixes (loads the model)."""
        return self._tree is not None

    def load(self) -> None:
        """Load the weights now instead of at the first question."""
        with self._lock:
            _ = self._encoder, self._tree

    def forget(self) -> None:
        """Drop what earlier calls left in the prefix cache.  The next answers are then the same to
        the last bit whatever was asked before, at the price of computing shared beginnings again.
        """
        with self._lock:
            tree = self.__dict__.get("_tree")
            if tree is not None:
                tree.cache.clear()

    def item_hidden_states(
        self,
        lines: Sequence[str],
        *,
        head: str,
        parts: Sequence[StatePart],
        progress: Callable[[int], None] = lambda done: None,
    ) -> Float32Array:
        """Affinity readout; see :class:`~usermirror_gym.engines.base.Engine`."""
        from usermirror_gym.engines.local.item_hidden_states import (
            check_lines,
            check_parts,
            item_hidden_states,
        )

        config = self._config.get_text_config(decoder=True)
        check_parts(parts, config.num_hidden_layers)
        if not lines:
            return np.zeros((0, len(parts) * config.hidden_size), np.float32)
        question = self._encoder.encode(Prompt((), head, tuple(lines), "lines"))
        check_lines(lines, question, self.context_length)
        with self._lock:
            begin = time.perf_counter()
            share = self._reuse and self._tree is not None and question.longest <= self._tree_length
            states = item_hidden_states(
                self._model, question, parts, batch_tokens=self._sizes()[0], share_head=share,
                progress=progress,
            )  # fmt: skip
            self._count_lines(question, share, time.perf_counter() - begin)
        return states

    def generate(
        self, prompts: Sequence[Prompt], **options: Unpack[SamplingOptions]
    ) -> list[list[str]]:
        """Sampled continuations; see :class:`~usermirror_gym.engines.base.Engine`.

        Every sample has a generator of its own, seeded by ``seed``, the prompt's tokens and the
        number of the sample.
        """
        from usermirror_gym.engines.local.generation import generate

        sampling = Sampling(**options)
        bare = [Prompt(p.messages, p.answer_prefix, (), p.name) for p in prompts]
        questions = self._encode(bare, room=sampling.max_tokens)
        with self._lock:
            fits = all(q.longest + sampling.max_tokens <= self._tree_length for q in questions)
            tree = self._tree if fits else None
            return generate(self._model, self._tokenizer, tree, questions, sampling)

    def _routes(
        self, questions: Sequence[EncodedPrompt], length: Length
    ) -> list[tuple[Scorer, list[int]]]:
        """Which scorer answers which questions."""
        limit = 0 if self._tree is None else self._tree_length
        short = [i for i, question in enumerate(questions) if length(question) <= limit]
        rest = sorted(set(range(len(questions))) - set(short))
        return [(self._tree or self._plain, short), (self._plain, rest)]

    def _count_lines(self, question: EncodedPrompt, head_is_shared: bool, seconds: float) -> None:
        n, head = len(question.options), len(question.prefix)
        self.usage.questions += n
        self.usage.prompt_tokens += question.whole + (n - 1) * head
        self.usage.computed_tokens += question.whole + (0 if head_is_shared else (n - 1) * head)
        self.usage.seconds += seconds

    @cached_property
    def _model(self) -> Any:
        from usermirror_gym.engines.local.head import pack
        from usermirror_gym.engines.local.model_loading import (
            load_model,
            torch_device,
            torch_dtype,
        )

        dtype, device = torch_dtype(self._dtype), torch_device(self._device_name)
        model = load_model(self._path, dtype, device, adapter=self._adapter)
        pack(model)
        return model

    @property
    def _device(self) -> Any:
        return self._model.device

    @cached_property
    def _tree_length(self) -> int:
        from usermirror_gym.engines.local.model_loading import exact_tree_length

        return exact_tree_length(self._model.config)

    @cached_property
    def _plain(self) -> Scorer:
        from usermirror_gym.engines.local.tree.plain_forward import PlainScorer

        return PlainScorer(self._model, batch_tokens=self._sizes()[0])

    @cached_property
    def _tree(self) -> TreeScorer | None:
        """The fast scorer, or None where it would not be exact."""
        from usermirror_gym.engines.local.tree.plain_forward import tree_is_exact

        return self._new_tree() if tree_is_exact(self._model, self._new_tree) else None

    def _new_tree(self) -> TreeScorer:
        from usermirror_gym.engines.local.tree.tree_scorer import TreeScorer

        batch_tokens, row_tokens = self._sizes()
        return TreeScorer(
            self._model,
            cache_tokens=self._cache_tokens,
            batch_tokens=batch_tokens,
            row_tokens=row_tokens,
            reuse=self._reuse,
            pad_left=self._pad_left,
        )

    def _sizes(self) -> tuple[int, int]:
        """(batch_tokens, row_tokens).  A few hundred tokens keep a CPU busy; a GPU wants more."""
        on_cpu = self._model.device.type == "cpu"
        batch = self._batch_tokens or (1_024 if on_cpu else 16_384)
        return batch, self._row_tokens or min(batch, 512)
