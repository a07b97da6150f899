"""The safe path: whole sequences, padded on the right, through the model's own forward.

Used for architectures that tree attention would not answer exactly (recurrent states, masks or
positions that are ignored).  Right padding is exact for every causal model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from usermirror_gym.engines.local.encoding import Answer, EncodedPrompt, Scorer
from usermirror_gym.engines.local.head import OptionHead
from usermirror_gym.engines.local.local import answers_of
from usermirror_gym.types import FloatArray


class PlainScorer:
    """Scores options without sharing or caching anything.

    Args:
        model: any causal LM of transformers.
        batch_tokens: padded tokens of one forward pass.
    """

    def __init__(self, model: Any, *, batch_tokens: int) -> None:
        self._model, self._batch_tokens = model, batch_tokens

    def letters(self, questions: Sequence[EncodedPrompt]) -> list[Answer]:
        """Logits of the options' single tokens behind each prefix."""
        rows = [q.prefix for q in questions]
        values: dict[int, FloatArray] = {}
        for index, logits in self._logits(rows):
            at = [o[0] for o in questions[index].options]
            values[index] = logits[len(rows[index]) - 1, at].double().cpu().numpy()
        return _in_order(rows, values)

    def texts(self, questions: Sequence[EncodedPrompt]) -> list[Answer]:
        """Summed log-probabilities of the options' tokens behind each prefix."""
        pairs = [(q, option) for q in questions for option in q.options]
        rows = [q.prefix + option for q, option in pairs]
        values: dict[int, FloatArray] = {}
        for index, logits in self._logits(rows):
            question, text = pairs[index]
            option = torch.tensor(text, device=logits.device)
            start = len(question.prefix) - 1
            there = logits[start : start + len(option)]
            picked = there.gather(1, option[:, None])[:, 0] - there.logsumexp(1)
            values[index] = picked.double().sum(0, keepdim=True).cpu().numpy()
        return answers_of(questions, _in_order(rows, values))

    def lines(self, questions: Sequence[EncodedPrompt], head: OptionHead) -> list[Answer]:
        """What the head reads at the last token of each option, all options in one sequence."""
        rows = [q.prefix + tuple(i for o in q.options for i in o) for q in questions]
        values: dict[int, FloatArray] = {}
        for batch, out in self._batches(self._model.base_model, rows):
            for b, i in enumerate(batch):
                ends = len(questions[i].prefix) + np.cumsum([len(o) for o in questions[i].options])
                values[i] = head.scores(out.last_hidden_state[b, ends - 1])
        return _in_order(rows, values)

    def _logits(self, rows: Sequence[Sequence[int]]) -> Iterator[tuple[int, torch.Tensor]]:
        """Float32 logits ``(padded length, V)`` of every row, longest rows first."""
        for batch, out in self._batches(self._model, rows):
            for b, i in enumerate(batch):
                yield i, out.logits[b].float()

    def _batches(self, run: Any, rows: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Any]]:
        return padded_batches(run, rows, self._batch_tokens, self._model.device)


def _in_order(rows: Sequence[Sequence[int]], values: dict[int, FloatArray]) -> list[Answer]:
    return [Answer(values[i], len(row)) for i, row in enumerate(rows)]


@torch.inference_mode()
def padded_batches(
    run: Any, rows: Sequence[Sequence[int]], batch_tokens: int, device: torch.device
) -> Iterator[tuple[list[int], Any]]:
    """Row numbers and output of every forward pass of ``run``, longest rows first.

    Args:
        run: a model of transformers, or the body of one.
        rows: token ids; a batch is padded on the right to its longest row.
        batch_tokens: padded tokens of one pass.
        device: of the model.
    """
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    while order:
        width = len(rows[order[0]])
        size = max(1, batch_tokens // width)
        batch, order = order[:size], order[size:]
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for b, i in enumerate(batch):
            ids[b, : len(rows[i])] = torch.tensor(rows[i])
            mask[b, : len(rows[i])] = 1
        yield (
            batch,
            run(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False),
        )


logger = logging.getLogger(__name__)

_REFUSALS = (
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a model raises that does not take masks, positions and caches of ours."""
_TOLERANCE = {torch.float32: 2e-3, torch.float16: 0.05, torch.bfloat16: 0.2}
"""Mean absolute difference of log-probabilities (summed over up to four tokens)."""


def tree_is_exact(model: Any, make_tree: Callable[[], Scorer]) -> bool:
    """Whether shared, cached and padded rows agree with one plain sequence at a time.

    Models that ignore explicit masks or positions, carry a recurrent state, or treat their output
    layer in a way we do not know fail here.
    """
    probes = _probes(model)
    try:
        tree = make_tree()
        cold, warm = tree.texts(probes), tree.texts(probes)
        letters = tree.letters([_first_tokens(p) for p in probes])
    except _REFUSALS as error:
        logger.warning("shared prefixes are off, this model does not take them: %r", error)
        return False
    plain = PlainScorer(model, batch_tokens=1)
    texts = np.concatenate([a.values for a in plain.texts(probes)])
    single = np.concatenate([a.values for a in plain.letters([_first_tokens(p) for p in probes])])
    found = [np.concatenate([a.values for a in answers]) for answers in (cold, warm, letters)]
    errors = [np.abs(f - w).mean() for f, w in zip(found, (texts, texts, single), strict=True)]
    exact = bool(max(errors) <= _TOLERANCE[model.dtype])
    if not exact:
        logger.warning(
            "shared prefixes are off, they would change the answers by %.2g", max(errors)
        )
    return exact


def _probes(model: Any) -> list[EncodedPrompt]:
    """Three prompts behind one beginning, of different lengths, with options of 1 to 4 tokens."""
    rng = np.random.default_rng(0)
    vocabulary = model.get_input_embeddings().num_embeddings

    def draw(n: int) -> tuple[int, ...]:
        return tuple(rng.integers(0, vocabulary, n).tolist())

    start = draw(12)
    return [
        EncodedPrompt(f"probe {i}", start + draw(n), tuple(draw(k) for k in (1, 2, 4)))
        for i, n in enumerate((3, 9, 5))
    ]


def _first_tokens(question: EncodedPrompt) -> EncodedPrompt:
    return EncodedPrompt(question.name, question.prefix, tuple(o[:1] for o in question.options))
