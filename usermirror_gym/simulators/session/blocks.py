"""Transformer blocks of the LLM read what a user did, one position an event.

An event's vector is mapped to the LLM's width, goes through some of its consecutive blocks and its
final norm, and what they say at the newest event is added to the query of the pooled network::

    x_m = v(i_m) @ into / sqrt(d) + mark(rating_m) + age(age_m)     m = 1 .. n, oldest first
    h   = norm(blocks(rest, x_1, ..., x_n))                         causal
    q  += h_n @ out / sqrt(H)                                       out = 0 before training

The roots keep a step of Adam, which moves all numbers of a map by as much, from moving what comes
out by more the more numbers come in.

``rest`` is a position of its own in front: trained blocks attend to their first token where
nothing else fits, and lose their footing without one (Xiao et al., Efficient Streaming Language
Models with Attention Sinks, 2024).  It starts as what the LLM itself has there.

Padding stands behind the newest event, where causal attention never looks, so that no mask is
needed.  Everything here lives on one device, which may be a GPU; what comes in and goes out lives
where the pooled network does.
"""

from __future__ import annotations

import hashlib
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from usermirror_gym.engines.checkpoints import resolve_checkpoint
from usermirror_gym.engines.local.model_loading import (
    load_config,
    load_model,
    torch_device,
    torch_dtype,
)
from usermirror_gym.errors import CheckpointError, ConfigError
from usermirror_gym.simulators.session.session_net import AGES, GAIN, MARKS, Lines
from usermirror_gym.simulators.session.trained_blocks import BlockShape, TrainedBlocks
from usermirror_gym.types import PAD

_SCALE = 2.0
"""Of what adapters add, as alpha / r is elsewhere."""
_SPREAD = 0.02
"""Of random weights, as LLMs begin."""


