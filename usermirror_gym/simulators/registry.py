"""Simulators by name: classic choosers, presets of ``configs/simulators``, checkpoints."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from usermirror_gym.configs import preset_names, read_preset
from usermirror_gym.data import TimeSplit
from usermirror_gym.engines import load_engine
from usermirror_gym.engines.base import Engine
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.scenes.prompt import PromptBuilder, PromptConfig, PromptForm
from usermirror_gym.scenes.text import domain_text
from usermirror_gym.simulators.base import UserSimulator
from usermirror_gym.simulators.classic import PopularityChooser, UniformChooser
from usermirror_gym.simulators.likelihood import LikelihoodSimulator
from usermirror_gym.simulators.listwise import LettersSimulator
from usermirror_gym.simulators.utility import ChoiceWeights, LikelihoodWeights

DEFAULT_SIMULATOR = "smollm2-likelihood"
CLASSIC = ("popularity", "uniform")


class LLMSettings(BaseModel):
    """What a simulator preset may say, and what ``simulator_options`` may override."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    checkpoint: str
    """Folder, GGUF file, hub name, or the default checkpoint's name."""
    readout: Literal["letters", "likelihood", "options"] = "letters"
    form: PromptForm = "session"
    history_lines: int = 10
    drop_lines: int = 5
    max_turns: int = 10
    outside_option: bool = True
    """False: the choice is forced."""
    permutations: int = 1
    """letters, options: orders of the list that are averaged."""
    temperature: float = 1.0
    """letters, options: see ChoiceWeights, for the next one too."""
    position_bias: tuple[float, ...] = ()
    conditional: float = LikelihoodWeights.conditional
    """likelihood: see LikelihoodWeights, for the next five too."""
    unconditional: float = LikelihoodWeights.unconditional
    conditional_per_token: float = LikelihoodWeights.conditional_per_token
    unconditional_per_token: float = LikelihoodWeights.unconditional_per_token
    tokens: float = LikelihoodWeights.tokens
    outside: float | None = LikelihoodWeights.outside
    engine: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the engine: dtype, device ..."""


def available_simulators() -> list[str]:
    """Names that :func:`make_simulator` knows; any checkpoint's name or folder works too."""
    return sorted([*CLASSIC, *preset_names("simulators")])


def make_simulator(name: str, split: TimeSplit, **options: Any) -> UserSimulator:
    """A simulator by name.

    Args:
        name: one of :func:`available_simulators`, or a checkpoint (a folder, a ``.gguf`` file or
            ``owner/name`` on the Hugging Face hub), which is read by letters unless ``readout``
            says otherwise.
        split: the data whose items and users are talked about.
        options: override the preset's fields (:class:`LLMSettings`), or are the arguments of a
            classic chooser.

    Raises:
        UnknownNameError: no such simulator; suggests the nearest.
        ConfigError: an option does not exist or has a value that cannot be used.
    """
    if name in CLASSIC:
        return _classic(name, split, options)
    if name in preset_names("simulators"):
        settings = _settings(name, {**read_preset("simulators", name), **options})
    elif "/" in name or Path(name).exists():
        settings = _settings(name, {"checkpoint": name, **options})
    else:
        raise UnknownNameError("simulator", name, available_simulators())
    return llm_simulator(settings, split)


def llm_simulator(settings: LLMSettings, split: TimeSplit) -> UserSimulator:
    """The simulator that the settings describe; its weights are loaded at the first question."""
    builder = PromptBuilder(domain_text(split.dataset), _of_settings(PromptConfig, settings))
    if settings.readout == "options":
        raise ConfigError(
            "readout 'options' needs a checkpoint with a trained option head, and this version "
            "has none; use 'likelihood' or 'letters'"
        )
    try:
        engine = _shared_engine(settings.checkpoint, json.dumps(settings.engine, sort_keys=True))
    except TypeError as error:
        raise ConfigError(f"simulator option 'engine' = {settings.engine!r}: {error}") from error
    if settings.readout == "letters":
        return LettersSimulator(
            engine,
            builder,
            permutations=settings.permutations,
            weights=_of_settings(ChoiceWeights, settings),
        )
    weights = _of_settings(LikelihoodWeights, settings)
    if not settings.outside_option:
        weights = replace(weights, outside=None)
    return LikelihoodSimulator(engine, builder, weights)


T = TypeVar("T")


def _of_settings(kind: type[T], settings: LLMSettings) -> T:
    """The dataclass whose fields are settings."""
    return kind(**{f.name: getattr(settings, f.name) for f in fields(kind)})  # type: ignore[arg-type]


@lru_cache(maxsize=2)
def _shared_engine(checkpoint: str, arguments: str) -> Engine:
    """One engine for all who ask alike: several environments do not load the weights again."""
    return load_engine(checkpoint, **json.loads(arguments))


def _settings(name: str, values: dict[str, Any]) -> LLMSettings:
    for key in values:
        if key not in LLMSettings.model_fields:
            raise UnknownNameError(f"option of simulator {name!r}", key, LLMSettings.model_fields)
    try:
        return LLMSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"simulator {name!r}, option {'.'.join(map(str, first['loc']))!r}: {first['msg']}, "
            f"got {first['input']!r}"
        ) from error


def _classic(name: str, split: TimeSplit, options: dict[str, Any]) -> UserSimulator:
    try:
        if name == "uniform":
            return UniformChooser(**options)
        return PopularityChooser(split, **options)
    except TypeError as error:
        raise ConfigError(f"simulator {name!r}: {error}") from error
