"""Agents by name, for the command line and configuration files."""

from __future__ import annotations

from typing import Any

from usermirror_gym.agents.base import Agent
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.simulators.base import UserSimulator

_SIMPLE = ("Random", "Pop", "Oracle")


def available_agents() -> list[str]:
    """Every name that :func:`make_agent` takes: the simple agents, then RecBole's models."""
    from usermirror_gym.agents.recbole_names import available_models

    return [*_SIMPLE, *(m for m in available_models() if m not in _SIMPLE)]


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
        spec: ``"Random"``, ``"Pop"``, ``"Oracle"`` or the name of any RecBole model.
        seed: for agents that draw or train.
        progress: show a progress bar while a RecBole model trains.
        simulator: whom the oracle asks; other agents ignore it.
        config: options of the oracle (``candidates``, ``source``, ``list_size``), or settings of
            the RecBole model (``epochs=5``).

    Raises:
        UnknownNameError: no such agent; suggests the nearest one.
        ConfigError: the oracle without a simulator, or an option that the agent does not have.
        AgentError: a RecBole model that is known not to run; says why.
    """
    names = {name.casefold(): name for name in available_agents()}
    name = names.get(spec.strip().casefold())
    if name == "Oracle":
        return _oracle(simulator, config)
    if name in ("Random", "Pop"):
        return _simple(name, seed, config)
    from usermirror_gym.agents.recbole_names import unusable_reason

    if name is None and unusable_reason(spec.strip()) is None:
        raise UnknownNameError("agent", spec, names.values())
    from usermirror_gym.agents.recbole_agent import RecBoleAgent

    return RecBoleAgent(name or spec.strip(), config=config, seed=seed, progress=progress)


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
