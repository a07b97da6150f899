"""Weights of a run: loaded, given adapters, and written as transformers and PEFT read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import load_file, save

from usermirror_gym.engines.adapters import ADAPTER_CONFIG
from usermirror_gym.engines.checkpoints import resolve_checkpoint
from usermirror_gym.engines.local.model_loading import (
    load_model,
    load_tokenizer,
    torch_device,
    torch_dtype,
)
from usermirror_gym.errors import ConfigError, MissingDependencyError, RunError, UnknownNameError
from usermirror_gym.files import read_json, write_bytes, write_json
from usermirror_gym.train.config import LoRA, Precision, TrainConfig


def load_tokenizer_of(config: TrainConfig) -> Any:
    """Tokenizer of the base weights."""
    return load_tokenizer(resolve_checkpoint(config.checkpoint))


def load_trainable(config: TrainConfig, weights: Path | None = None) -> Any:
    """The base weights, ready to be trained; the same seed gives the same adapters.

    What is trained is float32.  Frozen weights are bfloat16 on a GPU if the run says so.

    Args:
        weights: what an earlier stage trained, see :func:`~usermirror_gym.train.loop.model.
            save_trained`; by default training begins at the base weights.

    Raises:
        CheckpointError: there are no such weights.
        RunError: ``weights`` belong to another model.
        UnknownNameError: the model has no layer of a name that ``lora.targets`` gives.
    """
    device = torch_device("auto")
    low = config.lora is not None and device.type == "cuda" and wants_bfloat16(config.precision)
    model = load_model(
        resolve_checkpoint(config.checkpoint),
        torch.bfloat16 if low else torch.float32,
        PartialState().device if device.type == "cuda" else device,  # of several: this process's
    )
    model = _with_adapters(model, config)
    if weights is not None:
        load_trained(model, weights)
    return model


def wants_bfloat16(precision: Precision) -> bool:
    """Whether a GPU computes in bfloat16."""
    if precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return precision == "bfloat16"


def write_weights(config: TrainConfig, trained: Path, folder: Path) -> None:
    """Write what was trained as an adapter, or (merged, or without LoRA) as full weights.

    Args:
        trained: file of :func:`~usermirror_gym.train.loop.model.save_trained`.
        folder: gets ``adapter_config.json`` and ``adapter_model.safetensors``, or
            ``config.json``, ``model.safetensors`` and the tokenizer.
    """
    # Merging rounds if the base is held in bfloat16, hence always float32 and the CPU.
    path = resolve_checkpoint(config.checkpoint)
    model = load_model(path, torch.float32, torch.device("cpu"))
    model = _with_adapters(model, config)
    load_trained(model, trained)
    folder.mkdir(parents=True, exist_ok=True)
    if config.writes_adapter:
        _write_adapter(model, config, folder)
        return
    whole = model.merge_and_unload() if config.lora is not None else model
    # Weights from a GGUF file: transformers believes them to be quantised still.
    whole.hf_quantizer = None
    if hasattr(whole.config, "quantization_config"):
        del whole.config.quantization_config
    whole.to(torch_dtype(config.store)).save_pretrained(folder)
    load_tokenizer(path).save_pretrained(folder)


def _write_adapter(model: Any, config: TrainConfig, folder: Path) -> None:
    # PEFT would look the base model up on the hub to see whether its embeddings grew.
    model.save_pretrained(folder, save_embedding_layers=False)
    for name in ("README.md", ".gitattributes"):
        (folder / name).unlink(missing_ok=True)
    settings = read_json(folder / ADAPTER_CONFIG)
    # PEFT has them as a set, whose order is another one in every process.
    settings["target_modules"] = sorted(settings["target_modules"])
    write_json(folder / ADAPTER_CONFIG, settings)
    path = folder / "adapter_model.safetensors"
    weights = {name: w.to(torch_dtype(config.store)) for name, w in load_file(path).items()}
    write_bytes(path, save(weights, metadata={"format": "pt"}))


def _with_adapters(model: Any, config: TrainConfig) -> Any:
    """The model with what the run trains of it: adapters, or all its weights."""
    if (lora := config.lora) is None:
        return model.requires_grad_(True)
    try:
        from peft import LoraConfig, TaskType, get_peft_model
    except ImportError as error:
        raise MissingDependencyError("peft", "train") from error

    settings = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_targets(model, lora),
        layers_to_transform=None if lora.layers is None else list(_blocks(model, lora.layers)),
        bias="none",
    )
    torch.manual_seed(config.seed)  # of the random half of the adapters
    wrapped = get_peft_model(model, settings)
    # The file says which weights are meant, not where they lie on this machine.
    for own in wrapped.peft_config.values():
        own.base_model_name_or_path = config.checkpoint
        own.inference_mode = False
    return wrapped


def _targets(model: Any, lora: LoRA) -> list[str]:
    """Last parts of the names of the layers that get adapters."""
    head = model.get_output_embeddings()
    linear = sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if module is not head and type(module).__name__ in ("Linear", "Conv1D")
        }
    )
    if lora.targets == "all-linear":
        return linear
    for name in lora.targets:
        if name not in linear:
            raise UnknownNameError("layer in lora.targets", name, linear)
    return list(lora.targets)


def _blocks(model: Any, layers: tuple[int, int]) -> range:
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    if layers[1] >= count:
        raise ConfigError(
            f"lora.layers = {list(layers)}: the model has blocks 0 to {count - 1}; name these"
        )
    return range(layers[0], layers[1] + 1)


def save_trained(model: Any, path: Path) -> Path:
    """All weights that are trained, to the bit; the old file or the whole new one, never less."""
    weights = {name: p.detach().cpu().contiguous() for name, p in _trained(model).items()}
    return write_bytes(path, save(weights))


def load_trained(model: Any, path: Path) -> None:
    """Put the weights of :func:`save_trained` back.

    Raises:
        RunError: the file belongs to another model, or to other LoRA settings.
    """
    saved, own = load_file(path), _trained(model)
    wrong = sorted(saved.keys() ^ own.keys()) or [
        name for name, p in own.items() if p.shape != saved[name].shape
    ]
    if wrong:
        raise RunError(
            f"{path} does not fit the model: {len(wrong)} weights differ, {wrong[0]!r} among "
            "them. It was saved with another base model or other LoRA settings; use a new folder."
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(saved[name])


@contextmanager
def frozen_in_bfloat16(model: Any, *, active: bool) -> Iterator[None]:
    """Inside the block the float32 weights that are not trained are rounded to bfloat16.

    What is trained (LoRA) stays float32.  On CPUs with bfloat16 instructions the large products
    are then two to three times as fast.  The exact weights are kept, and are back afterwards.
    """
    frozen = [p for p in model.parameters() if not p.requires_grad and p.dtype == torch.float32]
    kept = [p.data for p in frozen] if active else []
    for parameter, _ in zip(frozen, kept, strict=False):
        parameter.data = parameter.data.to(torch.bfloat16)
    try:
        yield
    finally:
        for parameter, data in zip(frozen, kept, strict=False):
            parameter.data = data.to(parameter.device)


def _trained(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
