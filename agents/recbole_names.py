"""Which RecBole models exist, and which cannot run -- without importing RecBole."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

from usermirror_gym.errors import AgentError, MissingDependencyError, UnknownNameError

_NEEDS_TREE = "it is a wrapper around a tree-boosting package with a training loop of its own"

UNUSABLE: dict[str, str] = {
    "GRU4RecKG": "it needs pretrained entity embeddings",
    "KGAT": "it needs the package dgl, which has no build for this Python and torch",
    "KGIN": "it needs the package torch_scatter, which has no build for this torch",
    "KSR": "it needs pretrained entity embeddings",
    "MCCLK": "it needs the package torch_scatter, which has no build for this torch",
    "S3Rec": "it is pretrained in one run and fine-tuned in another",
    "lightgbm": _NEEDS_TREE,
    "xgboost": _NEEDS_TREE,
}


def unusable_reason(name: str) -> str | None:
    """Why a model that RecBole has cannot run here; ``None`` if there is no known reason."""
    folded = {key.casefold(): why for key, why in UNUSABLE.items()}
    return folded.get(name.casefold())


@cache
def all_models() -> tuple[str, ...]:
    """Names of all models of the installed RecBole, alphabetical."""
    # find_spec does not import RecBole, which would load torch.
    spec = importlib.util.find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("recbole", "dev")
    folder = Path(spec.submodule_search_locations[0]) / "properties" / "model"
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def available_models() -> list[str]:
    """Names of the RecBole models that can be served, alphabetical."""
    return [name for name in all_models() if name not in UNUSABLE]


def canonical_model(name: str) -> str:
    """RecBole's spelling of a model name, whatever its upper and lower case.

    Raises:
        UnknownNameError: RecBole has no such model; suggests the nearest one.
        AgentError: the model is known not to run here; says why.
    """
    if reason := unusable_reason(name):
        raise AgentError(f"RecBole model {name!r} cannot be used: {reason}. Choose another one.")
    for model in available_models():
        if model.casefold() == name.casefold():
            return model
    raise UnknownNameError("RecBole model", name, available_models())
