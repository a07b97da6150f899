"""Examples in tokens, and the order in which a stage meets them.

Questions become ids through the engines' own encoder, so that what is trained is, token for token,
what is asked later.  Every draw (the order of the options, the length of the history) is a function
of the seed, the epoch and the scene's name alone, so that neither the batch size nor a kill in the
middle of an epoch changes what a scene looks like.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import attrgetter
from typing import Any, Protocol

import numpy as np

from usermirror_gym.engines.local.encoding import EncodedPrompt, PromptEncoder
from usermirror_gym.errors import SceneError
from usermirror_gym.scenes.randomness import KeyArray, integers, keys, uniforms
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import PromptBuilder
from usermirror_gym.train.config import LossOn
from usermirror_gym.types import IntArray, Prompt

# Random streams, see scenes/randomness.py.
_ORDER, _LINES, _REJECTED, _ROWS = range(32, 36)


def name_keys(names: Sequence[str]) -> IntArray:
    """``(B,)`` a whole number for each name, the same in every process."""
    digests = (hashlib.blake2b(n.encode("utf-8", "replace"), digest_size=8) for n in names)
    return np.array([int.from_bytes(d.digest(), "little") for d in digests], np.uint64).astype(
        np.int64
    )


def epoch_keys(seed: int, epoch: int, names: IntArray) -> KeyArray:
    """``(B,)`` what all draws of an epoch begin with.

    Args:
        names: ``(B,)`` from :func:`name_keys`.
    """
    return keys(seed, np.full(len(names), epoch, np.int64), names)


def orders(own: KeyArray, count: int) -> list[tuple[int, ...]]:
    """A permutation of ``0 .. count - 1`` for each key, uniform over all of them.

    Args:
        own: ``(B,)`` from :func:`epoch_keys`.
    """
    places = np.argsort(uniforms(own, _ORDER, count), axis=1, kind="stable")
    return [tuple(row) for row in places.tolist()]


def wrong_options(own: KeyArray, counts: IntArray, targets: IntArray) -> IntArray:
    """``(B,)`` an option of ``0 .. counts - 1`` that is not the target, all equally likely."""
    drawn = integers(own, _REJECTED, 0, counts - 2)
    return drawn + (drawn >= targets)


def shortened(scene: Scene, own: KeyArray, lines: tuple[int, int] | None) -> Scene:
    """The scene with as many of its latest history lines as the epoch's draw says.

    Args:
        own: ``(1,)`` from :func:`epoch_keys`.
        lines: the range, both ends inclusive; ``None`` leaves the history as it is.
    """
    if lines is None:
        return scene
    keep = int(integers(own, _LINES, *lines)[0])
    start = max(len(scene.history) - keep, 0)
    return replace(
        scene,
        history=scene.history[start:],
        ratings=scene.ratings[start:],
        ages=scene.ages[start:],
        behaviours=scene.behaviours[start:],
    )


def shuffled_rows(seed: int, epoch: int, count: int) -> IntArray:
    """``(count,)`` the examples of an epoch in random order."""
    own = epoch_keys(seed, epoch, np.arange(count))
    return np.argsort(uniforms(own, _ROWS)[:, 0], kind="stable")


IGNORED = -100
"""The label of a token without loss, by PyTorch's convention."""
_SORTED_BATCHES = 16
"""So many batches are sorted by length together; more would make the order less random."""

Row = dict[str, Any]


class Examples(Protocol):
    """The examples of a stage.  Each is a function of the epoch and its number alone."""

    def sizes(self, epoch: int) -> IntArray:
        """``(n,)`` roughly how long each example of the epoch is; only the ranks matter."""
        ...

    def row(self, epoch: int, index: int) -> Row:
        """An example in tokens, as the collator of its trainer wants it."""
        ...


class Joined:
    """Examples of several data sets, one after another."""

    def __init__(self, parts: Sequence[Examples]) -> None:
        self._parts = parts
        self._ends = lru_cache(2)(lambda epoch: np.cumsum([len(p.sizes(epoch)) for p in parts]))

    def sizes(self, epoch: int) -> IntArray:
        """``(n,)`` of all parts."""
        return np.concatenate([part.sizes(epoch) for part in self._parts])

    def row(self, epoch: int, index: int) -> Row:
        """An example of the part that the number falls into."""
        ends = self._ends(epoch)
        part = int(np.searchsorted(ends, index, side="right"))
        return self._parts[part].row(epoch, index - (int(ends[part - 1]) if part else 0))


