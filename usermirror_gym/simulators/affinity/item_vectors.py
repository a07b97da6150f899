"""What a trained head makes of the lines of items: each line is read by the LLM once.

A line is known by its text: items that read alike share a row, an edited title is another line.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from usermirror_gym.engines.base import Engine, StatePart
from usermirror_gym.errors import RunError
from usermirror_gym.files import load_arrays, save_arrays
from usermirror_gym.progress import Display, in_phase
from usermirror_gym.scenes.words.prompt import PromptBuilder
from usermirror_gym.simulators.affinity.affinity_head import LineVectors
from usermirror_gym.types import PAD, Float32Array, FloatArray, IntArray, Prompt

_FORMAT = 1
_BLOCK = 128
"""Lines per call of the engine; what was read is saved in between."""
_LONG = 256
"""From so many new lines on there is a progress bar."""


class LineReader(Protocol):
    """What makes vectors of lines: an affinity head, or a part of another readout."""

    @property
    def d(self) -> int:
        """Numbers of a vector."""
        ...

    @property
    def parts(self) -> Sequence[StatePart]:
        """What it reads of a line."""
        ...

    @property
    def vectors_digest(self) -> str:
        """Changes with what :meth:`vectors` gives."""
        ...

    def vectors(self, states: Float32Array, lines: Sequence[str]) -> LineVectors:
        """Of n lines, ``states`` is ``(n, F)``."""
        ...


class ItemVectors:
    """Vectors of the items of one data set, read when they are first asked for.

    Args:
        engine: reads the lines.
        builder: words them, as lists show them.
        head: makes vectors of what the engine read.
        cache: folder of the files that keep them; ``None`` keeps nothing.
    """

    def __init__(
        self, engine: Engine, builder: PromptBuilder, head: LineReader, cache: Path | None
    ) -> None:
        self._engine, self._builder, self._head = engine, builder, head
        self._cache = cache
        self._store: VectorStore | None = None
        self._row_of = np.full(1, PAD, np.int64)  # by item; -1: not asked for yet

    def history(self, items: IntArray) -> FloatArray:
        """``(..., d)`` of items as lines of the memory; zeros for padding."""
        return self._columns(items, 0, self._head.d)

    def option(self, items: IntArray) -> FloatArray:
        """``(..., d)`` of items as options; zeros for padding."""
        return self._columns(items, self._head.d, 2 * self._head.d)

    def item_bias(self, items: IntArray) -> FloatArray:
        """``(...)`` of items as options; 0 for padding."""
        return self._columns(items, 2 * self._head.d, 2 * self._head.d + 1)[..., 0]

    def unread(self, items: IntArray) -> IntArray:
        """Which of these items have no vectors yet, ascending."""
        largest = int(items.max(initial=0))
        if largest >= len(self._row_of):
            more = np.full(largest + 1 - len(self._row_of), -1, np.int64)
            self._row_of = np.concatenate([self._row_of, more])
        unread: IntArray = np.unique(items[self._row_of[items] < 0])
        return unread

    def read(self, items: IntArray) -> IntArray:
        """Make the vectors of these items, or take them from the file.

        Args:
            items: ``(n,)`` different ones, as :meth:`unread` gives them.

        Returns:
            ``(n,)`` tokens that were computed for each; 0 if its line was known.
        """
        store, asked = self._known(items)
        unknown = store.unknown(asked.options)
        with _progress(len(unknown)) as told:
            for start in range(0, len(unknown), _BLOCK):
                lines, began = unknown[start : start + _BLOCK], time.perf_counter()
                states = self._engine.item_hidden_states(
                    lines, head=asked.answer_prefix, parts=self._head.parts, progress=told
                )
                store.add(lines, self._table(states, lines), time.perf_counter() - began)
        self._row_of[items] = store.rows(asked.options)
        costs = {line: self._cost(asked, line) for line in unknown}
        return np.array([costs.pop(line, 0) for line in asked.options], np.int64)

    def take(self, items: IntArray, states: Float32Array) -> None:
        """Make the vectors of items whose lines this engine has read before.

        Args:
            items: ``(n,)`` different ones.
            states: ``(n, F)`` what it said of them.
        """
        store, asked = self._known(items)
        first = {line: row for row, line in reversed(list(enumerate(asked.options)))}
        if unknown := store.unknown(asked.options):
            rows = [first[line] for line in unknown]
            store.add(unknown, self._table(states[rows], unknown), 0.0)

    def _known(self, items: IntArray) -> tuple[VectorStore, Prompt]:
        asked = self._builder.item_lines(tuple(items.tolist()))
        if self._store is None:
            self._store = VectorStore(2 * self._head.d + 1, self._file(asked.answer_prefix))
        return self._store, asked

    def _table(self, states: Float32Array, lines: Sequence[str]) -> FloatArray:
        vectors = self._head.vectors(states, lines)
        return np.concatenate([vectors.history, vectors.option, vectors.item_bias[:, None]], axis=1)

    def _cost(self, asked: Prompt, line: str) -> int:
        return self._engine.count_tokens(Prompt((), asked.answer_prefix, (line,)))

    def _columns(self, items: IntArray, start: int, stop: int) -> FloatArray:
        if self._store is None:  # nothing but padding was ever asked for
            return np.zeros((*items.shape, stop - start))
        found: FloatArray = self._store.vectors[self._row_of[items], start:stop]
        return found

    def _file(self, first_words: str) -> Path | None:
        if self._cache is None:
            return None
        engine = self._engine
        told = [_FORMAT, engine.fingerprint, self._head.vectors_digest, first_words]
        key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]
        name = re.sub(r"[^A-Za-z0-9]+", "-", engine.model_id).strip("-")[:40]
        return self._cache / f"{name}-{key}.npz"


@contextmanager
def _progress(lines: int) -> Iterator[Callable[[int], None]]:
    """A bar if it takes long and is not part of something that shows its own."""
    if lines < _LONG or in_phase():
        yield lambda done: None
        return
    with Display().phase("reading items", lines, "items") as told:
        yield told


logger = logging.getLogger(__name__)

_SAVING_SHARE = 0.05
"""Saving may take so much of the time that the new vectors took: a kill loses little, and a large
file is not written at every step."""


class VectorStore:
    """Rows of ``width`` numbers by text; row 0 belongs to no text and is all zeros.

    Args:
        width: numbers of a row.
        path: the file; ``None`` keeps nothing.
    """

    def __init__(self, width: int, path: Path | None) -> None:
        self._path = path
        self._row_of: dict[str, int] = {"": 0}
        self.vectors: FloatArray = np.zeros((1, width))  # float32 numbers, whatever their origin
        self._seen: tuple[int, int] | None = None
        self._unsaved_seconds, self._saving_seconds = 0.0, 0.0
        self._take_from_file()

    def unknown(self, texts: Sequence[str]) -> list[str]:
        """Texts without a row, each once, in order."""
        return [text for text in dict.fromkeys(texts) if _digest(text) not in self._row_of]

    def rows(self, texts: Sequence[str]) -> IntArray:
        """``(n,)`` rows of known texts; raises KeyError for another."""
        return np.array([self._row_of[_digest(text)] for text in texts], np.int64)

    def add(self, texts: Sequence[str], vectors: FloatArray, seconds: float) -> None:
        """Rows for new texts; they are saved as soon as that costs little beside their making.

        Args:
            texts: n different ones without a row.
            vectors: ``(n, width)``, kept in float32 precision.
            seconds: that it took to make them.
        """
        self._append([_digest(text) for text in texts], vectors.astype(np.float32))
        self._unsaved_seconds += seconds
        worth_it = self._saving_seconds <= _SAVING_SHARE * self._unsaved_seconds
        if self._path is not None and worth_it:
            self._save(self._path)

    def _append(self, digests: Sequence[str], vectors: Float32Array) -> None:
        new = [i for i, digest in enumerate(digests) if digest not in self._row_of]
        for i in new:
            self._row_of[digests[i]] = len(self._row_of)
        self.vectors = np.concatenate([self.vectors, vectors[new].astype(np.float64)])

    def _save(self, path: Path) -> None:
        began = time.perf_counter()
        self._take_from_file()  # another process may have written since
        try:
            vectors = self.vectors[1:].astype(np.float32)
            save_arrays(path, digests=np.array([*self._row_of][1:]), vectors=vectors)
            self._seen = _stamp(path)
        except OSError as error:
            logger.warning("what was read of items is not kept: %s", error)
            self._path = None
        self._unsaved_seconds, self._saving_seconds = 0.0, time.perf_counter() - began

    def _take_from_file(self) -> None:
        """Add what the file has and we have not."""
        if self._path is None or (stamp := _stamp(self._path)) in (None, self._seen):
            return
        self._seen = stamp
        try:
            found = load_arrays(self._path, "digests", "vectors")
            digests, vectors = found["digests"], found["vectors"]
            if vectors.shape != (len(digests), self.vectors.shape[1]) or digests.dtype.kind != "U":
                raise ValueError(f"arrays of shape {digests.shape} and {vectors.shape}")
            if vectors.dtype != np.float32 or not np.isfinite(vectors).all():
                raise ValueError(f"{vectors.dtype} numbers, not all finite float32")
        except (RunError, ValueError) as error:
            logger.warning("%s is damaged and is made anew: %s", self._path, error)
            return
        self._append(digests.tolist(), vectors)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when the file does; ``None`` if there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
