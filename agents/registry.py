"""Agents by name, for the command line and configuration files."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from usermirror_gym.agents.base import Agent
from usermirror_gym.agents.saved import HEADER, folder_digest
from usermirror_gym.configs.plugins import made, resolve, with_options
from usermirror_gym.errors import ConfigError
from usermirror_gym.simulators.base import UserSimulator

GROUP = "usermirror_gym.agents"
"""Of the entry points by which packages bring agents."""
_OURS = {
    "Random": "simple:RandomAgent",
    "Pop": "simple:PopAgent",
    "Oracle": "oracle:OracleAgent",
    "LinUCB": "learners.bandits:LinUCBAgent",
    "Thompson": "learners.bandits:ThompsonAgent",
}
"""Those that need no training before they are fitted, and where their classes live."""


def available_agents() -> list[str]:
    """Every name that :func:`make_agent` takes: simple agents, bandits, then RecBole's models.

    Agents that are trained in an environment (``usermirror train-agent``) go by their folders.
    """
    from usermirror_gym.agents.recbole.models import available_models

    return [*_OURS, *(m for m in available_models() if m not in _OURS)]


def make_agent(
    spec: str,
    *,
    seed: int = 0,
    progress: bool = True,
    simulator: UserSimulator | None = None,
    **config: Any,
) -> Agent:
    """Build an agent, not yet fitted, by its name (upper and lower case are the same).

    Args:
        spec: ``"Random"``, ``"Pop"``, ``"Oracle"``, ``"LinUCB"``, ``"Thompson"``, the name of any
            RecBole model; or the folder of an agent that was trained
            (:func:`usermirror_gym.train.agent.run.train_agent`), which is named after its run; or
            somebody else's: an entry point of the group ``usermirror_gym.agents``, or
            ``module:Name`` of a class or a function that makes an agent, and gets ``seed``,
            ``progress`` and ``simulator`` if it asks for them, and ``config``.  Options may stand
            behind a name, ``"ItemKNN(k=20, shrink=0)"``: a RecBole model is then called so.
            Bandits by name know nothing yet: they learn from what
            :meth:`~usermirror_gym.agents.Agent.observe` is told, in a benchmark nothing.
        seed: for agents that draw or train.
        progress: show a progress bar while a RecBole model trains.
        simulator: whom the oracle asks; other agents ignore it.
        config: options of the oracle (``candidates``, ``source``, ``list_size``), settings of
            the bandit (``width=0.1``), or of the RecBole model (``epochs=5``).

    Raises:
        UnknownNameError: no such agent; suggests the nearest one.
        ConfigError: the oracle without a simulator, an option that the agent does not have, an
            agent that is trained in the environment and goes by its folder, or somebody else's
            that cannot be imported or is none.
        AgentError: a RecBole model that is known not to run; says why.
        CheckpointError: a folder that holds no agent which can be read.
    """
    if _is_folder(spec):
        return _saved(Path(spec), config)
    names = {name.casefold(): name for name in available_agents()}
    spec, options = with_options("agent", spec)
    config = {**options, **config}
    name = names.get(spec.casefold())
    offered = {"seed": seed, "progress": progress, "simulator": simulator}
    if name == "Oracle" and simulator is None:
        raise ConfigError("agent 'Oracle' asks the simulated user: pass simulator= to make_agent")
    if name in _OURS:
        return _made(name, pkgutil.resolve_name(f"{__package__}.{_OURS[name]}"), offered, config)
    from usermirror_gym.agents.learners.store import kind_of
    from usermirror_gym.agents.recbole.models import unusable_reason

    if kind := kind_of(spec):
        raise ConfigError(
            f"agent {kind} has to be trained in the environment first: usermirror train-agent "
            f"--algo {kind.lower()}; then name the folder of that run"
        )
    if name is None and unusable_reason(spec) is None:
        make = resolve("agent", spec, dict.fromkeys(names.values()), GROUP)
        return _made(spec, make, offered, config)
    from usermirror_gym.agents.recbole.agent import RecBoleAgent

    agent = RecBoleAgent(name or spec, config=config, seed=seed, progress=progress)
    if options:
        written = ", ".join(f"{key}={value}" for key, value in options.items())
        agent.name = f"{agent.model}({written})"
    return agent


def saved_inputs(specs: Iterable[str]) -> dict[str, str]:
    """What tells the trained agents among these names from others; see ``run_folder``."""
    folders = {spec: _agent_folder(Path(spec)) for spec in specs if _is_folder(spec)}
    return {f"agent {spec}": folder_digest(folder) for spec, folder in folders.items()}


def _is_folder(spec: str) -> bool:
    return "/" in spec or Path(spec).is_dir()


def _agent_folder(folder: Path) -> Path:
    """The agent's; the folder of a training means the agent in it."""
    inner = folder / "agent"
    return inner if not (folder / HEADER).is_file() and (inner / HEADER).is_file() else folder


def _made(name: str, make: Any, offered: dict[str, Any], config: dict[str, Any]) -> Agent:
    agent = made(f"agent {name!r}", make, offered, **config) if callable(make) else make
    if not isinstance(agent, Agent):
        lacking = [n for n in ("name", "fit", "recommend", "observe") if not hasattr(agent, n)]
        raise ConfigError(
            f"agent {name!r} is {type(agent).__name__} without {', '.join(lacking)}; see "
            "usermirror_gym.agents.Agent"
        )
    return agent


def _saved(folder: Path, config: dict[str, Any]) -> Agent:
    from usermirror_gym.agents.learners.store import is_learning_agent, load_agent
    from usermirror_gym.agents.recbole.agent import RecBoleAgent

    if config:
        raise ConfigError(f"{folder} is trained and takes no options, got {sorted(config)}")
    folder = _agent_folder(folder)
    if (folder / HEADER).is_file() and not is_learning_agent(folder):
        return RecBoleAgent.load(folder)
    return load_agent(folder)
