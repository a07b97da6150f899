"""Trained parts that come on top of base weights: LoRA adapters and option heads."""

from __future__ import annotations

import hashlib
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usermirror_gym.errors import CheckpointError
from usermirror_gym.foreign import parse_json

if TYPE_CHECKING:
    import torch

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
HEAD_WEIGHTS = "head.safetensors"
_LAYERS = ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save",
           "target_parameters", "rank_pattern", "alpha_pattern")  # fmt: skip
_KEPT = (*_LAYERS, "r", "lora_alpha", "layers_to_transform", "fan_in_fan_out", "use_rslora",
         "use_dora", "bias", "lora_bias", "trainable_token_indices",
         "ensure_weight_tying")  # fmt: skip
"""What is taken from an adapter's configuration: sizes and layers."""
_LEFT_OUT = ("peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision",
             "task_type", "inference_mode", "lora_dropout", "init_lora_weights", "megatron_core",
             "qalora_group_size")  # fmt: skip
"""Names, paths and modules that PEFT would go to, and what says nothing of loaded weights."""
_LAYER = re.compile(r"[\w.^$-]*")
"""PEFT takes names of layers for regular expressions; some of those never end."""
_MOST_RANK = 4096


def find_files(folder: Path, names: tuple[str, ...], what: str) -> list[Path]:
    """The files of a trained part.

    Raises:
        CheckpointError: one of them is not there.
    """
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(
                f"the folder {folder} has no {name}: it holds no {what}. Name the folder of a "
                "checkpoint that was trained with one."
            )
    return [folder / name for name in names]


def adapter_files(folder: Path) -> list[Path]:
    """Configuration and weights of a LoRA adapter; raises CheckpointError if one is absent."""
    return find_files(folder, (ADAPTER_CONFIG, ADAPTER_WEIGHTS), "LoRA adapter")


def head_files(folder: Path) -> list[Path]:
    """Weights of an option head; raises CheckpointError if they are absent."""
    return find_files(folder, (HEAD_WEIGHTS,), "option head")


def content_hash(files: list[Path]) -> str:
    """Eight hexadecimal digits that tell trained parts apart whatever their folders are called."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:8]


def adapter_rank(folder: Path) -> int:
    """Rank of a LoRA adapter, the largest if its layers differ.

    Raises:
        CheckpointError: its configuration cannot be read, or is not that of a LoRA adapter.
    """
    kept = lora_settings(folder)
    return max([kept["r"], *(kept.get("rank_pattern") or {}).values()])


def lora_settings(folder: Path) -> dict[str, Any]:
    """What an adapter's configuration says of sizes and layers; it names no base weights.

    Raises:
        CheckpointError: it cannot be read, is not that of a LoRA adapter, or asks for more.
    """
    path = adapter_files(folder)[0]
    try:
        content = parse_json(path.read_bytes())
        ranks = [content["r"], *(content.get("rank_pattern") or {}).values()]
        if content.get("peft_type") != "LORA" or not all(
            isinstance(rank, int) and 0 < rank <= _MOST_RANK for rank in ranks
        ):
            raise ValueError(f"type {content.get('peft_type')!r}, ranks {ranks}")
        names = [name for key in _LAYERS for name in _texts(content.get(key))]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path} does not tell the rank of a LoRA adapter ({str(error)[:200]}): fetch or save "
            "it again."
        ) from error
    odd = [f"the layers {name[:80]!r}" for name in names if not _LAYER.fullmatch(name)]
    odd += [key for key, v in content.items() if v and key not in (*_KEPT, *_LEFT_OUT)]
    if content.get("init_lora_weights", True) not in (True, False, "gaussian"):
        odd.append("init_lora_weights")  # which would change the base weights
    if odd:
        raise CheckpointError(
            f"{path} asks for {', '.join(odd)[:400]}, and only plain LoRA is read here: merge the "
            "adapter into its base weights, and name those."
        )
    return {key: content[key] for key in _KEPT if key in content}


def _texts(value: Any) -> list[str]:
    """A text, those of a list, or the keys of a mapping."""
    return [value] if isinstance(value, str) else [str(text) for text in value or []]


def merged(model: Any, folder: Path) -> Any:
    """The model with a LoRA adapter (Hu et al., 2021) added to its weights.

    Args:
        model: base weights in float32: in half precision the small updates would be rounded away.

    Raises:
        CheckpointError: the adapter belongs to another base model.
    """
    import peft

    files, settings = adapter_files(folder), lora_settings(folder)
    try:
        # peft warns and goes on with zero updates where a file and a model do not match.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = peft.LoraConfig(**settings, task_type="CAUSAL_LM", inference_mode=True)
            wrapped = peft.PeftModel.from_pretrained(
                model, str(folder), config=config, local_files_only=True, use_safetensors=True
            )
        _check_complete(wrapped, files[1])
        return wrapped.merge_and_unload(safe_merge=True).eval()
    except CheckpointError:
        raise
    except Exception as error:  # peft raises RuntimeError, ValueError, TypeError, KeyError, OSError
        raise CheckpointError(_misfit(folder, " ".join(str(error).split())[:300])) from error


def load_head(place: Path, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight ``(size,)`` and bias ``(1,)`` of an option head, float32.

    Args:
        place: the file, or its folder.
        size: width of the model's hidden states.

    Raises:
        CheckpointError: the file has another content, or belongs to another model.
    """
    from safetensors.torch import load_file

    path = place if place.is_file() else head_files(place)[0]
    try:
        values = load_file(path)
    except Exception as error:  # safetensors raises its own error, OSError, ValueError
        raise CheckpointError(f"cannot read {path}: {error}. Fetch or save it again.") from error
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    if shapes != {"weight": (size,), "bias": (1,)}:
        raise CheckpointError(
            f"{path} holds {shapes}, and this model needs weight ({size},) and bias (1,): take the "
            "head that was trained with it."
        )
    if not all(bool(value.isfinite().all()) for value in values.values()):
        raise CheckpointError(f"{path} holds numbers that are not finite: train it again.")
    return values["weight"].float(), values["bias"].float()


def _check_complete(wrapped: Any, path: Path) -> None:
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    wanted = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    with safe_open(path, framework="pt") as file:
        given = set(file.keys())
    absent, foreign = sorted(wanted.keys() - given), sorted(given - wanted.keys())
    if absent:
        raise CheckpointError(
            _misfit(path.parent, f"it has no update for {len(absent)} layers, {absent[0]!r} first")
        )
    if foreign:
        raise CheckpointError(
            _misfit(path.parent, f"the base has no layer for {foreign[0]!r} ({len(foreign)} such)")
        )


def _misfit(folder: Path, cause: str) -> str:
    return (
        f"the adapter in {folder} does not fit the base weights: {cause}. Load it on the base "
        f"that it was trained on (its {ADAPTER_CONFIG} names it)."
    )
