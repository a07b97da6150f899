"""Checkpoints with random weights: throughput does not depend on their values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from usermirror_gym.engines import DEFAULT_CHECKPOINT, resolve_checkpoint
from usermirror_gym.engines.checkpoints import cache_folder

_ROPE = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0,
         "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    # As the published config.json of Llama-3.2-3B says.
    "llama-3b": {
        "vocab_size": 128_256, "hidden_size": 3072, "intermediate_size": 8192,
        "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8,
        "head_dim": 128, "max_position_embeddings": 131_072, "tie_word_embeddings": True,
        "rope_parameters": _ROPE,
    },
    "tiny": {
        "vocab_size": 49_152, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
        "max_position_embeddings": 4096, "tie_word_embeddings": True,
    },
}  # fmt: skip


def random_checkpoint(shape: str, dtype: str) -> Path:
    """A folder with random weights of that shape and SmolLM2's tokenizer, made once."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from usermirror_gym.engines.local.model_loading import load_tokenizer, torch_dtype

    folder = cache_folder() / "random-shapes" / f"{shape}-{dtype}"
    if (folder / "tokenizer_config.json").is_file():
        return folder
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM._from_config(
            LlamaConfig(**SHAPES[shape]), dtype=torch_dtype(dtype)
        )
    model.save_pretrained(folder)
    load_tokenizer(resolve_checkpoint(DEFAULT_CHECKPOINT)).save_pretrained(folder)
    return folder
