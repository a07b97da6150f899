"""``usermirror evaluate``: from names to a fidelity card in a folder of its own.

The folder holds everything; each piece is written whole, so a run that was killed goes on where it
was::

    run.json                       settings; a folder with other settings is refused
    answers/                       what the simulator, its base and its controls answered
    scores.parquet                 of every scene, for paired comparisons
    card.html  card.md  card.json  the card, card.json last
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import usermirror_gym
from usermirror_gym.configs import preset_names, read_preset
from usermirror_gym.corpus.released.read import HUB_NAMES, PromptFrame, read_released
from usermirror_gym.engines import Engine
from usermirror_gym.engines.checkpoints import cache_folder
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.errors import ConfigError, UnknownNameError, UserMirrorError
from usermirror_gym.fidelity.answers import answer, scene_digest, scenes_digest
from usermirror_gym.fidelity.card import fidelity_card
from usermirror_gym.fidelity.checks import criteria, sentences
from usermirror_gym.fidelity.checks.base import BASE, SHOWN_COLUMNS, CardSizes
from usermirror_gym.fidelity.compare import SCORES, write_scores
from usermirror_gym.fidelity.config import EvaluateConfig
from usermirror_gym.fidelity.pages import read_card, write_card
from usermirror_gym.fidelity.released import ReleasedSimulator, released_scenes
from usermirror_gym.fidelity.scenes import BALANCE_REFUSED, CardScenes, find_scenes
from usermirror_gym.files import discard, read_json, to_json_types, write_json
from usermirror_gym.foreign import masked
from usermirror_gym.measures.choice_scores import ObservedChoices, scores_given_click
from usermirror_gym.progress import Display
from usermirror_gym.run_folder import INPUTS, RUN_FILE, numbered_folder, run_folder
from usermirror_gym.scenes.table import scenes_of
from usermirror_gym.simulators import UserSimulator, make_simulator
from usermirror_gym.simulators.affinity.affinity_head import AFFINITY_WEIGHTS, read_head
from usermirror_gym.simulators.base import fingerprint
from usermirror_gym.simulators.checkpoint import find_simulator, read_simulator
from usermirror_gym.simulators.registry import CLASSIC, available_simulators

RELEASED_TRAIN, RELEASED_EVAL = HUB_NAMES
_ANSWERS = "answers"
_TRAINING = "training.json"
"""Of a checkpoint: how it was made."""


def evaluate(
    config: EvaluateConfig, folder: Path, *, display: Display | None = None
) -> dict[str, Any]:
    """Make, or go on with, a fidelity card; a finished one is read and written out again.

    Args:
        config: the settings.
        folder: of this card alone.
        display: says what is going on.

    Returns:
        The content of ``card.json``.

    Raises:
        RunError: the folder holds something else, or a card with other settings, or another
            process works in it.
        UnknownNameError: the simulator or the scenes do not exist.
    """
    display, folder = display or Display(quiet=True), Path(folder)
    question = _question(config, display)
    # Only now: a mistaken name must not leave a folder with the mistake in it.
    with run_folder(folder, _settings(config), "card"):
        _note_inputs(folder, question)
        card = _finished(folder, question) or _card(config, question, folder, display)
        card |= {"bars": criteria(card), "verdict": sentences(card), INPUTS: question.inputs}
        write_card(card, folder)
    return card


def _note_inputs(folder: Path, question: _Question) -> None:
    """Note whose answers the folder holds; those of others, under the same names, are deleted."""
    settings, answers = read_json(folder / RUN_FILE), folder / _ANSWERS
    if (then := settings.get(INPUTS)) != question.inputs:
        if then and answers.is_dir():
            kept = BASE if then.get(BASE) == question.inputs.get(BASE) else ""
            same = then.get("simulator") == question.inputs["simulator"]
            for path in answers.iterdir():
                if path.name != kept and (path.name == BASE or not same):
                    discard(path)
        write_json(folder / RUN_FILE, settings | {INPUTS: question.inputs})


def default_folder(config: EvaluateConfig, base: Path = Path("runs/evaluate")) -> Path:
    """A folder named after simulator and scenes, numbered if that holds another card."""
    name = "-".join(map(_slug, (config.label, Path(config.scenes).name or config.scenes)))
    return numbered_folder(base / name, _settings(config))


def card_folders(
    config: EvaluateConfig, names: Sequence[str], *, display: Display | None = None
) -> list[Path]:
    """Folders with a finished card each, made where there is none.

    Args:
        config: all but the simulator and its options.
        names: folders of cards, or simulators.
        display: says what is going on.

    Raises:
        ConfigError: fewer than two names, or one twice; nothing was made then.
    """
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(
            f"a comparison needs at least two different names, got {', '.join(names) or 'none'}"
        )
    folders = []
    for name in names:
        folder = Path(name)
        if not (folder.is_dir() and (folder / "run.json").is_file()):
            own = replace(config, simulator=name)
            folder = default_folder(own)
            evaluate(own, folder, display=display)
        folders.append(folder)
    return folders


def is_released(scenes: str) -> bool:
    """Whether scenes by this name are the released eval set, or a copy of it."""
    path = Path(scenes)
    if scenes == RELEASED_EVAL or path.name.endswith((".jsonl", ".jsonl.gz", ".json.gz")):
        return True
    if path.is_file():
        return path.suffix in (".json", ".parquet")
    return path.is_dir() and not (path / "manifest.json").exists() and _has_rows(path)


@dataclass(frozen=True)
class _Question:
    """What the names in the settings stand for."""

    data: CardScenes
    simulator: UserSimulator
    settings: dict[str, Any]
    """Of the simulator, those that its preset or folder says included; secrets masked."""
    base: UserSimulator | None
    base_name: str | None

    @property
    def inputs(self) -> dict[str, str]:
        """What tells the simulators from others of the same names."""
        asked = {"simulator": self.simulator, "base": self.base}
        return {name: fingerprint(own) for name, own in asked.items() if own is not None}


def _question(config: EvaluateConfig, display: Display) -> _Question:
    if is_released(config.scenes):
        return _released_question(config)
    name = untrained(config)
    for asked in (config.simulator, name):
        _check_name(asked)
    data = find_scenes(
        config.scenes, count=config.count, seed=config.seed, source=config.source,
        balance=config.balance, display=display,
    )  # fmt: skip
    assert data.split is not None  # only released scenes have none
    simulator = make_simulator(config.simulator, data.split, **config.options)
    settings = masked(shown_settings(config.simulator, config.options) | config.options)
    base = None if name is None else make_simulator(name, data.split)
    return _Question(data, simulator, settings, base, name)


def _check_name(name: str | None) -> None:
    """Find a mistaken name before scenes are drawn for it, which may take minutes."""
    known = available_simulators()
    if name is not None and name not in known and "/" not in name and not Path(name).exists():
        raise UnknownNameError("simulator", name, known)


def shown_settings(name: str, given: Collection[str] = ()) -> dict[str, Any]:
    """What preset or folder of a simulator say, without paths, which mean nothing elsewhere."""
    if name in preset_names("simulators"):
        return dict(read_preset("simulators", name))
    if name in CLASSIC or (folder := find_simulator(name)) is None:
        return {}
    settings = read_simulator(folder, given)
    # What follows from the folder's files is its path, whatever the setting is called.
    shown = {key: value for key, value in settings.items() if value != str(folder)}
    shown["checkpoint"] = Path(settings["checkpoint"]).name
    if settings.get("readout") == "affinity" and (folder / AFFINITY_WEIGHTS).is_file():
        head = read_head(folder)
        shown["states"] = [f"layer {layer}, {pool}" for layer, pool in head.parts]
        shown["head"] = {"dimensions": head.d, "lines": head.history_lines}
    return shown


def configurations_tried(name: str) -> int | None:
    """How many were tried on validation before this one was chosen, if its checkpoint says so.

    That is ``configurations_tried`` in ``training.json``, a whole number from 1.
    """
    folder = None if name in CLASSIC else find_simulator(name)
    if folder is None or not (folder / _TRAINING).is_file():
        return None
    told = read_json(folder / _TRAINING)
    found = told.get("configurations_tried") if isinstance(told, dict) else None
    return found if isinstance(found, int) and found > 0 else None


def untrained(config: EvaluateConfig) -> str | None:
    """The name of the simulator's base: see :attr:`EvaluateConfig.base`."""
    if config.base is not None:
        return None if config.base == "none" else config.base
    if config.simulator in (*CLASSIC, *preset_names("simulators")):
        return None
    folder = find_simulator(config.simulator)
    trained = {} if folder is None else read_simulator(folder, config.options)
    if not {"adapter", "head"} & trained.keys():
        return None
    presets = {name: read_preset("simulators", name) for name in preset_names("simulators")}
    found = [n for n, preset in presets.items() if preset["checkpoint"] == trained["checkpoint"]]
    # The way in which it is read matters to its scores; likelihood needs no training.
    order = (trained.get("readout", "letters"), "likelihood")
    found = [n for readout in order for n in found if presets[n].get("readout") == readout]
    return found[0] if found else None


