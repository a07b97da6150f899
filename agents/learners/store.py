"""Trained agents on disk: safetensors for numbers, JSON for the rest; PPO's zip is SB3's own.

agent.json            kind, settings, seed, label, iteration
agent.safetensors     everything that serving needs, the data before T0 included
policy.zip, source/   PPO only: what Stable-Baselines3 writes, and whose shortlist it re-ranks
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usermirror_gym.errors import AgentError, CheckpointError, UnknownNameError
from usermirror_gym.files import replacing_folder, write_json

if TYPE_CHECKING:
    from usermirror_gym.agents.learners.learning import Arrays, LearningAgent

FORMAT = 1
HEADER, TENSORS = "agent.json", "agent.safetensors"
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
    module, _, name = KINDS[known].partition(":")
    home = import_module(f"usermirror_gym.agents.learners.{module}")
    found: type[LearningAgent] = getattr(home, name)
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
    arrays = agent.arrays()
    folder = folder.expanduser().absolute()
    if folder.exists() and not (folder / HEADER).is_file() and any(folder.iterdir()):
        raise AgentError(f"{folder} exists and is not a saved agent; choose another folder")
    with replacing_folder(folder) as new:
        _write_arrays(new / TENSORS, arrays)
        if training:
            _write_arrays(new / _TRAINING, agent.training_arrays())
        agent.write_files(new)
        for name, content in (more or {}).items():
            write_json(new / name, content)
        header = {
            "format": FORMAT, "kind": agent.kind, "seed": agent.seed, "label": agent.label,
            "iteration": agent.iteration, "settings": json.loads(agent.settings.model_dump_json()),
        }  # fmt: skip
        (new / HEADER).write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
    return folder


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
    with _explained(folder):
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        _check_header(folder, header, kind)
        found = agent_class(header["kind"])
        agent = found(seed=header["seed"], **header["settings"])
        agent.read_files(folder)
        agent.take_arrays(_read_arrays(folder / TENSORS))
        agent.label, agent.iteration = header["label"], header["iteration"]
        if training:
            agent.take_training(_read_arrays(folder / _TRAINING))
    agent.explore = training
    agent.trained = not training
    return agent


def is_learning_agent(folder: Path) -> bool:
    """Whether :func:`save_agent` wrote the folder."""
    try:
        return "kind" in json.loads((folder / HEADER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _check_header(folder: Path, header: dict[str, Any], kind: type[LearningAgent] | None) -> None:
    if "kind" not in header:
        raise CheckpointError(f"{folder} holds a RecBole model: use RecBoleAgent.load")
    if header["format"] != FORMAT:
        raise CheckpointError(
            f"{folder} has format {header['format']}, this version reads {FORMAT}; train it again"
        )
    if kind is not None and getattr(kind, "kind", header["kind"]) != header["kind"]:
        raise CheckpointError(
            f"{folder} holds {header['kind']}, not {kind.kind}: use make_agent({str(folder)!r})"
        )


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (CheckpointError, UnknownNameError):
        raise
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} holds no trained agent: {Path(error.filename).name} is missing"
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"the agent in {folder} cannot be read ({type(error).__name__}: {error}); "
            "train it again"
        ) from error


def _write_arrays(path: Path, arrays: Arrays) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({name: np.array(values, order="C") for name, values in arrays.items()}, path)


def _read_arrays(path: Path) -> Arrays:
    from safetensors.numpy import load_file

    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    arrays: Arrays = load_file(path)
    return arrays
