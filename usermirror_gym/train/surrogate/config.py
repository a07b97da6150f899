"""Settings of a distillation: which questions the teacher is asked, and what learns from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from usermirror_gym.configs.settings import FolderName, Positive, Settings, Share, read_as
from usermirror_gym.engines.base import StatePart
from usermirror_gym.simulators import DEFAULT_SIMULATOR


class QuestionSettings(Settings):
    """Which scenes the teacher is asked about: sessions with agents, played in the environment."""

    total: Annotated[int, Field(ge=100)] = 100_000
    """Questions to the teacher in all, those of the report included."""
    agents: Annotated[tuple[str, ...], Field(min_length=1)] = ("Random", "Pop", "ItemKNN")
    """Whose lists are learned from, in equal parts; names of agents."""
    strangers: tuple[str, ...] = ("EASE",)
    """Agents whose lists are in the report alone."""
    slate_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (5,)
    """Lengths of the lists, in equal parts."""
    steps: Positive = 8
    """Lists of a session; nobody leaves earlier."""
    wander: Share = 0.5
    """Share of the lists that are not an agent's first K, but K of its first 5 K."""
    episodes: Positive = 16
    """Sessions whose answers are written to the disk together: so many times ``steps`` questions
    are lost at most when the run is killed."""
    history_size: Positive = 50
    min_history: Annotated[int, Field(ge=0)] = 5
    """Users with fewer interactions before T0 start no session."""
    validation: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Share of the questions that say when to stop; other sessions of the users of training."""
    report: Annotated[float, Field(gt=0, lt=0.5)] = 0.15
    """Share of the questions that the report is made of."""
    new_users: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the users that nothing is learned from."""


class NetworkSettings(Settings):
    """See :mod:`usermirror_gym.simulators.surrogate.surrogate_net`."""

    dim: Positive = 64
    tastes: Positive = 2
    lines: Positive = 20
    hidden: Annotated[int, Field(ge=0)] = 16
    """Units of the small networks; 0: an option's numbers are a weighted sum."""
    items: Literal["teacher", "none"] = "teacher"
    """``teacher``: vectors start from what the teacher's LLM says of the items' lines, cut to
    ``dim`` principal components, or, with ``history`` and a teacher of the session readout, from
    the teacher's own, and its way of reading histories with them; ``none``: from random numbers."""
    history: Annotated[int, Field(ge=0)] = 0
    """Newest lines of history and session that are read with ages and ratings, for teachers that
    read them; 0: the memory's ``lines`` alone."""
    follow: Annotated[int, Field(ge=0)] = 0
    """Numbers of an item's vector that say what the memory's lines are followed by."""
    once: bool = False
    """What was taken before is all but never taken again, which need not be learned; for teachers
    of whom this is true, and with ``history`` only."""
    parts: Annotated[tuple[StatePart, ...], Field(min_length=1)] = ((15, "mean"),)
    """Hidden states that are read of a line, unless the teacher reads some itself (affinity)."""

    @model_validator(mode="after")
    def _tastes_divide(self) -> NetworkSettings:
        if self.dim % self.tastes:
            raise ValueError(f"dim must be a multiple of tastes, got {self.dim} and {self.tastes}")
        if not self.history and (self.once or self.follow):
            raise ValueError("once and follow go with history: set it above 0, or leave them out")
        return self


class FitSettings(Settings):
    """AdamW on the divergence of the student's probabilities from the teacher's."""

    epochs: Positive = 40
    batch_size: Positive = 256
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    """Of the first epoch; falls to a hundredth of it along a cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    patience: Positive = 6
    """Stop when so many epochs in a row were no better on the validation questions; the best
    weights are kept."""


class SurrogateConfig(Settings):
    """A whole distillation."""

    name: FolderName
    seed: int = 0
    teacher: str = DEFAULT_SIMULATOR
    """A simulator's name or folder."""
    teacher_options: dict[str, Any] = Field(default={})
    dataset: str = "ml-100k"
    data_folder: str | None = None
    questions: QuestionSettings = QuestionSettings()
    network: NetworkSettings = NetworkSettings()
    fit: FitSettings = FitSettings()


def read_surrogate_config(
    name_or_path: str | Path, overrides: dict[str, Any] | None = None
) -> SurrogateConfig:
    """A preset of ``configs/surrogates`` by name, or a YAML file by path, with ``overrides`` like
    ``{"questions.total": 2000}``; raises as :func:`~usermirror_gym.configs.settings.read_as`."""
    return read_as(SurrogateConfig, "surrogates", name_or_path, overrides)
