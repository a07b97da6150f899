"""Does tree attention answer exactly on this model?  Asked once per load, on short probes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from usermirror_gym.engines.local.answers import Scorer
from usermirror_gym.engines.local.encoding import EncodedPrompt
from usermirror_gym.engines.local.tree.plain_forward import PlainScorer

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
