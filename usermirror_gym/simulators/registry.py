"""Simulators by name: classic baselines, presets of ``configs/simulators``, checkpoints."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from usermirror_gym.checkpoints import ALIASES, shipped_checkpoints
from usermirror_gym.configs import preset_names, read_preset
from usermirror_gym.data import TimeSplit
from usermirror_gym.engines.adapters import HEAD_WEIGHTS, adapter_files, content_hash, head_files
from usermirror_gym.engines.base import Engine
from usermirror_gym.engines.checkpoints import cache_folder
from usermirror_gym.engines.choosing import SERVER_PREFIX, load_engine
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.scenes.words.prompt import PromptBuilder, PromptConfig
from usermirror_gym.scenes.words.template import domain_text
from usermirror_gym.simulators.affinity.affinity import AffinitySimulator
from usermirror_gym.simulators.affinity.affinity_head import AFFINITY_WEIGHTS, read_head
from usermirror_gym.simulators.base import UserSimulator
from usermirror_gym.simulators.checkpoint import find_simulator, read_simulator
from usermirror_gym.simulators.classic import PopularityChooser, UniformChooser
from usermirror_gym.simulators.readouts.likelihood import LikelihoodSimulator
from usermirror_gym.simulators.readouts.listwise import LettersSimulator, OptionsSimulator
from usermirror_gym.simulators.readouts.rationale import RationaleSimulator, Thinking
from usermirror_gym.simulators.readouts.utility import (
    AffinityWeights,
    ChoiceWeights,
    LikelihoodWeights,
    SessionWeights,
)
from usermirror_gym.simulators.session.session import SessionSimulator
from usermirror_gym.simulators.session.session_head import SESSION_WEIGHTS, read_session
from usermirror_gym.simulators.session.trained_blocks import TrainedBlocks
from usermirror_gym.simulators.settings import LLMSettings, checked_settings
from usermirror_gym.simulators.surrogate.surrogate import (
    SURROGATE_WEIGHTS,
    SurrogateSimulator,
    read_surrogate,
)

CLASSIC = ("popularity", "uniform")


def available_simulators() -> list[str]:
    """Names that :func:`make_simulator` knows: classic baselines, presets, and trained ones that
    ship with the package.  Any checkpoint's name or folder works too."""
    shipped = shipped_checkpoints()
    short = (alias for alias, name in ALIASES.items() if name in shipped)
    return sorted({*CLASSIC, *preset_names("simulators"), *shipped, *short})


def make_simulator(name: str, split: TimeSplit, **options: Any) -> UserSimulator:
    """A simulator by name.

    Args:
        name: one of :func:`available_simulators`; a trained simulator (a folder, or ``owner/name``
            on the Hugging Face hub, that holds a ``simulator.yaml``); or bare weights (a folder, a
            ``.gguf`` file or ``owner/name``), which are read by letters unless ``readout`` says
            otherwise.
        split: the data whose items and users are talked about.
        options: override what preset or folder say (:class:`LLMSettings`), or are the arguments of
            a classic baseline.

    Raises:
        UnknownNameError: no such simulator or option; suggests the nearest.
        ConfigError: an option has a value that cannot be used.
        CheckpointError: a trained simulator that cannot be found or read.
    """
    if name in CLASSIC:
        return _classic(name, split, options)
    if name in preset_names("simulators"):
        settings = checked_settings(name, read_preset("simulators", name), options)
    elif (folder := find_simulator(name)) is not None:
        settings = checked_settings(name, read_simulator(folder, options), options)
    elif "/" in name or name.startswith(SERVER_PREFIX) or Path(name).exists():
        settings = checked_settings(name, {"checkpoint": name}, options)
    else:
        raise UnknownNameError("simulator", name, available_simulators())
    return llm_simulator(settings, split)


def llm_simulator(settings: LLMSettings, split: TimeSplit) -> UserSimulator:
    """The simulator that the settings describe; its weights are loaded at the first question.

    Raises:
        ConfigError: settings that do not go together, or not with these data.
    """
    _check_domain(settings, split)
    if settings.readout == "surrogate":
        return _surrogate(settings, split)
    if settings.readout == "session":
        return _session(settings, split)
    builder = PromptBuilder(domain_text(split.dataset), _of_settings(PromptConfig, settings))
    folder = _head_folder(settings)
    engine = _engine(settings)
    if settings.rationales:
        return _rationale_simulator(engine, builder, settings)
    if settings.readout == "affinity":
        assert folder is not None
        return AffinitySimulator(
            engine, builder, read_head(folder), _of_settings(AffinityWeights, settings),
            cache=cache_folder() / "item-vectors",
        )  # fmt: skip
    if settings.readout == "likelihood":
        return LikelihoodSimulator(engine, builder, _of_settings(LikelihoodWeights, settings))
    kind = LettersSimulator if settings.readout == "letters" else OptionsSimulator
    weights = _of_settings(ChoiceWeights, settings)
    return kind(engine, builder, permutations=settings.permutations, weights=weights)


def _rationale_simulator(
    engine: Engine, builder: PromptBuilder, settings: LLMSettings
) -> RationaleSimulator:
    if settings.readout != "letters" or settings.permutations > 1:
        raise ConfigError(
            f"rationales={settings.rationales} go with readout 'letters' and permutations 1, not "
            f"with {settings.readout!r} and {settings.permutations}: a reason names the letters"
        )
    thinking = Thinking(settings.rationales, settings.rationale_tokens)
    return RationaleSimulator(engine, builder, thinking, _of_settings(ChoiceWeights, settings))


