"""The settings of a simulator that is played by an LLM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.scenes.words.prompt import PromptConfig, PromptForm
from usermirror_gym.simulators.readouts.rationale import Thinking
from usermirror_gym.simulators.readouts.utility import (
    RENAMED,
    AffinityWeights,
    ChoiceWeights,
    LikelihoodWeights,
    SessionWeights,
)


class LLMSettings(BaseModel):
    """What presets and checkpoint folders say, and what ``simulator_options`` may override."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    checkpoint: str
    """Folder, GGUF file, hub name, or the default checkpoint's name."""
    adapter: str | None = None
    """Folder of a LoRA adapter to these weights; a simulator's folder implies its own."""
    head: str | None = None
    """options, affinity, session, surrogate: folder of the head; a simulator's folder implies its
    own."""
    readout: Literal[
        "letters", "likelihood", "options", "affinity", "session", "surrogate"
    ] = "letters"  # fmt: skip
    """surrogate: a small network that imitates the simulator named by ``checkpoint``; it takes no
    other settings than ``outside_option`` and ``domain``."""
    form: PromptForm = PromptConfig.form
    history_lines: int = PromptConfig.history_lines
    drop_lines: int = PromptConfig.drop_lines
    max_turns: int = PromptConfig.max_turns
    outside_option: bool = PromptConfig.outside_option
    """False: the choice is forced."""
    permutations: int = 1
    """letters, options: orders of the list that are averaged."""
    rationales: int = Field(default=0, ge=0)
    """letters: so many decision processes are written per list and averaged over; 0: none."""
    rationale_tokens: int = Thinking.max_tokens
    """letters: most tokens of one decision process."""
    temperature: float = ChoiceWeights.temperature
    """letters, options: see ChoiceWeights, for the next one too."""
    position_bias: tuple[float, ...] = ChoiceWeights.position_bias
    conditional: float = LikelihoodWeights.conditional
    """likelihood: see LikelihoodWeights, for the next four and ``outside_utility`` too."""
    unconditional: float = LikelihoodWeights.unconditional
    conditional_per_token: float = LikelihoodWeights.conditional_per_token
    unconditional_per_token: float = LikelihoodWeights.unconditional_per_token
    tokens: float = LikelihoodWeights.tokens
    affinity: float = AffinityWeights.affinity
    """affinity: see AffinityWeights, for the next two and ``outside_utility`` too."""
    item_bias: float = AffinityWeights.item_bias
    inclusive_value: float | None = AffinityWeights.inclusive_value
    outside_utility: float | None = LikelihoodWeights.outside_utility
    """likelihood, affinity, session: utility of *none of these*."""
    match: float = SessionWeights.match
    """session: see SessionWeights, for the next four and ``outside_utility`` too."""
    general: tuple[float, ...] = SessionWeights.general
    far: tuple[float, ...] = SessionWeights.far
    value_match: float = SessionWeights.value_match
    value_general: float = SessionWeights.value_general
    domain: str | None = None
    """What its items were in training, ``"movie"`` say; data of another domain are refused."""
    engine: dict[str, Any] = Field(default_factory=dict)
    """Arguments of :func:`~usermirror_gym.engines.choosing.load_engine`: kind, dtype, device ..."""
    answers: str | None = None
    """File of an :class:`AnswerStore` that keeps what the LLM
    answers; ``default`` is one in the cache folder; by default nothing is kept."""


def current_names(values: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Settings that may have the names of earlier versions, by their present ones.

    Raises:
        ConfigError: one is given by both names.
    """
    for old, new in RENAMED.items():
        if old in values and new in values:
            raise ConfigError(
                f"{where} gives {new!r} twice: {new} = {values[new]!r}, and by its old name "
                f"{old} = {values[old]!r}; leave out {old!r}"
            )
    return {RENAMED.get(key, key): value for key, value in values.items()}


def checked_settings(name: str, *layers: Mapping[str, Any]) -> LLMSettings:
    """Settings of the simulator of that name, those of later layers above those of earlier ones.

    Raises:
        UnknownNameError: a setting that does not exist; suggests the nearest.
        ConfigError: a value that cannot be used, or one setting by an old and a new name.
    """
    where = f"simulator {name!r}"
    values = {k: v for layer in layers for k, v in current_names(layer, where).items()}
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
