"""The settings of a training run: one YAML file, read and checked before anything is done."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from usermirror_gym.configs.settings import FolderName, Positive, Settings, Share, read_as
from usermirror_gym.corpus.config import BuildConfig, SceneSettings, SourceSettings
from usermirror_gym.engines.base import StatePart
from usermirror_gym.errors import UnknownNameError
from usermirror_gym.scenes.words.prompt import PromptConfig
from usermirror_gym.simulators.session.trained_blocks import Start, Tune

Objective = Literal["next_item", "letters", "options", "rationale", "dpo"]
Readout = Literal["likelihood", "letters", "options", "affinity", "session"]
Precision = Literal["float32", "bfloat16", "auto"]
LossOn = Literal["answer", "everything"]


class LoRA(Settings):
    """Low-rank adapters (Hu et al., LoRA, 2021): the base weights stay as they are."""

    r: Positive = 16
    """Rank."""
    alpha: Positive = 32
    """The update is scaled by ``alpha / r``."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get an adapter: ``[q_proj, v_proj]``."""
    layers: tuple[int, int] | None = None
    """First and last transformer block, counted from 0, that gets an adapter; all by default."""

    @model_validator(mode="after")
    def _layers_ascend(self) -> LoRA:
        if self.layers and not 0 <= self.layers[0] <= self.layers[1]:
            raise ValueError(f"layers must go from low to high, got {self.layers}")
        return self


class Stage(Settings):
    """One training after another: SFT, then DPO, for example."""

    objective: Objective
    """``next_item``: histories as plain text.  ``letters``: loss on the right letter.
    ``options``: softmax of a linear head over the lines of the list.  ``rationale``: loss on
    rationale and letter.  ``dpo``: preference pairs (Rafailov et al., 2023)."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    max_steps: Positive | None = None
    """Stop after so many optimizer steps, whatever the epochs."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    batch_size: Positive = 4
    """Examples of one forward pass, per process."""
    accumulation: Positive = 1
    """Forward passes of one optimizer step."""
    warmup: Share = 0.03
    """Share of the steps in which the learning rate rises."""
    scheduler: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls afterwards."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    max_length: Positive = 1024
    """Most tokens of an example; the oldest history lines go first."""
    history: tuple[Annotated[int, Field(ge=0)], Positive] | None = None
    """letters, options: range of history lines shown, drawn anew in every epoch; by default what
    the scenes have.  next_item: windows have at least and at most so many lines."""
    loss_on: LossOn = "answer"
    """``everything`` trains on the question as well."""
    alone: Share = 0.05
    """next_item: share of the windows that become one line without profile and history, which is
    what the unconditional part of the readout asks."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """dpo: how strongly the reference model holds."""
    head_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """options: of the head; as ``learning_rate`` by default."""
    eval_every: Annotated[float, Field(ge=0)] = 0.25
    """Validation log-loss after so many epochs, and at the end; 0: only at the end."""
    patience: Positive | None = None
    """Stop when so many evaluations in a row were no better than the best, whose weights are kept;
    ``None`` keeps the last weights."""
    validation: Positive = 400
    """Validation examples of an evaluation, at most."""
    save_every: Positive = 200
    """Optimizer steps between the checkpoints from which a killed run goes on."""

    @model_validator(mode="after")
    def _history_ascends(self) -> Stage:
        if self.history and self.history[0] > self.history[1]:
            raise ValueError(f"history must go from low to high, got {self.history}")
        return self


class Affinity(Settings):
    """The head of the readout ``affinity``; see :mod:`usermirror_gym.train.affinity_head`."""

    parts: Annotated[tuple[StatePart, ...], Field(min_length=1)]
    """Hidden states that a line is known by: ``[[8, mean], [22, last]]``; layer 0 is the
    embeddings, ``last`` the token of the line break."""
    rank: Positive = 64
    """Numbers of a taste that come from the words."""
    ridge: Annotated[float, Field(ge=0)] = 3e-3
    """Penalty, against the largest squared singular value of the states.  Less learns the items of
    training by heart, by whatever tells them apart, and says nonsense of others."""
    memory: Annotated[int, Field(ge=0)] = 0
    """Numbers more that are remembered of each item of training; 0: nothing is."""
    window: Positive = 40
    """Two choices of a user belong together if at most so many lie between them and one less."""
    decay: Annotated[float, Field(ge=0)] = 0.5
    """The further apart, the less: ``distance ** -decay``."""
    backwards: Annotated[float, Field(ge=0)] = 0.2
    """What came before counts so much against what came after."""
    norm_power: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Counts are divided by ``(n_i n_j) ** norm_power``."""
    lag_decay: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the m-th newest line of the memory: ``m ** -lag_decay``."""
    floor: Annotated[float, Field(gt=0)] = 0.5
    """What an option has that no line speaks for; a chance meeting has 1."""
    refit: bool = True
    """After calibration on the validation scenes, fit the head again on all choices before T0."""
    store: Literal["float16", "float32"] = "float16"
    """Format of the written head."""


class Blocks(Settings):
    """Blocks of the LLM that read users; see :mod:`usermirror_gym.simulators.session.blocks`."""

    layers: tuple[Annotated[int, Field(ge=0)], Positive]
    """The first block, counted from 0, and the one behind the last: ``[12, 16]`` are four."""
    tune: Tune = "lora"
    """What is trained of them: low-rank adapters; all weights; nothing (``frozen``).  The maps into
    them and out of them always are."""
    start: Start = "pretrained"
    """``random``: noise of the same shapes in place of the LLM's weights, a control."""
    rank: Positive = 8
    """lora: of the adapters, which every linear layer gets."""
    lines: Positive = 64
    """Newest events that they read; the pooled network reads them all."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of adapters or whole blocks; the maps learn as fast as the rest of the readout."""
    steps: Positive | None = None
    """They join for the last so many steps, once the pooled network, which costs little, has
    learned alone; ``null``: for all."""

    @model_validator(mode="after")
    def _layers_ascend(self) -> Blocks:
        if self.layers[0] >= self.layers[1]:
            raise ValueError(
                f"blocks.layers = {list(self.layers)} is no block: the second number is the one "
                "behind the last, as in [12, 16]"
            )
        return self


