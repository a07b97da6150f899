"""Save and load a fitted RecBole agent: safetensors for numbers, JSON for the rest, no pickle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from usermirror_gym.agents.recbole.data import Tables
from usermirror_gym.agents.recbole.fit import Built, build, settings_for
from usermirror_gym.agents.recbole.models import NO_TRAINING, canonical_model, check_saved
from usermirror_gym.agents.recbole.shim import contained
from usermirror_gym.agents.saved import TENSORS, loading, read_arrays, save_files
from usermirror_gym.errors import AgentError

if TYPE_CHECKING:
    from usermirror_gym.agents.recbole.agent import RecBoleAgent

_FACTS = ("n_items", "user_features", "item_features")
"""What of the training tables stands in the header; events are tensors."""
_MOST_IDS = 100_000_000
"""Of users or items in a file: every one takes memory."""


def save(agent: RecBoleAgent, built: Built, tables: Tables, folder: Path) -> Path:
    """Write a fitted agent; see :func:`usermirror_gym.agents.saved.save_files`.

    Raises:
        AgentError: also if it has settings that would not be read from a file again.
    """
    check_can_be_saved(agent)
    return save_files(folder, _header(agent, tables), {TENSORS: _tensors(built, tables)})


def load(folder: Path) -> tuple[dict[str, Any], Built, Tables]:
    """Header, model and training tables of a saved agent.

    Raises:
        CheckpointError: a file is missing, damaged, or of another format.
    """
    folder = folder.expanduser()
    with loading(folder) as header:
        rebuilt = _rebuild(header, read_arrays(folder / TENSORS))
    return header, *rebuilt


def check_can_be_saved(agent: RecBoleAgent) -> None:
    """Before its training: raise AgentError if the agent could not be loaded again."""
    try:
        check_saved(agent.model, agent.config)
    except ValueError as error:
        raise AgentError(f"{agent.model} cannot be saved: {error}") from error


def _header(agent: RecBoleAgent, tables: Tables) -> dict[str, Any]:
    return {
        "model": agent.model,
        "config": agent.config,
        # All of them, so that a later change of our defaults cannot change a saved model.
        "settings": settings_for(agent.model, agent.config),
        "seed": agent.seed,
        "fit_seconds": agent.fit_seconds,
        **{name: getattr(tables, name) for name in _FACTS},
    }


def _tensors(built: Built, tables: Tables) -> dict[str, np.ndarray]:
    found = {f"log.{name}": getattr(tables, name) for name in ("users", "items", "ratings")}
    if built.config["model"] in NO_TRAINING:
        for name, value in vars(built.model).items():
            found.update(_flatten(f"solved.{name}", value))
    for name, tensor in built.model.state_dict().items():
        if not tensor.is_sparse:  # adjacency matrices; rebuilt from the log
            found[f"state.{name}"] = tensor.detach().cpu().numpy()
    return found


def _flatten(name: str, value: Any) -> dict[str, np.ndarray]:
    """A solved matrix, dense or sparse, as tensors; anything else gives none."""
    import torch

    if sp.issparse(value):
        csr = sp.csr_matrix(value)
        parts = {"data": csr.data, "indices": csr.indices, "indptr": csr.indptr}
        parts["shape"] = np.array(csr.shape)
        return {f"{name}/{key}": part for key, part in parts.items()}
    if isinstance(value, torch.Tensor):
        return {f"{name}/tensor": value.detach().cpu().numpy()}
    return {f"{name}/dense": np.asarray(value)} if isinstance(value, np.ndarray) else {}


def _rebuild(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> tuple[Built, Tables]:
    import torch

    events, facts = _under(tensors, "log."), {name: header[name] for name in _FACTS}
    tables = Tables(**events, **facts)
    _check_tables(tables)
    model, seed = canonical_model(header["model"]), int(header["seed"])
    settings = check_saved(model, header["settings"])
    check_saved(model, header["config"])
    with contained(seed) as folder:
        solve = model not in NO_TRAINING
        built = build(model, settings, tables, seed, folder, solve=solve)
    if model in NO_TRAINING:
        for name, value in _unflatten(tensors).items():
            if hasattr(type(built.model), name):
                raise ValueError(f"{name!r} is no matrix of {model}")
            setattr(built.model, name, value)
    else:
        state = {n: torch.from_numpy(v) for n, v in _under(tensors, "state.").items()}
        built.model.load_state_dict({**built.model.state_dict(), **state})
    return built, tables


def _check_tables(tables: Tables) -> None:
    """That ids and lengths fit together: they become indices and sizes.

    Raises:
        ValueError: they do not.
    """
    n, users, items = tables.n_items, tables.users, tables.items
    if not (users.shape == items.shape == tables.ratings.shape and users.ndim == 1 and len(users)):
        raise ValueError(f"its log has columns of {users.shape} and {items.shape} values")
    if users.dtype.kind != "i" or items.dtype.kind != "i" or users.min() < 1 or items.min() < 1:
        raise ValueError("its log has ids that are no numbers from 1 on")
    if type(n) is not int or items.max() > n or max(n, users.max()) > _MOST_IDS:
        raise ValueError(f"its log has items up to {items.max()}, users up to {users.max()}, and "
                         f"says that there are {n!r} items")  # fmt: skip
    if not all(len(cells) == n for cells in tables.item_features.values()):
        raise ValueError(f"its features are not of {n} items")


def _under(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}


def _unflatten(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    import torch

    parts: dict[str, dict[str, np.ndarray]] = {}
    for path, value in _under(tensors, "solved.").items():
        name, kind = path.split("/")
        parts.setdefault(name, {})[kind] = value
    solved: dict[str, Any] = {}
    for name, part in parts.items():
        if "data" in part:
            shape = tuple(part["shape"].tolist())
            matrix = sp.csr_matrix((part["data"], part["indices"], part["indptr"]), shape)
            matrix.check_format(full_check=True)  # products do not look where indices lead
            solved[name] = matrix
        else:
            solved[name] = torch.from_numpy(part["tensor"]) if "tensor" in part else part["dense"]
    return solved
