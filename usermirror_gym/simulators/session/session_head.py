"""What a trained session readout knows of items, and its file.

One file, ``session.safetensors``: the weights of :class:`SessionNet` under ``net/``; of lines of
training ``known`` (n,) uint64 (``line_digests``), ``known_past`` (n, d), ``known_option`` (n, d),
``known_bias`` (n,); if what follows what is part of it, ``follow/history`` and ``follow/option``
(n, e) and ``follow/lags`` (L,); and, if other lines can be read, ``mean`` (F,), ``past`` (F, d),
``option`` (F, d) and ``bias`` (F,), which make the same of what the LLM says of them.  If blocks of
the LLM read users, what was trained of them stands under ``blocks/``.  Large arrays may be float16.
Its metadata has sizes, parts of the LLM's states, profile features and the floor.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, TypeAdapter

from usermirror_gym.engines.adapters import find_files
from usermirror_gym.engines.base import Pool, StatePart
from usermirror_gym.errors import CheckpointError
from usermirror_gym.files import write_bytes
from usermirror_gym.foreign import parse_json
from usermirror_gym.simulators.affinity.affinity_head import LineMemory, LineVectors
from usermirror_gym.simulators.session.trained_blocks import BlockShape, TrainedBlocks
from usermirror_gym.simulators.surrogate.profile_codes import ProfileFeature
from usermirror_gym.types import Float32Array

if TYPE_CHECKING:
    from usermirror_gym.simulators.session.session_net import SessionNet

SESSION_WEIGHTS = "session.safetensors"
_KNOWN = ("known", "known_past", "known_option", "known_bias")
_WORDS = ("mean", "past", "option", "bias")
_FOLLOW = ("history", "option", "lags")


@dataclass(frozen=True, eq=False)
class LineMap:
    """From what an LLM says of a line to its vectors; linear, see :class:`SessionHead`."""

    parts: tuple[StatePart, ...]
    mean: Float32Array  # (F,)
    past: Float32Array  # (F, d)
    option: Float32Array  # (F, d)
    bias: Float32Array  # (F,)

    @property
    def d(self) -> int:
        """Numbers of a vector."""
        return self.past.shape[1]

    @cached_property
    def vectors_digest(self) -> str:
        """Sixteen hexadecimal digits of everything."""
        content = hashlib.sha256(json.dumps(self.parts).encode())
        for name in _WORDS:
            content.update(getattr(self, name).tobytes())
        return content.hexdigest()[:16]

    def vectors(self, states: Float32Array, lines: Sequence[str]) -> LineVectors:
        """Of n lines.

        Args:
            states: ``(n, F)``.
            lines: their texts, which say nothing more.

        Raises:
            CheckpointError: the states are those of another model.
        """
        if states.shape[1:] != self.mean.shape:
            raise CheckpointError(
                f"the session readout reads {len(self.mean)} numbers of a line, and this model "
                f"gives {states.shape[1]}: use it with the weights that it was trained on."
            )
        centred = states.astype(np.float64) - self.mean
        return LineVectors(centred @ self.past, centred @ self.option, centred @ self.bias)


@dataclass(frozen=True, eq=False)
class Follow:
    """What follows what, in closed form: of the lines of training, what an
    :class:`~usermirror_gym.simulators.affinity.affinity_head.AffinityHead` makes of them.

    Attributes:
        history, option: ``(n, e)``, rows as those of ``SessionHead.known``.
        lags: ``(L,)`` logits of the newest lines.
        floor: what an option has that no line speaks for.
    """

    history: Float32Array
    option: Float32Array
    lags: Float32Array
    floor: float


@dataclass(frozen=True, eq=False)
class SessionHead:
    """All that training leaves.

    Attributes:
        net: reads users.
        known: vectors of the lines of training.
        words: makes those of others; without it an unknown line has zeros.
        profiles: what is read of a user.
        follow: what the newest lines are followed by; ``None``: the network alone says it.
        blocks: of the LLM, which read users too; ``None``: the pooled network alone does.
    """

    net: SessionNet
    known: LineMemory
    words: LineMap | None = None
    profiles: tuple[ProfileFeature, ...] = ()
    follow: Follow | None = None
    blocks: TrainedBlocks | None = None

    def __post_init__(self) -> None:
        d = self.net.shape.dim
        shapes = [self.known.history.shape[1]]
        if self.words is not None:
            shapes += [self.words.past.shape[1], self.words.option.shape[1]]
        if self.blocks is not None:
            shapes.append(self.blocks.shape.dim)
        if set(shapes) != {d}:
            raise CheckpointError(f"vectors of {shapes} numbers, and the network reads {d}")

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of everything."""
        content = hashlib.sha256(repr((self.net.shape, self.profiles)).encode())
        for name, values in self.net.state_dict().items():
            content.update(name.encode() + values.detach().numpy().tobytes())
        for values in vars(self.known).values():
            content.update(values.tobytes())
        if self.words is not None:
            content.update(self.words.vectors_digest.encode())
        if self.follow is not None:
            for name in (*_FOLLOW, "floor"):
                content.update(np.asarray(getattr(self.follow, name)).tobytes())
        if self.blocks is not None:
            content.update(self.blocks.digest.encode())
        return content.hexdigest()[:16]