class Session(Settings):
    """The readout ``session``; see :mod:`usermirror_gym.train.session.fit`."""

    words: Literal["llm", "noise", "metadata", "none"] = "llm"
    """What items are known by: what the LLM says of their lines; noise in its place, or their
    categories and year, which are controls; nothing."""
    parts: Annotated[tuple[StatePart, ...], Field(min_length=1)] = (
        (8, "mean"), (15, "mean"), (22, "last"),
    )  # fmt: skip
    """llm: hidden states that a line is known by, as in ``affinity``."""
    components: Positive = 128
    """llm, noise: numbers of them that are used, the strongest directions."""
    ids: bool = True
    """Whether items of training have what their words leave open."""
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the items whose words must do alone, anew in every step."""
    dim: Positive = 64
    """Numbers of an item's vector."""
    tastes: Positive = 2
    """Ways to weigh the lines of the past; ``dim`` is a multiple."""
    lines: Positive = 1000
    """Newest lines of a history that are read."""
    follow_lines: Positive = 10
    """Newest lines whose followers count, if the recipe has ``affinity`` too."""
    blocks: Blocks | None = None
    """Blocks of the LLM, fine-tuned, that read the newest events beside the pooled network."""
    most_lines: Positive = 250
    """The longest history of a training step."""
    next_lines: Positive = 50
    """Likewise of one that predicts what came next, where the newest lines tell most."""
    profile: bool = True
    """Whether the user's profile is read."""
    appeal: bool = True
    """Whether features that are not personal are read: popularity as an opener and of late, mean
    rating, age (:mod:`usermirror_gym.data.appeal`). Never where the log has lists of its own, which
    tell what is taken of what is shown."""
    steps: Annotated[int, Field(ge=0)] = 1200
    """Steps on what was taken."""
    next_share: Share = 0.5
    """Of them that predict what came next; the others what goes together, without its order."""
    opener_share: Share = 0.0
    """Of all of them that predict what was taken after a pause of an hour and more."""
    batch_size: Positive = 160
    """Users of one such step."""
    list_lines: Positive = 50
    """The longest history of a step on the log's own lists."""
    list_steps: Annotated[int, Field(ge=0)] = 300
    """Steps on the log's own lists, where it has any; they come last."""
    list_sessions: Share = 0.5
    """Share of the lists whose user's newest lines are told as those of a session are, just taken
    and without a rating: a log whose lists are hours apart has none, and an environment does."""
    list_batch_size: Positive = 2048
    """Lists of one such step."""
    list_learning_rate: Annotated[float, Field(gt=0)] = 5e-3
    """Of the steps on lists."""
    list_penalty: Annotated[float, Field(ge=0)] = 20.0
    """Of squared numbers of all vectors, against the sum over all lists: without it the lists are
    soon known by heart."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    refit: bool = True
    """After calibration on the validation scenes, train again on all choices before T0."""
    store: Literal["float16", "float32"] = "float16"
    """Format of the written vectors."""

    @model_validator(mode="after")
    def _learns_something(self) -> Session:
        if self.dim % self.tastes:
            raise ValueError(f"dim = {self.dim} is no multiple of tastes = {self.tastes}")
        if not self.ids and self.words == "none":
            raise ValueError("without ids and words nothing tells items apart")
        if not self.steps and not self.list_steps:
            raise ValueError("steps and list_steps are both 0: nothing would be learned")
        return self


class DataSettings(Settings):
    """What is trained on: a finished build, or the settings of one that the run makes itself."""

    build: str | None = None
    """Folder of a finished ``usermirror data build``."""
    sources: tuple[SourceSettings, ...] = ()
    """Raw data sets."""
    scenes: SceneSettings = SceneSettings()
    """Which scenes; not for a finished build."""

    @model_validator(mode="after")
    def _one_of_both(self) -> DataSettings:
        if (self.build is None) == (not self.sources):
            raise ValueError("give either 'build' (a folder) or 'sources', not both or none")
        if self.build is not None and self.scenes != SceneSettings():
            raise ValueError("a finished build has its scenes: take 'scenes' out, or 'build'")
        return self


class Calibration(Settings):
    """Fitting the weights of the readout on validation scenes."""

    scenes: Positive | None = None
    """At most so many; all by default."""
    position_bias: bool = True
    """letters, options: one number per position, whatever is left of a liking for positions."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Scores are of users that the weights were not fitted on, in so many rounds."""