def _released_question(config: EvaluateConfig) -> _Question:
    """The released prompts, put to weights as they are."""
    if config.balance is not None:
        raise ConfigError(BALANCE_REFUSED.format(name=config.scenes))
    if config.simulator in CLASSIC:
        raise ConfigError(
            f"the released scenes are texts: the simulator {config.simulator!r} cannot read them; "
            "name weights or a checkpoint"
        )
    released = read_released(config.scenes, "eval")
    data, texts = released_scenes(released, source=config.scenes, count=config.count)
    frame = _frame(config)

    def simulator(name: str, options: Mapping[str, Any]) -> UserSimulator:
        return ReleasedSimulator(_weights(name, options), frame, texts)

    name = None if config.base in (None, "none") else config.base
    base = None if name is None else simulator(name, {})
    asked = simulator(config.simulator, config.options)
    return _Question(data, asked, masked(config.options), base, name)


def _weights(name: str, options: Mapping[str, Any]) -> Engine:
    """The engine of bare weights, or of a trained simulator."""
    folder = find_simulator(name)
    options = {**options.get("engine", {}), **{k: v for k, v in options.items() if k != "engine"}}
    if folder is None:
        return load_engine(name, **options)
    found = read_simulator(folder, {"readout"})  # of a surrogate too the weights are asked
    adapter = {"adapter": found["adapter"]} if "adapter" in found else {}
    return load_engine(found["checkpoint"], **{**found.get("engine", {}), **adapter, **options})