def write_session(
    folder: str | Path, head: SessionHead, dtype: Literal["float16", "float32"] = "float16"
) -> Path:
    """Write ``session.safetensors``, whole or not at all.

    Args:
        folder: made if absent.
        head: what was trained.
        dtype: of the vectors; the network is float32.

    Returns:
        the file.

    Raises:
        CheckpointError: a number that cannot be stored.
    """
    from safetensors.numpy import save

    net = {f"net/{n}": t.detach().numpy() for n, t in head.net.state_dict().items()}
    known = head.known
    large = {"known_past": known.history, "known_option": known.option,
             "known_bias": known.item_bias}  # fmt: skip
    if head.words is not None:
        large |= {name: getattr(head.words, name) for name in _WORDS}
    if head.follow is not None:
        large |= {f"follow/{name}": getattr(head.follow, name) for name in _FOLLOW}
    if head.blocks is not None:
        for name, values in head.blocks.weights.items():
            # Of what an LLM has at its first token some numbers are beyond float16.
            (large if values.ndim > 1 else net)[f"blocks/{name}"] = values
    with np.errstate(over="ignore"):
        arrays = {name: values.astype(dtype) for name, values in large.items()} | net
    path = Path(folder) / SESSION_WEIGHTS
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise CheckpointError(f"{path}: {name} holds numbers beyond {dtype}: train again")
    arrays["known"] = known.digests
    about: dict[str, Any] = {
        "shape": asdict(head.net.shape),
        "parts": None if head.words is None else head.words.parts,
        "profiles": [asdict(feature) for feature in head.profiles],
        "floor": None if head.follow is None else head.follow.floor,
    }
    if head.blocks is not None:
        about["blocks"] = {"shape": asdict(head.blocks.shape), "base": head.blocks.base}
    contiguous = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    return write_bytes(path, save(contiguous, {"session": json.dumps(about)}))


def read_session(folder: str | Path) -> SessionHead:
    """What :func:`write_session` wrote.

    Raises:
        CheckpointError: there is none, or the file has another content; names the file.
    """
    import torch
    from safetensors import safe_open

    from usermirror_gym.simulators.session.session_net import SessionNet, SessionShape

    (path,) = find_files(Path(folder).expanduser(), (SESSION_WEIGHTS,), "session readout")
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = parse_json((file.metadata() or {})["session"])
        net = SessionNet(TypeAdapter(SessionShape).validate_python(about["shape"]))
        weights = {
            name.removeprefix("net/"): torch.from_numpy(values)
            for name, values in arrays.items() if name.startswith("net/")
        }  # fmt: skip
        net.load_state_dict(weights)
        for name, values in arrays.items():
            if not np.isfinite(values).all():
                raise CheckpointError(f"{name} holds numbers that are not finite")
        known = LineMemory(*(arrays[name] for name in _KNOWN))
        words = None
        if about["parts"] is not None:
            parts = _PARTS.validate_python(about["parts"])
            words = LineMap(parts, *(arrays[name].astype(np.float32) for name in _WORDS))
        profiles = TypeAdapter(tuple[ProfileFeature, ...]).validate_python(about["profiles"])
        follow = None
        if (floor := about["floor"]) is not None:
            history, option, lags = (arrays[f"follow/{n}"].astype(np.float32) for n in _FOLLOW)
            if not 0 < float(floor) < np.inf or len(history) != len(known.digests):
                raise CheckpointError(f"floor {floor} and {len(history)} lines of what follows")
            follow = Follow(history, option, lags, float(floor))
        blocks = _blocks(about["blocks"], arrays) if "blocks" in about else None
        return SessionHead(net.eval(), known, words, profiles, follow, blocks)
    except Exception as error:  # safetensors' and torch's own errors, OSError, TypeError, KeyError
        raise CheckpointError(
            f"cannot read {path} as a session readout ({type(error).__name__}: {error}). Fetch or "
            "train it again."
        ) from error


def _blocks(about: dict[str, Any], arrays: dict[str, Any]) -> TrainedBlocks:
    weights = {
        name.removeprefix("blocks/"): values.astype(np.float32)
        for name, values in arrays.items() if name.startswith("blocks/")
    }  # fmt: skip
    shape = TypeAdapter(BlockShape).validate_python(about["shape"])
    ranks = {values.shape[0] for name, values in weights.items() if name.endswith(".down")}
    if shape.tune == "lora" and ranks != {shape.rank}:
        raise CheckpointError(f"adapters of ranks {sorted(ranks)}, and rank = {shape.rank}")
    return TrainedBlocks(shape, str(about["base"]), weights)


_PARTS: TypeAdapter[tuple[StatePart, ...]] = TypeAdapter(
    Annotated[tuple[tuple[NonNegativeInt, Pool], ...], Field(min_length=1)]
)
