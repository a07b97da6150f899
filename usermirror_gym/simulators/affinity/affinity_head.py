"""The trained head of the affinity readout: from hidden states of lines to tastes and offers.

One file, ``affinity.safetensors``: ``mean`` (F,), ``history`` (F, d), ``option`` (F, d), ``bias``
(F,) and ``lags`` (L,), float16 or float32, ``floor`` (1,), float32, and the parts as JSON in its
metadata.  If the head remembers single lines: ``known`` (n,), uint64, ``known_history`` (n, e),
``known_option`` (n, e) and ``known_appeal`` (n,), like the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
from pydantic import Field, NonNegativeInt, TypeAdapter, ValidationError

from usermirror_gym.engines.adapters import find_files
from usermirror_gym.engines.base import Pool, StatePart
from usermirror_gym.errors import CheckpointError, UnknownNameError
from usermirror_gym.files import write_bytes
from usermirror_gym.foreign import parse_json
from usermirror_gym.types import BoolArray, Float32Array, FloatArray

AFFINITY_WEIGHTS = "affinity.safetensors"
HeadDtype = Literal["float16", "float32"]
_ARRAYS = ("mean", "history", "option", "bias", "lags")
_FLOOR = "floor"
_PARTS: TypeAdapter[tuple[StatePart, ...]] = TypeAdapter(
    Annotated[tuple[tuple[NonNegativeInt, Pool], ...], Field(min_length=1)]
)
_KNOWN, _REMEMBERED = "known", ("known_history", "known_option", "known_appeal")


class LineVectors(NamedTuple):
    """What a head makes of n lines."""

    history: FloatArray  # (n, d) as a line of the memory
    option: FloatArray  # (n, d) as an option
    item_bias: FloatArray  # (n,) as an option, whoever looks at it


@dataclass(frozen=True, eq=False)
class LineMemory:
    """Vectors of lines that are known by their text, in ascending order of its digest.

    Attributes:
        digests: ``(n,)`` uint64, see :func:`line_digests`; ascending, each once.
        history: ``(n, e)``.
        option: ``(n, e)``.
        item_bias: ``(n,)``.

    Raises:
        CheckpointError: shapes that do not fit together, or digests out of order.
    """

    digests: np.ndarray
    history: Float32Array
    option: Float32Array
    item_bias: Float32Array

    def __post_init__(self) -> None:
        for name in ("history", "option", "item_bias"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.float32))
        n = self.digests.shape
        shapes = [self.history.shape, self.option.shape, self.item_bias.shape]
        fits = all(shape[:1] == n for shape in shapes) and shapes[0] == shapes[1]
        if len(n) != 1 or 0 in n or not fits:
            raise CheckpointError(
                f"what the affinity head remembers has shapes {n} and {shapes}, and must be (n,), "
                "(n, e), (n, e), (n,)"
            )
        if self.digests.dtype != np.uint64 or (np.diff(self.digests.astype(object)) <= 0).any():
            raise CheckpointError(
                "the lines that the affinity head remembers must be ascending uint64 digests"
            )

    @classmethod
    def of(
        cls, lines: Sequence[str], history: FloatArray, option: FloatArray, item_bias: FloatArray
    ) -> LineMemory:
        """Of n lines and their vectors; of lines that read alike the first is kept."""
        digests, rows = np.unique(line_digests(lines), return_index=True)
        kept = (values[rows].astype(np.float32) for values in (history, option, item_bias))
        return cls(digests, *kept)

    @property
    def e(self) -> int:
        """Numbers that are remembered of a line, for each of its two parts."""
        return self.history.shape[1]

    def knows(self, lines: Sequence[str]) -> BoolArray:
        """``(len(lines),)`` which of these are remembered."""
        digests = line_digests(lines)
        rows = np.minimum(np.searchsorted(self.digests, digests), len(self.digests) - 1)
        known: BoolArray = self.digests[rows] == digests
        return known

    def recall(self, lines: Sequence[str]) -> LineVectors:
        """Of these lines, ``(len(lines), e)`` and ``(len(lines),)``; zeros for unknown ones."""
        digests = line_digests(lines)
        rows = np.minimum(np.searchsorted(self.digests, digests), len(self.digests) - 1)
        known = self.digests[rows] == digests
        held = (np.where(known, values[rows].T, 0.0).T.astype(np.float64)
                for values in (self.history, self.option, self.item_bias))  # fmt: skip
        return LineVectors(*held)


def line_digests(lines: Sequence[str]) -> np.ndarray:
    """``(n,)`` uint64: the first eight bytes of the SHA-256 of each text."""
    whole = b"".join(hashlib.sha256(line.encode()).digest()[:8] for line in lines)
    return np.frombuffer(whole, "<u8").astype(np.uint64)


@dataclass(frozen=True, eq=False)
class AffinityHead:
    """How much an option goes with a memory, by a bilinear form in the states of their lines.

    With x the F numbers that an engine gives for a line
    (:meth:`~usermirror_gym.engines.base.Engine.item_hidden_states`)::

        h = (x - mean) @ history        o = (x - mean) @ option        b = (x - mean) @ bias
        taste = sum over m < n of softmax(lags[:n])[m] * h(m), newest line first
        affinity = log(max(taste . o, 0) + floor)            item bias = b

    What is remembered of a line gives h and o more numbers, and is added to b.  n is the number of
    lines of the memory, at most ``len(lags)``; without any the affinity is 0.  The lines vote: one
    that goes well with the option outweighs several that say nothing, as in item-item recommenders;
    the floor is what an option has that no line speaks for.  No line speaks for itself: of an
    option that is in the memory already, ``taste`` leaves that line out.

    Attributes:
        parts: which states x is made of, in order.
        mean: ``(F,)``; F is a multiple of the number of parts.
        history: ``(F, d)``.
        option: ``(F, d)``.
        bias: ``(F,)``.
        lags: ``(L,)`` logit of the newest line's weight, of the one before it, and so on.
        floor: above 0.
        memory: of single lines, those of training; without it the words alone count.

    Raises:
        CheckpointError: shapes that do not fit together, or numbers that cannot be used.
    """

    parts: tuple[StatePart, ...]
    mean: Float32Array
    history: Float32Array
    option: Float32Array
    bias: Float32Array
    lags: Float32Array
    floor: float = 0.5
    memory: LineMemory | None = None

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.float32))
        object.__setattr__(self, "floor", float(np.float32(self.floor)))  # as its file holds it
        object.__setattr__(self, "parts", _checked_parts(self.parts))
        _check_arrays(self)

    @property
    def d(self) -> int:
        """Numbers of a taste."""
        return self.history.shape[1] + (0 if self.memory is None else self.memory.e)

    @property
    def history_lines(self) -> int:
        """Most lines of the memory that count."""
        return len(self.lags)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of everything."""
        return self._digest(_ARRAYS, self.floor)

    @property
    def vectors_digest(self) -> str:
        """Sixteen hexadecimal digits of what :meth:`vectors` depends on: neither lags nor floor."""
        return self._digest(_ARRAYS[:-1])

    def _digest(self, names: tuple[str, ...], *numbers: float) -> str:
        content = hashlib.sha256(json.dumps([self.parts, *numbers]).encode())
        for name in names:
            content.update(f"{name} {getattr(self, name).shape}".encode())
            content.update(getattr(self, name).tobytes())
        if self.memory is not None:
            for values in vars(self.memory).values():
                content.update(str(values.shape).encode() + values.tobytes())
        return content.hexdigest()[:16]

    def vectors(self, states: Float32Array, lines: Sequence[str]) -> LineVectors:
        """What the head makes of n lines.

        Args:
            states: ``(n, F)``, what the engine says of them.
            lines: their texts.

        Raises:
            CheckpointError: the states are those of another model.
        """
        if states.shape[1:] != self.mean.shape:
            raise CheckpointError(
                f"the affinity head reads {len(self.mean)} numbers of a line, and this model gives "
                f"{states.shape[1]}: use it with the weights that it was trained on."
            )
        centred = states.astype(np.float64) - self.mean
        told = LineVectors(centred @ self.history, centred @ self.option, centred @ self.bias)
        if self.memory is None:
            return told
        known = self.memory.recall(lines)
        return LineVectors(
            np.concatenate([told.history, known.history], axis=1),
            np.concatenate([told.option, known.option], axis=1),
            told.item_bias + known.item_bias,
        )

    def lag_weights(self, lines: int) -> FloatArray:
        """See :func:`lag_weights`.

        Args:
            lines: at most ``history_lines``.
        """
        return lag_weights(self.lags[:lines])

    def affinity(self, match: FloatArray) -> FloatArray:
        """Of products ``taste . o``, any shape."""
        return risen(match, self.floor)


