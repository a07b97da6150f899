"""What training leaves of an LLM's blocks that read users; see :mod:`.blocks`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from usermirror_gym.errors import ConfigError
from usermirror_gym.types import Float32Array

Tune = Literal["lora", "whole", "frozen"]
"""Low-rank adapters are trained beside the blocks, or all their weights, or nothing of them."""
Start = Literal["pretrained", "random"]
"""The blocks begin as the LLM has them, or as noise of the same shapes, which is a control."""


@dataclass(frozen=True)
class BlockShape:
    """Which blocks read, and how.

    Attributes:
        dim: d, numbers of an item's vector.
        layers: the first block, counted from 0, and the one behind the last.
        tune: what of them is trained.
        start: what they begin as.
        rank: of the adapters.
        lines: newest events that they read.
        seed: of all that begins at random.
    """

    dim: int
    layers: tuple[int, int]
    tune: Tune = "lora"
    start: Start = "pretrained"
    rank: int = 8
    lines: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.layers[0] < self.layers[1] or min(self.dim, self.rank, self.lines) < 1:
            raise ConfigError(f"{self} cannot be: blocks go from low to high, sizes are 1 and more")


@dataclass(frozen=True, eq=False)
class TrainedBlocks:
    """What is added to the base weights, which come from their own checkpoint.

    Attributes:
        shape: which blocks.
        base: digest of the blocks as they were before training; empty if ``weights`` has all of
            them.
        weights: by name: the maps, and adapters or whole blocks.
    """

    shape: BlockShape
    base: str
    weights: dict[str, Float32Array]

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of everything."""
        content = hashlib.sha256(repr((self.shape, self.base)).encode())
        for name in sorted(self.weights):
            content.update(name.encode() + self.weights[name].tobytes())
        return content.hexdigest()[:16]
