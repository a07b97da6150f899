"""Weights, tokenizer and configuration of a checkpoint through transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from usermirror_gym.engines.checkpoints import cure
from usermirror_gym.errors import CheckpointError, ConfigError, UnknownNameError
from usermirror_gym.foreign import file_name, parse_json

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of that name.

    Raises:
        UnknownNameError: not one of float32, bfloat16, float16.
    """
    if name not in DTYPES:
        raise UnknownNameError("dtype", name, DTYPES)
    return DTYPES[name]


def torch_device(name: str) -> torch.device:
    """``auto`` is the first GPU if there is one, else the CPU.

    Raises:
        ConfigError: torch does not know or cannot use the device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r} asked for, but torch sees no GPU: use device='cpu'.")
    return device


def load_tokenizer(path: Path) -> Any:
    """Tokenizer of a folder or GGUF file."""
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, path)


def load_config(path: Path) -> Any:
    """Configuration of a folder or GGUF file."""
    from transformers import AutoConfig

    return _load(AutoConfig, path)


def load_model(
    path: Path, dtype: torch.dtype, device: torch.device, *, adapter: Path | None = None
) -> Any:
    """A causal LM in eval mode on its device.

    Args:
        adapter: folder of a LoRA adapter that is added to the weights, in float32.

    Raises:
        CheckpointError: the files cannot be read as a causal LM, weights are missing, or the
            adapter belongs to others.
    """
    from transformers import AutoModelForCausalLM

    first = dtype if adapter is None else torch.float32
    model, report = _load(
        AutoModelForCausalLM, path, dtype=first, output_loading_info=True, use_safetensors=True
    )
    if missing := sorted(report["missing_keys"]):
        # transformers would go on with random numbers in their place.
        raise CheckpointError(
            f"{path} lacks {len(missing)} of the model's weights, {missing[0]!r} among them. "
            f"{cure(path)}"
        )
    if adapter is not None:
        from usermirror_gym.engines.adapters import merged

        model = merged(model.to(device), adapter).to(dtype)
    return model.to(device).eval()


def context_length(config: Any) -> int:
    """The most tokens the model takes, from its configuration."""
    text = config.get_text_config(decoder=True)
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        if getattr(text, name, None):
            return int(getattr(text, name))
    return 1 << 20  # recurrent models name no limit


def exact_tree_length(config: Any) -> int:
    """The longest question whose attention is full attention in every layer.

    Sliding windows and chunks are full attention up to their width; masks of our own would widen
    them beyond it.
    """
    text = config.get_text_config(decoder=True)
    if set(getattr(text, "layer_types", None) or ["?"]) == {"full_attention"}:
        return context_length(config)
    widths = [getattr(text, n, None) for n in ("sliding_window", "attention_chunk_size")]
    return min([context_length(config), *(int(w) for w in widths if w)])


def _load(factory: Any, path: Path, **kwargs: Any) -> Any:
    folder = path.parent if path.is_file() else path
    _check_folder(folder, path)
    kwargs |= {"gguf_file": path.name} if path.is_file() else {}
    try:
        with without_transformers_bars():
            # Without a word on it transformers asks on the terminal, and runs what it is told to.
            return factory.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, **kwargs
            )
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, SafetensorError
        if "trust_remote_code" in str(error):
            raise CheckpointError(
                f"{path} brings code of its own (auto_map in config.json or "
                "tokenizer_config.json), and foreign code is not run here. Use a checkpoint whose "
                "architecture transformers knows by itself."
            ) from None
        raise CheckpointError(
            f"cannot load {path} with {factory.__name__}: {error}. {cure(path)}"
        ) from error


def _check_folder(folder: Path, path: Path) -> None:
    """Refuse what transformers would follow out of the folder, or run."""
    try:
        bad = _leads_out(folder)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        bad = str(error)[:200]
    if bad:
        raise CheckpointError(
            f"cannot load {path}: {bad}. Use another checkpoint, or save it again. {cure(path)}"
        )


def _leads_out(folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return "an adapter lies beside the weights (adapter_config.json), and names others"
    for index in folder.glob("*.safetensors.index.json"):
        for name in parse_json(index.read_bytes()).get("weight_map", {}).values():
            if not (file_name(str(name)) and str(name).endswith(".safetensors")):
                return f"{index.name} names the weights {str(name)[:80]!r}"
    if (config := folder / "config.json").is_file():
        for name, value in parse_json(config.read_bytes()).items():
            # Kernels are programs of the hub, OWNER/NAME.
            if name.endswith("_implementation") and "/" in str(value):
                return f"config.json names a program, {name} = {str(value)[:80]!r}"
            if name == "transformers_weights" and not str(value).endswith(".safetensors"):
                return f"config.json names the weights {str(value)[:80]!r}"
    return ""


@contextmanager
def without_transformers_bars() -> Iterator[None]:
    """Without the progress bars of transformers, which end up in the middle of ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