def lag_weights(lags: FloatArray | Float32Array) -> FloatArray:
    """``(n + 1, n)``: row m weighs the m newest of n lines, zeros behind; it sums to one."""
    lines = len(lags)
    seen = np.tril(np.ones((lines + 1, lines), np.bool_), k=-1)
    logits = np.where(seen, lags.astype(np.float64), -np.inf)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-1e300))
    total = np.maximum(shares.sum(axis=1, keepdims=True), 1e-300)
    weights: FloatArray = shares / total
    return weights


def risen(match: FloatArray, floor: float) -> FloatArray:
    """Affinity of products ``taste . o``, any shape."""
    affinity: FloatArray = np.log(np.maximum(match, 0.0) + floor)
    return affinity


def read_head(folder: str | Path) -> AffinityHead:
    """The affinity head in a simulator's folder.

    Raises:
        CheckpointError: there is none, or the file has another content; names the file.
    """
    from safetensors import safe_open

    (path,) = find_files(Path(folder).expanduser(), (AFFINITY_WEIGHTS,), "affinity head")
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            parts = parse_json((file.metadata() or {})["parts"])
    except Exception as error:  # safetensors' own error, OSError, TypeError, KeyError, ValueError
        raise CheckpointError(
            f"cannot read {path} as an affinity head ({type(error).__name__}: {error}). Fetch or "
            "save it again."
        ) from error
    known = {name: arrays.pop(name) for name in (_KNOWN, *_REMEMBERED) if name in arrays}
    if arrays.keys() != {*_ARRAYS, _FLOOR} or len(known) not in (0, 1 + len(_REMEMBERED)):
        arrays |= known
        raise CheckpointError(
            f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}, and an affinity head is "
            f"{', '.join([*_ARRAYS, _FLOOR])}: take the file that was trained for this readout."
        )
    if arrays[_FLOOR].size != 1:
        raise CheckpointError(f"{path}: floor has shape {arrays[_FLOOR].shape}, and must be (1,)")
    try:
        memory = LineMemory(*known.values()) if known else None
        return AffinityHead(parts, **{**arrays, _FLOOR: arrays[_FLOOR].item()}, memory=memory)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def write_head(folder: str | Path, head: AffinityHead, dtype: HeadDtype = "float32") -> Path:
    """Write ``affinity.safetensors``, whole or not at all.

    Args:
        folder: made if absent.
        head: what was trained.
        dtype: ``float16`` halves the file.

    Returns:
        the file.

    Raises:
        UnknownNameError: another dtype.
        CheckpointError: a number that float16 cannot hold.
    """
    from safetensors.numpy import save

    if dtype not in get_args(HeadDtype):
        raise UnknownNameError("dtype of an affinity head", dtype, get_args(HeadDtype))
    with np.errstate(over="ignore"):
        arrays = {name: getattr(head, name).astype(dtype) for name in _ARRAYS}
        if head.memory is not None:
            of = (head.memory.history, head.memory.option, head.memory.item_bias)
            arrays |= {n: a.astype(dtype) for n, a in zip(_REMEMBERED, of, strict=True)}
    path = Path(folder) / AFFINITY_WEIGHTS
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise CheckpointError(
                f"{path}: {name} holds numbers beyond the range of {dtype}: write float32."
            )
    arrays[_FLOOR] = np.array([head.floor], np.float32)
    if head.memory is not None:
        arrays[_KNOWN] = head.memory.digests
    return write_bytes(path, save(arrays, {"parts": json.dumps(head.parts)}))