longest = attrgetter("longest")


class Wording:
    """Prompts in tokens, shortened until they fit.

    Args:
        tokenizer: a transformers tokenizer.
        max_length: most tokens of an example.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._encoder = PromptEncoder(tokenizer)

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Ids of a prompt and its options."""
        return self._encoder.encode(prompt)

    def fitted(
        self,
        builder: PromptBuilder,
        words: Callable[..., Prompt],
        scene: Scene,
        *order: tuple[int, ...],
        length: Callable[[EncodedPrompt], int] = longest,
    ) -> EncodedPrompt:
        """The prompt with as much history as ``max_length`` holds; the oldest lines go first.

        Args:
            words: the builder's method that makes the prompt.
            order: of the options; as shown by default.
            length: tokens of the example that is made of the question.

        Raises:
            SceneError: it does not fit even without any history; names the scene.
        """
        for skip in range(builder.history_lines_shown(scene) + 1):
            question = self.encode(words(builder, scene, *order, skip=skip))
            if length(question) <= self.max_length:
                return question
        raise SceneError(
            f"{question.name}: the example has {length(question)} tokens without any history, and "
            f"max_length is {self.max_length}; raise max_length, or use shorter lists"
        )


def sequence(ids: tuple[int, ...], start: int, loss_on: LossOn = "answer") -> Row:
    """A row for language modelling with loss on the tokens from ``start`` on, or on all."""
    start = 0 if loss_on == "everything" else start
    return {"input_ids": list(ids), "labels": [IGNORED] * start + list(ids[start:])}


def padding(tokenizer: Any) -> int:
    """Id of a token that fills short rows; it is masked, so that any will do."""
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(int(i) for i in ids if i is not None)


@dataclass(frozen=True)
class Order:
    """Which example a stage meets when; arrays of equal length N.

    Attributes:
        epochs: ``(N,)`` the epoch that the example is drawn for.
        rows: ``(N,)`` its number within the epoch.
        per_epoch: examples of the first epoch.
    """

    epochs: IntArray
    rows: IntArray
    per_epoch: int

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(
        cls, examples: Examples, *, epochs: float, batch_size: int, most: int | None, seed: int
    ) -> Order:
        """All epochs one after another, each shuffled, batches of similar lengths.

        Args:
            epochs: a fraction takes that share of the last epoch.
            batch_size: examples that are padded to one length.
            most: stop after so many examples.
        """
        parts: list[tuple[IntArray, IntArray, IntArray]] = []
        per_epoch = 0
        for epoch in range(int(np.ceil(epochs))):
            sizes = examples.sizes(epoch)
            per_epoch = per_epoch or len(sizes)
            share = min(epochs - epoch, 1.0)
            rows = shuffled_rows(seed, epoch, len(sizes))[: max(round(share * len(sizes)), 1)]
            parts.append((np.full(len(rows), epoch, np.int64), rows, sizes[rows]))
            if most is not None and sum(len(p[1]) for p in parts) >= most:
                break
        number, rows, sizes = (np.concatenate(column) for column in zip(*parts, strict=True))
        place = _grouped(sizes[:most], batch_size, seed)
        return cls(number[place], rows[place], per_epoch)


def _grouped(sizes: IntArray, batch_size: int, seed: int) -> IntArray:
    """Places in an order in which every ``batch_size`` neighbours have similar sizes.

    Sorting is done within a few batches only, and the sorted batches are shuffled again.
    """
    block = batch_size * _SORTED_BATCHES
    rng = np.random.default_rng((seed, 1))
    places = []
    for start in range(0, len(sizes), block):
        here = start + np.argsort(sizes[start : start + block], kind="stable")
        batches = [here[i : i + batch_size] for i in range(0, len(here), batch_size)]
        # A batch that is not full stays last, or all later ones would be cut elsewhere.
        whole = [b for b in batches if len(b) == batch_size]
        shuffled = [whole[i] for i in rng.permutation(len(whole))]
        places += shuffled + [b for b in batches if len(b) < batch_size]
    return np.concatenate(places) if places else np.zeros(0, np.int64)
