"""Trained agents on disk: safetensors for numbers, JSON for the rest, no pickle.

agent.json            kind, settings, seed, label, iteration
agent.safetensors     everything that serving needs, the data before T0 included
source/               PPO only: whose shortlist it re-ranks
"""

from __future__ import annotations

import json
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usermirror_gym.agents.saved import HEADER, TENSORS, loading, read_arrays, save_files
from usermirror_gym.errors import CheckpointError, UnknownNameError
from usermirror_gym.files import write_json
from usermirror_gym.foreign import file_name, parse_json

if TYPE_CHECKING:
    from usermirror_gym.agents.learners.learning import LearningAgent

_TRAINING = "training.safetensors"

KINDS = {
    "LinUCB": "bandits:LinUCBAgent",
    "Thompson": "bandits:ThompsonAgent",
    "SlateQ": "slateq:SlateQAgent",
    "REINFORCE": "reinforce:ReinforceAgent",
    "PPO": "ppo:PPOAgent",
}
"""Where the class of each kind of learning agent lives."""


def kind_of(name: str) -> str | None:
    """Which of :data:`KINDS` is meant, in any case; ``None`` if none is."""
    return {kind.casefold(): kind for kind in KINDS}.get(name.casefold())


def agent_class(kind: str) -> type[LearningAgent]:
    """The class of a learning agent by its name, in any case.

    Raises:
        UnknownNameError: no such agent; suggests the nearest one.
    """
    known = kind_of(kind)
    if known is None:
        raise UnknownNameError("learning agent", kind, KINDS)
    found: type[LearningAgent] = pkgutil.resolve_name(f"{__package__}.{KINDS[known]}")
    return found


def save_agent(
    agent: LearningAgent,
    folder: Path,
    *,
    training: bool = False,
    more: dict[str, Any] | None = None,
) -> Path:
    """Write an agent into ``folder``, which appears when it is whole; returns it.

    Args:
        training: keep also what going on with the training needs.
        more: further JSON files by name.

    Raises:
        AgentError: not fitted, or ``folder`` holds something else.
    """
    arrays = {TENSORS: agent.arrays()}
    if training:
        arrays[_TRAINING] = agent.training_arrays()
    header = {
        "kind": agent.kind, "seed": agent.seed, "label": agent.label,
        "iteration": agent.iteration, "settings": json.loads(agent.settings.model_dump_json()),
    }  # fmt: skip

    def write(new: Path) -> None:
        agent.write_files(new)
        for name, content in (more or {}).items():
            write_json(new / name, content)

    return save_files(folder, header, arrays, write)


def load_agent(
    folder: Path, kind: type[LearningAgent] | None = None, *, training: bool = False
) -> LearningAgent:
    """What :func:`save_agent` wrote; gives its best unless ``training``.

    Args:
        kind: the class that is expected; ``None`` takes any.
        training: ready to go on with its training.

    Raises:
        CheckpointError: missing, damaged, of another kind or format, or saved without what a
            training needs.
    """
    folder = folder.expanduser()
    with loading(folder) as header:
        _check_header(folder, header, kind)
        found = agent_class(header["kind"])
        agent = found(seed=header["seed"], **header["settings"])
        agent.read_files(folder)
        agent.take_arrays(read_arrays(folder / TENSORS))
        agent.label, agent.iteration = header["label"], int(header["iteration"])
        if training:
            agent.take_training(read_arrays(folder / _TRAINING))
    agent.explore = training
    agent.trained = not training
    return agent


def is_learning_agent(folder: Path) -> bool:
    """Whether :func:`save_agent` wrote the folder."""
    try:
        return "kind" in parse_json((folder / HEADER).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _check_header(folder: Path, header: dict[str, Any], kind: type[LearningAgent] | None) -> None:
    if "kind" not in header:
        raise CheckpointError(f"{folder} holds a RecBole model: use RecBoleAgent.load")
    if kind is not None and getattr(kind, "kind", header["kind"]) != header["kind"]:
        raise CheckpointError(
            f"{folder} holds {header['kind']}, not {kind.kind}: use make_agent({str(folder)!r})"
        )
    label = header["label"]
    if not isinstance(label, str) or not file_name(label):
        raise CheckpointError(
            f"the agent saved in {folder} is called {label!r}, which is no name for a file: change "
            f"'label' in its {HEADER}"
        )
