"""Validation log-loss of a model in training, by the readout that it is trained for.

What counts is the choice, not the objective: a next-item loss goes on falling while the model
learns spellings.  So scenes are answered as the simulator would answer them (options not permuted;
likelihoods through freshly fitted weights), which costs about as much as the objective's own loss.
Reasoned answers are the exception: writing a rationale for every scene would cost more than the
training, so there the letter behind a held-out rationale is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from usermirror_gym.engines.local.encoding import Answer, EncodedPrompt, whole
from usermirror_gym.engines.local.model_loading import context_length, exact_tree_length
from usermirror_gym.engines.local.tree.plain_forward import PlainScorer, tree_is_exact
from usermirror_gym.engines.local.tree.tree_scorer import TreeScorer
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import PromptBuilder
from usermirror_gym.simulators.readouts.llm import padded
from usermirror_gym.simulators.readouts.utility import fit_likelihood, likelihood_logprobs
from usermirror_gym.train.objectives.letters import Answered, answer_of, answerable
from usermirror_gym.train.objectives.options import inner_model, line_row, lines_batch
from usermirror_gym.train.objectives.sequences import Wording, longest, padding
from usermirror_gym.types import FloatArray, Prompt

Loss = Callable[[Any], float]
"""The mean log-loss of a model, in nats."""
_BATCH_TOKENS = {"cpu": 1_024}
_GPU_TOKENS = 16_384
_CACHE_TOKENS = 32_768
_HELD_OUT, _FEWEST = 0.05, 20


class LettersLoss:
    """Log-loss of the letters readout, options as shown."""

    def __init__(self, scenes: Sequence[Scene], builder: PromptBuilder, wording: Wording) -> None:
        self._scenes, self._questions = _worded(scenes, builder, wording, PromptBuilder.letters)

    def __call__(self, model: Any) -> float:
        """Mean over the scenes, in nats."""
        with evaluating(model):
            answers = _Asked(model).letters(self._questions)
        return _mean(
            float(np.logaddexp.reduce(answer.values) - answer.values[answer_of(scene)])
            for scene, answer in zip(self._scenes, answers, strict=True)
        )


class LikelihoodLoss:
    """Log-loss of the likelihood readout, its weights fitted anew on the same scenes.

    Half a dozen weights on some hundred scenes hardly overfit, and equally at every validation.
    """

    def __init__(self, scenes: Sequence[Scene], builder: PromptBuilder, wording: Wording) -> None:
        self._outside = builder.config.outside_option
        self._scenes, self._questions = _worded(scenes, builder, wording, PromptBuilder.likelihood)
        self._items = sorted({item for scene in self._scenes for item in scene.slate})
        self._alone = wording.encode(builder.unconditional(tuple(self._items)))

    def __call__(self, model: Any) -> float:
        """Mean over the scenes, in nats."""
        with evaluating(model):
            asked = _Asked(model)
            answers = asked.texts(self._questions)
            (alone,) = asked.texts([self._alone])
        known = dict(zip(self._items, alone.values.tolist(), strict=True))
        rows = [
            (answer.values, np.array([known[item] for item in scene.slate]),
             np.array([len(o) for o in question.options], np.float64), answer_of(scene))
            for scene, question, answer in zip(
                self._scenes, self._questions, answers, strict=True
            )
        ]  # fmt: skip
        return _fitted_loss(gather_object(rows), outside=self._outside)


class OptionsLoss:
    """Log-loss of the options readout, options as shown."""

    def __init__(self, scenes: Sequence[Scene], builder: PromptBuilder, wording: Wording) -> None:
        self._pad = padding(wording.tokenizer)
        own, questions = _worded(scenes, builder, wording, PromptBuilder.lines, whole)
        self._rows = [
            line_row(q, answer_of(scene)) for q, scene in zip(questions, own, strict=True)
        ]

    @torch.no_grad()
    def __call__(self, model: Any) -> float:
        """Mean over the scenes, in nats."""
        inner = inner_model(model)
        losses: list[float] = []
        with evaluating(model):
            for batch in _batches(self._rows, _batch_tokens(inner)):
                tensors = {k: v.to(inner.device) for k, v in lines_batch(batch, self._pad).items()}
                targets = tensors.pop("targets")
                loss = torch.nn.functional.cross_entropy(inner(**tensors), targets,
                                                         reduction="none")  # fmt: skip
                losses += loss.double().tolist()
        return _mean(losses)


def pooled_loss(parts: Sequence[tuple[Loss, int]], model: Any) -> float:
    """Mean over several data sets, in which every scene counts alike.

    Args:
        parts: the loss of each, and how many scenes it is the mean of.
    """
    losses, counts = zip(*((loss(model), count) for loss, count in parts), strict=True)
    return float(np.average(losses, weights=counts))


class ReasonedLoss:
    """Minus the log-probability of the right letter behind held-out rationales."""

    def __init__(self, rows: Sequence[Answered]) -> None:
        self._questions = [
            EncodedPrompt(f"rationale {i}", row.question + row.said, ((row.letter,),))
            for i, row in enumerate(_own_share(rows))
        ]

    def __call__(self, model: Any) -> float:
        """Mean over the rationales, in nats."""
        with evaluating(model):
            answers = _Asked(model).texts(self._questions)
        return _mean(-float(answer.values[0]) for answer in answers)


def held_out(
    rows: Sequence[Mapping[str, Any]], seed: int
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Rows to train on, and one in twenty to validate on; none of fewer than 20."""
    count = round(_HELD_OUT * len(rows)) if len(rows) >= _FEWEST else 0
    order = np.random.default_rng((seed, 2)).permutation(len(rows)).tolist()
    return [rows[i] for i in sorted(order[count:])], [rows[i] for i in sorted(order[:count])]


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Without dropout."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