class BlockReader(nn.Module):
    """See the module.

    Args:
        shape: which blocks, and what of them is trained.
        trunk: the blocks and the norm behind them, see :func:`load_reader`; taken over.
        rest: ``(H,)`` of the position in front.
        dtype: of products of matrices, and of weights that are not trained.
        dropout: share of the events' numbers that are left out in training.
    """

    def __init__(
        self,
        shape: BlockShape,
        trunk: nn.Module,
        rest: Tensor,
        *,
        dtype: torch.dtype = torch.float32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.shape, self.dtype = shape, dtype
        self.base = "" if shape.tune == "whole" else _digest(trunk)
        draw = torch.Generator().manual_seed(shape.seed + 2)
        width = len(rest)
        self.into = nn.Parameter(torch.randn(shape.dim, width, generator=draw))
        self.rest = nn.Parameter(rest.detach().float())
        self.marks = nn.Parameter(torch.zeros(MARKS, width))
        self.ages = nn.Parameter(torch.zeros(AGES, width))
        self.out = nn.Parameter(torch.zeros(width, shape.dim))
        self.dropout = nn.Dropout(dropout)
        self.trunk = trunk.float()
        if shape.tune != "whole":
            _freeze(trunk, dtype)
        if shape.tune == "lora":
            _adapt(trunk, shape.rank, draw)

    def forward(self, lines: Lines, past: Tensor) -> Tensor:
        """``(B, d)`` what is added to the queries.

        Args:
            past: ``(n + 1, d)`` vectors of items as lines of the past.
        """
        items, ages, marks, count = self._newest(lines)
        device = self.out.device
        vectors = self.dropout(embedding(items, past)) * GAIN
        events = vectors.to(device) @ self.into * len(self.into) ** -0.5
        events = events + self.marks[marks.to(device)] + self.ages[ages.to(device)]
        front = self.rest.expand(len(events), 1, -1)
        low = self.dtype != torch.float32
        with torch.autocast(device.type, self.dtype if low else torch.bfloat16, enabled=low):
            hidden = self.trunk(inputs_embeds=torch.cat([front, events], dim=1), use_cache=False)
        last = hidden.last_hidden_state[torch.arange(len(events), device=device), count.to(device)]
        return (last.float() @ self.out * len(self.out) ** -0.5).to(past.device)

    def trained(self) -> TrainedBlocks:
        """What has to be kept of it."""
        weights = {n: t.detach().cpu().float().numpy() for n, t in self.state_dict().items()}
        return TrainedBlocks(self.shape, self.base, weights)

    def maps(self) -> list[nn.Parameter]:
        """What leads into the blocks and out of them, which begins with nothing."""
        return [self.into, self.rest, self.marks, self.ages, self.out]

    def tuned(self) -> list[nn.Parameter]:
        """What is trained of the blocks."""
        return list(self.trunk.parameters())

    def _newest(self, lines: Lines) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Items, ages and marks ``(B, L)`` of the newest events, and how many are real ``(B,)``."""
        have = (lines.items != PAD).sum(dim=1)
        room = min(lines.items.shape[1], self.shape.lines)
        count = have.clamp(max=self.shape.lines)
        place = (have - count)[:, None] + torch.arange(room, device=have.device)
        place = place.clamp(max=max(lines.items.shape[1] - 1, 0))
        items, ages, marks = (c.gather(1, place) for c in (lines.items, lines.ages, lines.marks))
        return items, ages, marks, count


class Adapted(nn.Module):
    """A linear layer and a low-rank update of it (Hu et al., LoRA, 2021), which starts as zero.

    Args:
        base: frozen.
        rank: of the update.
        draw: of its random half.
    """

    def __init__(self, base: nn.Linear, rank: int, draw: torch.Generator) -> None:
        super().__init__()
        self.base = base
        size = base.in_features
        self.down = nn.Parameter(torch.randn(rank, size, generator=draw) * size**-0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, values: Tensor) -> Tensor:
        found: Tensor = self.base(values) + _SCALE * linear(linear(values, self.down), self.up)
        return found


def load_reader(
    checkpoint: str | Path,
    shape: BlockShape,
    *,
    adapter: str | Path | None = None,
    dtype: str = "float32",
    device: str = "auto",
    dropout: float = 0.0,
) -> BlockReader:
    """Blocks of an LLM, before training.

    Args:
        checkpoint: the LLM's weights, see
            :func:`~usermirror_gym.engines.checkpoints.resolve_checkpoint`.
        shape: which blocks.
        adapter: folder of a LoRA adapter that belongs to the LLM.
        dtype, device: as those of an engine.

    Raises:
        CheckpointError: no such weights.
        ConfigError: blocks that the LLM does not have, or that cannot be taken out of it.
    """
    path = resolve_checkpoint(checkpoint)
    trunk = _empty_trunk(path, shape)
    if shape.start == "random":
        rest = _fill_with_noise(trunk, shape.seed)
    else:
        rest = _fill_from(path, trunk, shape, torch_dtype(dtype), adapter)
    reader = BlockReader(shape, trunk, rest, dtype=torch_dtype(dtype), dropout=dropout)
    return reader.to(torch_device(device))


def served_reader(
    checkpoint: str | Path,
    trained: TrainedBlocks,
    *,
    adapter: str | Path | None = None,
    dtype: str = "float32",
    device: str = "auto",
) -> BlockReader:
    """Blocks as training left them.

    Raises:
        CheckpointError: no such weights, or others than those that were trained on.
    """
    shape = trained.shape
    cure = (
        f"Blocks {shape.layers[0]} to {shape.layers[1] - 1} of another model were trained to read "
        "users: name that model, as in --set checkpoint=NAME, or train on this one."
    )
    number, place = torch_dtype(dtype), torch_device(device)
    try:
        if shape.tune == "whole":  # the file has all of them
            trunk = _empty_trunk(resolve_checkpoint(checkpoint), shape)
            rest = torch.from_numpy(trained.weights["rest"])
            reader = BlockReader(shape, trunk, rest, dtype=number).to(place)
        else:
            reader = load_reader(checkpoint, shape, adapter=adapter, dtype=dtype, device=device)
    except (ConfigError, KeyError) as error:
        raise CheckpointError(f"{checkpoint} does not fit the readout: {error}. {cure}") from error
    weights = {name: torch.from_numpy(values) for name, values in trained.weights.items()}
    own = {name: values.shape for name, values in reader.state_dict().items()}
    wrong = sorted(own.keys() ^ weights.keys()) or [n for n in own if own[n] != weights[n].shape]
    if wrong:
        raise CheckpointError(
            f"{checkpoint} does not fit the readout: {len(wrong)} weights differ in name or size, "
            f"{wrong[0]!r} among them. {cure}"
        )
    reader.load_state_dict(weights)
    if reader.base != trained.base:
        raise CheckpointError(
            f"{checkpoint} has other weights (blocks {reader.base}) than the readout was trained "
            f"on ({trained.base}). {cure}"
        )
    return reader.eval()


def _empty_trunk(path: Path, shape: BlockShape) -> Any:
    """The blocks and the norm behind them, as random as transformers makes them."""
    from transformers import AutoModel

    config = deepcopy(load_config(path).get_text_config(decoder=True))
    count, (first, stop) = config.num_hidden_layers, shape.layers
    if stop > count:
        raise ConfigError(
            f"blocks.layers = {list(shape.layers)}: {path.name} has {count} blocks, and the second "
            f"number is the one behind the last that reads; use at most {count}"
        )
    for name, values in list(vars(config).items()):
        if isinstance(values, list | tuple) and len(values) == count:  # one value a block
            setattr(config, name, values[first:stop])
    config.num_hidden_layers = stop - first
    config.vocab_size, config.pad_token_id = 1, None  # no words are read
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # of a GGUF file, whose weights are plain once loaded
    with torch.random.fork_rng(devices=[]):
        trunk: Any = AutoModel.from_config(config, dtype=torch.float32)
    if not isinstance(getattr(trunk, "layers", None), nn.ModuleList) or not hasattr(trunk, "norm"):
        raise ConfigError(
            f"the blocks of {path.name} ({type(trunk).__name__}) cannot be taken out: it has no "
            "'layers' and 'norm', as Llama, Qwen, Mistral and SmolLM have; use one of these"
        )
    trunk.embed_tokens = None
    return trunk


def _fill_from(
    path: Path, trunk: Any, shape: BlockShape, dtype: torch.dtype, adapter: str | Path | None
) -> Tensor:
    """Fill in the LLM's own weights; ``(H,)`` what it has at its first token there."""
    # Read in the precision that is computed in: an LLM of 8B in float32 would fill the memory.
    folder = None if adapter is None else Path(adapter).expanduser()
    model = load_model(path, dtype, torch.device("cpu"), adapter=folder)
    whole, (first, stop) = model.get_decoder(), shape.layers
    trunk.layers.load_state_dict(whole.layers[first:stop].state_dict())
    trunk.norm.load_state_dict(whole.norm.state_dict())
    token = getattr(model.config.get_text_config(decoder=True), "bos_token_id", None) or 0
    with torch.no_grad():
        asked = whole(input_ids=torch.tensor([[token]]), output_hidden_states=True)
    rest: Tensor = asked.hidden_states[first][0, 0].float()
    return rest


def _fill_with_noise(trunk: nn.Module, seed: int) -> Tensor:
    """Fill in random matrices and plain norms; ``(H,)`` of the first position."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, values in sorted(trunk.named_parameters()):
            if values.ndim > 1:
                values.copy_(torch.randn(values.shape, generator=draw) * _SPREAD)
            else:  # norms and biases
                values.fill_(1.0 if "norm" in name else 0.0)
    config: Any = trunk.config
    return torch.randn(config.hidden_size, generator=draw)


def _freeze(trunk: nn.Module, dtype: torch.dtype) -> None:
    """Weights become buffers that no optimizer sees and no file keeps."""
    for module in trunk.modules():
        for name, values in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, values.detach().to(dtype), persistent=False)


def _adapt(trunk: Any, rank: int, draw: torch.Generator) -> None:
    """Every linear layer of the blocks gets an adapter."""
    for block in trunk.layers:
        for module in list(block.modules()):
            for name, layer in list(module.named_children()):
                if isinstance(layer, nn.Linear):
                    setattr(module, name, Adapted(layer, rank, draw))


def _digest(trunk: nn.Module) -> str:
    """Of the weights in bfloat16, so that it is the same in whatever precision they were read."""
    content = hashlib.sha256()
    for name, values in sorted(trunk.named_parameters()):
        low = values.detach().to(torch.bfloat16).contiguous().view(torch.int16)
        content.update(name.encode() + low.numpy().tobytes())
    return content.hexdigest()[:16]