def _checked_parts(parts: Any) -> tuple[StatePart, ...]:
    """Parts as they come from JSON; whether a model has these layers only the engine knows."""
    try:
        return _PARTS.validate_python(parts)
    except ValidationError as error:
        raise CheckpointError(
            f"parts = {parts!r} must be pairs of a layer and a pool ({', '.join(get_args(Pool))}), "
            "for example [[12, 'mean']]"
        ) from error


def _check_arrays(head: AffinityHead) -> None:
    size, d = head.mean.shape[:1], head.history.shape[1:]
    wanted = {"mean": size, "history": size + d, "option": size + d, "bias": size}
    shapes = {name: getattr(head, name).shape for name in _ARRAYS}
    fits = all(shapes[name] == wanted[name] for name in wanted) and len(size) == len(d) == 1
    if not fits or len(shapes["lags"]) != 1 or 0 in (*size, *d, *shapes["lags"]):
        raise CheckpointError(
            f"the arrays of the affinity head have shapes {shapes}, and must be mean (F,), history "
            "(F, d), option (F, d), bias (F,), lags (L,)"
        )
    if len(head.mean) % len(head.parts):
        raise CheckpointError(
            f"the affinity head reads {len(head.mean)} numbers of {len(head.parts)} parts, which "
            "cannot be of equal width"
        )
    numbers = {name: getattr(head, name) for name in _ARRAYS}
    if head.memory is not None:
        numbers |= {f"memory.{name}": v for name, v in vars(head.memory).items()}
    for name, values in numbers.items():
        if not np.isfinite(values).all():
            raise CheckpointError(
                f"{name} of the affinity head holds numbers that are not finite: train it again"
            )
    if not 0 < head.floor < np.inf:
        raise CheckpointError(
            f"floor of the affinity head must be above 0 and finite, got {head.floor}: train it "
            "again"
        )