class _Asked:
    """Answers questions with the weights as they are now, as TransformersEngine would."""

    def __init__(self, model: Any) -> None:
        inner = inner_model(model)
        tokens = _batch_tokens(inner)
        self._plain = PlainScorer(inner, batch_tokens=tokens)
        make = partial(
            TreeScorer, inner, cache_tokens=_CACHE_TOKENS, batch_tokens=tokens,
            row_tokens=min(tokens, 512),
        )  # fmt: skip
        self._tree = make() if tree_is_exact(inner, make) else None
        self._longest = min(exact_tree_length(inner.config), context_length(inner.config))

    def letters(self, questions: Sequence[EncodedPrompt]) -> list[Answer]:
        return self._scorer(questions).letters(questions) if questions else []

    def texts(self, questions: Sequence[EncodedPrompt]) -> list[Answer]:
        return self._scorer(questions).texts(questions) if questions else []

    def _scorer(self, questions: Sequence[EncodedPrompt]) -> TreeScorer | PlainScorer:
        short = max(question.longest for question in questions) <= self._longest
        return self._tree if self._tree is not None and short else self._plain


def _fitted_loss(
    rows: Sequence[tuple[FloatArray, FloatArray, FloatArray, int]], *, outside: bool
) -> float:
    *columns, chosen = zip(*rows, strict=True)
    counts = np.array([len(values) for values in columns[0]])
    width = int(counts.max())
    mask = np.arange(width) < counts[:, None]
    cond, uncond, lengths = (padded(column, mask) for column in columns)
    targets = np.array(chosen, np.int64)
    weights = fit_likelihood(cond, uncond, lengths, mask, targets, outside=outside)
    logprobs = likelihood_logprobs(weights, cond, uncond, lengths, mask)
    places = np.where(targets == counts, width, targets)
    return float(-logprobs[np.arange(len(rows)), places].mean())


def _batches(rows: Sequence[dict[str, Any]], tokens: int) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda r: -len(r["input_ids"])):
        if batch and (len(batch) + 1) * len(batch[0]["input_ids"]) > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _batch_tokens(model: Any) -> int:
    return _BATCH_TOKENS.get(model.device.type, _GPU_TOKENS)


def _worded(
    scenes: Sequence[Scene],
    builder: PromptBuilder,
    wording: Wording,
    words: Callable[..., Prompt],
    length: Callable[[EncodedPrompt], int] = longest,
) -> tuple[Sequence[Scene], list[EncodedPrompt]]:
    """The scenes that this process answers, and their questions."""
    own = _own_share(answerable(scenes, builder))
    return own, [wording.fitted(builder, words, scene, length=length) for scene in own]


def _own_share(things: Sequence[Any]) -> Sequence[Any]:
    """What this process of a distributed run answers."""
    state = PartialState()
    return things[state.process_index :: state.num_processes]


def _mean(losses: Iterable[float]) -> float:
    return float(np.mean(gather_object(list(losses))))
