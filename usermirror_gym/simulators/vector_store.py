"""Vectors of lines in memory and in one file: known by the line's text, made once.

The file is written whole.  What two processes have made is put together, what is damaged is made
anew, and a folder that cannot be written costs time at the next start and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from usermirror_gym.files import replacing
from usermirror_gym.types import Float32Array, FloatArray, IntArray

logger = logging.getLogger(__name__)

_SAVING_SHARE = 0.05
"""Saving may take so much of the time that the new vectors took: a kill loses little, and a large
file is not written at every step."""
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, BadZipFile)
"""What numpy raises for a file that is none of ours, cut, or changed (its members are checked)."""


class VectorStore:
    """Rows of ``width`` numbers by text; row 0 belongs to no text and is all zeros.

    Args:
        width: numbers of a row.
        path: the file; ``None`` keeps nothing.
    """

    def __init__(self, width: int, path: Path | None) -> None:
        self._path = path
        self._digests: list[str] = [""]
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
            self._row_of[digests[i]] = len(self._digests)
            self._digests.append(digests[i])
        self.vectors = np.concatenate([self.vectors, vectors[new].astype(np.float64)])

    def _save(self, path: Path) -> None:
        began = time.perf_counter()
        self._take_from_file()  # another process may have written since
        try:
            with replacing(path) as file:
                np.savez(
                    file,
                    digests=np.array(self._digests[1:]),
                    vectors=self.vectors[1:].astype(np.float32),
                )
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
            with np.load(self._path, allow_pickle=False) as content:
                digests, vectors = content["digests"], content["vectors"]
            if vectors.shape != (len(digests), self.vectors.shape[1]) or digests.dtype.kind != "U":
                raise ValueError(f"arrays of shape {digests.shape} and {vectors.shape}")
            if vectors.dtype != np.float32 or not np.isfinite(vectors).all():
                raise ValueError(f"{vectors.dtype} numbers, not all finite float32")
        except _UNREADABLE as error:
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