def _check_domain(settings: LLMSettings, split: TimeSplit) -> None:
    domain = split.dataset.domain
    if settings.domain not in (None, domain):
        raise ConfigError(
            f"this simulator was trained on items of the domain {settings.domain!r}, and "
            f"{split.dataset.name!r} has {domain!r}: what it says of them would mean nothing. Take "
            f"an untrained one ({', '.join(preset_names('simulators'))}), or train one on these "
            "data (usermirror train). The option domain=null asks it all the same."
        )


def _head_folder(settings: LLMSettings) -> Path | None:
    """Where the head of the readout is; ``None`` if the readout has none."""
    files = {
        "options": HEAD_WEIGHTS, "affinity": AFFINITY_WEIGHTS, "session": SESSION_WEIGHTS,
        "surrogate": SURROGATE_WEIGHTS,
    }  # fmt: skip
    if settings.readout not in files:
        return None
    if settings.head is None:
        raise ConfigError(
            f"readout {settings.readout!r} needs a trained head ({files[settings.readout]}), and "
            f"{settings.adapter or settings.checkpoint!r} has none: train one with the objective "
            f"{settings.readout!r}, or use 'likelihood' or 'letters'"
        )
    return Path(settings.head).expanduser()


def _session(settings: LLMSettings, split: TimeSplit) -> SessionSimulator:
    """The LLM is not even looked for before an item is asked about that was not in training."""
    folder = _head_folder(settings)
    assert folder is not None
    return SessionSimulator(
        read_session(folder), _of_settings(SessionWeights, settings), split,
        PromptBuilder(domain_text(split.dataset), _of_settings(PromptConfig, settings)),
        engine=partial(_engine, settings), blocks=partial(_blocks, settings),
        cache=cache_folder() / "item-vectors",
        origin=Path(settings.checkpoint).name,
    )  # fmt: skip


def _blocks(settings: LLMSettings, trained: TrainedBlocks) -> Any:
    """On the device and in the precision that the engine would have."""
    from usermirror_gym.simulators.session.blocks import served_reader

    options = {name: settings.engine[name] for name in ("dtype", "device")
               if name in settings.engine}  # fmt: skip
    return served_reader(settings.checkpoint, trained, adapter=settings.adapter, **options)


def _surrogate(settings: LLMSettings, split: TimeSplit) -> SurrogateSimulator:
    known = {"checkpoint", "readout", "head", "domain", "outside_option"}
    if others := sorted(settings.model_fields_set - known):
        raise ConfigError(
            f"a surrogate has no option {', '.join(others)}: it imitates {settings.checkpoint!r} "
            "as it was. It has outside_option and domain; for the others distil that simulator "
            "anew (usermirror train-surrogate)"
        )
    folder = _head_folder(settings)
    assert folder is not None
    net, facts = read_surrogate(folder)
    return SurrogateSimulator(
        net, facts, split, offers_outside=settings.outside_option, folder=folder
    )


T = TypeVar("T")


def _of_settings(kind: type[T], settings: LLMSettings) -> T:
    """The dataclass whose fields are settings."""
    values = {f.name: getattr(settings, f.name) for f in fields(kind)}  # type: ignore[arg-type]
    if not settings.outside_option and "outside_utility" in values:
        values["outside_utility"] = None
    return kind(**values)


def _engine(settings: LLMSettings) -> Engine:
    parts: dict[str, str] = {}
    files: list[Path] = []
    if settings.adapter is not None:
        parts["adapter"] = settings.adapter
        files += adapter_files(Path(settings.adapter).expanduser())
    if settings.readout == "options" and settings.head is not None:
        parts["head"] = settings.head
        files += head_files(Path(settings.head).expanduser())
    if settings.readout in ("affinity", "session"):
        # They read hidden states of inner layers, which one kind of engine gives.
        parts["kind"] = "transformers"
    arguments = json.dumps({**parts, **settings.engine}, sort_keys=True)
    try:
        engine = _shared_engine(settings.checkpoint, arguments, content_hash(files))
    except TypeError as error:
        raise ConfigError(f"simulator option 'engine' = {settings.engine!r}: {error}") from error
    if settings.answers is None:
        return engine
    from usermirror_gym.engines.store.answer_store import AnswerStore, default_store
    from usermirror_gym.engines.store.stored_engine import StoredEngine

    path = default_store() if settings.answers == "default" else settings.answers
    return StoredEngine(engine, AnswerStore(path))


@lru_cache(maxsize=2)
def _shared_engine(checkpoint: str, arguments: str, content: str) -> Engine:
    """One engine for all who ask alike: several environments do not load the weights again.

    Args:
        content: of the trained parts, which a training may write anew under their old names.
    """
    return load_engine(checkpoint, **json.loads(arguments))


def _classic(name: str, split: TimeSplit, options: dict[str, Any]) -> UserSimulator:
    try:
        if name == "uniform":
            return UniformChooser(**options)
        return PopularityChooser(split, **options)
    except TypeError as error:
        raise ConfigError(f"simulator {name!r}: {error}") from error