def _frame(config: EvaluateConfig) -> PromptFrame:
    """The layout of the prompts: from a train set beside the eval set, or as the settings say."""
    beside = Path(config.scenes)
    if config.released_train == RELEASED_TRAIN and beside.is_dir():
        try:
            return read_released(beside, "train").frame()
        except UserMirrorError:
            pass  # a copy of the eval set alone
    return read_released(config.released_train, "train").frame()


def _finished(folder: Path, question: _Question) -> dict[str, Any] | None:
    """The folder's card, unless weights or scenes have changed under their names."""
    if not (folder / "card.json").is_file():
        return None
    card = read_card(folder)
    scenes = scenes_digest(scenes_of(question.data.evaluation))
    known = card.get(INPUTS, question.inputs)  # cards of earlier versions do not say
    now = (question.simulator.name, to_json_types(question.settings), scenes, question.inputs)
    then = (card["simulator"]["model"], card["simulator"]["options"], card["scenes"]["hash"], known)
    return card if now == then else None


def _card(
    config: EvaluateConfig, question: _Question, folder: Path, display: Display
) -> dict[str, Any]:
    data, simulator, n = question.data, question.simulator, config.checks
    store = folder / _ANSWERS
    _try(question)
    sizes = CardSizes(order=n, repeats=min(60, n), ladder=2 * n, text_attacks=n, inputs=4 * n)
    remake = None
    if data.split is not None:
        remake = lambda split: make_simulator(config.simulator, split, **config.options)  # noqa: E731
    tried = configurations_tried(config.simulator)
    card = fidelity_card(
        simulator, data, tried=tried, name=config.label, base=question.base,
        base_name=f"{question.base_name} (base)", baselines=_baselines(config, data, display),
        remake=remake, options=question.settings, sizes=sizes, seed=config.seed, store=store,
        display=display,
    )  # fmt: skip
    scenes = scenes_of(data.evaluation)
    probs = answer(simulator, scenes, store=store, settings=question.settings).probs
    choices = ObservedChoices.of(scenes)
    write_scores(
        folder / SCORES, [scene_digest(scene) for scene in scenes], choices.users.tolist(),
        scores_given_click(probs, choices)[:, SHOWN_COLUMNS],
    )  # fmt: skip
    return card


def _try(question: _Question) -> None:
    """Ask the largest question first: who cannot answer it fails before hours of other work."""
    scenes = scenes_of(question.data.evaluation)
    largest = max(scenes, key=lambda s: (len(s.slate), len(s.history)), default=None)
    for simulator in (question.simulator, question.base):
        if largest is not None and simulator is not None:
            answer(simulator, [largest])


def _baselines(
    config: EvaluateConfig, data: CardScenes, display: Display
) -> Mapping[str, UserSimulator]:
    """The classic baselines, fitted on scenes before T0; none where there are no such scenes."""
    if not config.classic or data.split is None or not len(data.train) or not len(data.validation):
        return {}
    from usermirror_gym.fidelity.baselines import classic_baselines

    try:
        fitted = classic_baselines(
            data.split, data.train, data.validation, seed=config.seed,
            store=cache_folder() / "choosers", display=display,
        )  # fmt: skip
    except ConfigError as error:
        raise ConfigError(
            f"the classic baselines cannot be fitted: {error}. Or leave them out (--no-classic)."
        ) from error
    return dict(fitted)


def _settings(config: EvaluateConfig) -> dict[str, Any]:
    settings = config.settings() | {"version": usermirror_gym.__version__}
    if not is_released(config.scenes):
        del settings["released_train"]
    return settings


def _has_rows(folder: Path) -> bool:
    endings = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
    return any(path.name.endswith(endings) for path in folder.rglob("*"))


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-") or "scenes"
