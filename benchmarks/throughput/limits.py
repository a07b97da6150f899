"""What the machine could do at best: products of matrices, and bytes from memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from usermirror_gym.engines import resolve_checkpoint
from usermirror_gym.engines.local.model_loading import load_config, torch_dtype

_REPEATS = 5


@dataclass(frozen=True)
class Machine:
    """Measured here and now.

    Attributes:
        flops: floating point operations a second of the best matrix product.
        bandwidth: bytes a second of a copy, both ways counted.
    """

    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Model:
    """What a forward pass costs.

    Attributes:
        body: weights of the layers, which every token meets.
        head: weights of the output layer.
        bytes: of all weights in memory.
        attention: operations of one token per token that it attends to.
    """

    body: int
    head: int
    bytes: int
    attention: int

    def flops(self, tokens: int, context: float, logits: int) -> float:
        """Of so many computed tokens, with a mean context, and logits at so many positions."""
        return 2.0 * (self.body * tokens + self.head * logits) + self.attention * tokens * context


def measure_machine(device: str, dtype: str, width: int) -> Machine:
    """The best of several products of the model's sizes and of a large one."""
    kind = torch_dtype(dtype)
    shapes = [(512, width, 3 * width), (1024, width, 3 * width), (2048, 2048, 2048)]
    if device.startswith("cuda"):
        shapes.append((8192, 8192, 8192))
    flops = max(_product(device, kind, *shape) for shape in shapes)
    return Machine(flops, _copy(device))


def describe_model(checkpoint: str, dtype: str) -> Model:
    """From the configuration of a Llama-like checkpoint."""
    config: Any = load_config(Path(resolve_checkpoint(checkpoint))).get_text_config(decoder=True)
    d, layers = config.hidden_size, config.num_hidden_layers
    size = getattr(config, "head_dim", None) or d // config.num_attention_heads
    queries = config.num_attention_heads * size
    keys = (getattr(config, "num_key_value_heads", None) or config.num_attention_heads) * size
    body = layers * (d * (2 * queries + 2 * keys) + 3 * d * config.intermediate_size)
    head = config.vocab_size * d
    tied = 1 if config.tie_word_embeddings else 2
    item = torch.empty(0, dtype=torch_dtype(dtype)).element_size()
    return Model(body, head, (body + tied * head) * item, layers * 4 * queries)


def _product(device: str, dtype: torch.dtype, m: int, k: int, n: int) -> float:
    a = torch.randn(m, k, device=device).to(dtype)
    b = torch.randn(k, n, device=device).to(dtype)
    return 2.0 * m * k * n / _best(device, lambda: a @ b)


def _copy(device: str) -> float:
    source = torch.zeros(64 * 1024**2, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return 2.0 * source.nbytes / _best(device, lambda: target.copy_(source))


def _best(device: str, run: Callable[[], Any]) -> float:
    """Seconds of the fastest of several batches."""
    seconds = []
    for _ in range(_REPEATS):
        begin, count = time.perf_counter(), 0
        while count == 0 or time.perf_counter() - begin < 0.2:
            run()
            count += 1
            if device.startswith("cuda") and count % 16 == 0:
                torch.cuda.synchronize()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - begin) / count)
    return min(seconds)
