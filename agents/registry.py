"""Agents by name, for the command line and configuration files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from usermirror_gym.agents.base import Agent
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.simulators.base import UserSimulator

_SIMPLE = ("Random", "Pop", "Oracle")
_BANDITS = ("LinUCB", "Thompson")


def available_agents() -> list[str]:
    """Every name that :func:`make_agent` takes: simple agents, bandits, then RecBole's models.

    Agents that are trained in an environment (``usermirror train-agent``) go by their folders.
    """
    from usermirror_gym.agents.recbole.models import available_models

    ours = [*_SIMPLE, *_BANDITS]
    return [*ours, *(m for m in available_models() if m not in ours)]


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
            (:func:`usermirror_gym.train.agent.run.train_agent`), which is named after its run.
            Bandits by name know nothing yet: they learn from what
            :meth:`~usermirror_gym.agents.Agent.observe` is told, in a benchmark nothing.
        seed: for agents that draw or train.
        progress: show a progress bar while a RecBole model trains.
        simulator: whom the oracle asks; other agents ignore it.
        config: options of the oracle (``candidates``, ``source``, ``list_size``), settings of
            the bandit (``width=0.1``), or of the RecBole model (``epochs=5``).

    Raises:
        UnknownNameError: no such agent; suggests the nearest one.
        ConfigError: the oracle without a simulator, an option that the agent does not have, or
            an agent that is trained in the environment and goes by its folder.
        AgentError: a RecBole model that is known not to run; says why.
        CheckpointError: a folder that holds no agent which can be read.
    """
    if _is_folder(spec):
        return _saved(Path(spec), config)
    names = {name.casefold(): name for name in available_agents()}
    name = names.get(spec.strip().casefold())
    if name == "Oracle":
        return _oracle(simulator, config)
    if name in ("Random", "Pop"):
        return _simple(name, seed, config)
    if name in _BANDITS:
        from usermirror_gym.agents.learners.store import agent_class

        return agent_class(name)(seed=seed, **config)
    from usermirror_gym.agents.recbole.models import unusable_reason

    _refuse_untrained(spec.strip())
    if name is None and unusable_reason(spec.strip()) is None:
        raise UnknownNameError("agent", spec, names.values())
    from usermirror_gym.agents.recbole.agent import RecBoleAgent

    return RecBoleAgent(name or spec.strip(), config=config, seed=seed, progress=progress)


def _refuse_untrained(name: str) -> None:
    from usermirror_gym.agents.learners.store import kind_of

    if kind := kind_of(name):
        raise ConfigError(
            f"agent {kind} has to be trained in the environment first: usermirror train-agent "
            f"--algo {kind.lower()}; then name the folder of that run"
        )


def _is_folder(spec: str) -> bool:
    return "/" in spec or Path(spec).is_dir()


def _saved(folder: Path, config: dict[str, Any]) -> Agent:
    from usermirror_gym.agents.learners.store import is_learning_agent, load_agent
    from usermirror_gym.agents.recbole.agent import RecBoleAgent
    from usermirror_gym.agents.saved import HEADER

    if config:
        raise ConfigError(f"{folder} is trained and takes no options, got {sorted(config)}")
    if not (folder / HEADER).is_file() and (folder / "agent" / HEADER).is_file():
        folder = folder / "agent"  # the run's folder means the agent in it
    if (folder / HEADER).is_file() and not is_learning_agent(folder):
        return RecBoleAgent.load(folder)
    return load_agent(folder)


def _simple(name: str, seed: int, config: dict[str, Any]) -> Agent:
    from usermirror_gym.agents.simple import PopAgent, RandomAgent

    if config:
        raise ConfigError(f"agent {name!r} has no options, got {sorted(config)}; leave them out")
    return RandomAgent(seed) if name == "Random" else PopAgent()


def _oracle(simulator: UserSimulator | None, config: dict[str, Any]) -> Agent:
    from usermirror_gym.agents.oracle import OracleAgent

    options = {"candidates", "source", "list_size"}
    if unknown := set(config) - options:
        raise ConfigError(
            f"agent 'Oracle' has no option {sorted(unknown)}; it has {sorted(options)}"
        )
    if simulator is None:
        raise ConfigError("agent 'Oracle' asks the simulated user: pass simulator= to make_agent")
    return OracleAgent(simulator, **config)