class TrainConfig(Settings):
    """A whole run."""

    name: FolderName
    seed: int = 0
    checkpoint: str
    """Base weights: folder, GGUF file, hub name, or the default checkpoint's name."""
    data: DataSettings
    readout: Readout
    """How the simulator is asked; see :mod:`usermirror_gym.simulators`."""
    prompt: dict[str, Any] = Field(default={})
    """Fields of :class:`~usermirror_gym.scenes.words.prompt.PromptConfig`."""
    permutations: Positive = 1
    """letters, options: orders of the list that the simulator averages over."""
    lora: LoRA | None = LoRA()
    """``null``: all weights are trained."""
    stages: tuple[Stage, ...] = ()
    """Trainings of the LLM's weights, one after another; none only with ``affinity`` or
    ``session``."""
    affinity: Affinity | None = None
    """readout affinity: its head, fitted when all stages are done.  readout session: what is
    followed by what, in closed form, as one number more of every option."""
    session: Session | None = None
    """readout session: its network, trained when all stages are done."""
    precision: Precision = "auto"
    """``auto``: bfloat16 on a GPU that has it, else float32."""
    gradient_checkpointing: bool = False
    """Compute activations twice to save memory."""
    merge: bool = False
    """Add the adapter to the base weights, so that the checkpoint needs no base."""
    store: Literal["float32", "bfloat16", "float16"] = "float32"
    """Format of the written weights; half the size, and calibrated as written."""
    calibration: Calibration = Calibration()

    @field_validator("prompt")
    @classmethod
    def _prompt_can_be_used(cls, values: dict[str, Any]) -> dict[str, Any]:
        known = [f.name for f in fields(PromptConfig)]
        for name in values:
            if name not in known:
                raise UnknownNameError("prompt setting", name, known)
        try:
            PromptConfig(**values)
        except TypeError as error:  # a text where a number must be
            raise ValueError(f"{error}") from error
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        if self.merge and self.lora is None:
            raise ValueError("without an adapter (lora: null) there is nothing to merge")
        for name in ("affinity", "session"):
            given = getattr(self, name) is not None
            part = name == "affinity" and self.readout == "session"  # whose closed form it is
            if (self.readout == name) != given and not (given and part):
                raise ValueError(f"the readout {name!r} and the settings {name!r} need each other")
        if not self.stages and self.affinity is None and self.session is None:
            raise ValueError(
                "stages is empty, and without 'affinity' or 'session' there is nothing to train"
            )
        if self.merge and not self.stages:
            raise ValueError("without stages there is nothing to merge")
        last = self.stages[-1].objective if self.stages else None
        if self.readout == "options" and last != "options":
            # A later stage would change the hidden states that the head has learned to read.
            raise ValueError(
                f"the readout 'options' needs 'options' as the last objective, got {last!r}"
            )
        if self.data.sources:
            self.build_config()
        return self

    @property
    def keeps_base(self) -> bool:
        """Whether the simulator stands on the base weights as they are, with or without adapter."""
        return not self.stages or self.writes_adapter

    @property
    def writes_adapter(self) -> bool:
        """Whether a LoRA adapter is part of the simulator."""
        return bool(self.stages) and self.lora is not None and not self.merge

    @property
    def prompt_config(self) -> PromptConfig:
        """How much of a scene the prompts show."""
        return PromptConfig(**self.prompt)

    def build_config(self) -> BuildConfig:
        """The build that a run from raw data makes for itself.

        Raises:
            ConfigError: a source overrides a scene setting that cannot be used.
        """
        build = BuildConfig(
            name=self.name, seed=self.seed, sources=self.data.sources, scenes=self.data.scenes
        )
        for source in build.sources:
            build.scenes_of(source)
        return build


def read_config(name_or_path: str | Path, overrides: dict[str, Any] | None = None) -> TrainConfig:
    """A preset of ``configs/train`` by name, or a YAML file by path, with ``overrides`` such as
    ``{"stages.0.epochs": 2}``; raises as :func:`~usermirror_gym.configs.settings.read_as`."""
    return read_as(TrainConfig, "train", name_or_path, overrides)


TRAINED_FILE = "trained.safetensors"
"""In the folder of a finished stage; see :func:`usermirror_gym.train.loop.model.save_trained`."""


def stage_folder(folder: Path, config: TrainConfig, index: int) -> Path:
    """Of one stage of a run."""
    return folder / "stages" / f"{index}-{config.stages[index].objective}"


def data_folder(config: TrainConfig, folder: Path) -> Path:
    """Where the build lies that a run learns from."""
    return folder / "data" if config.data.build is None else Path(config.data.build)
