"""Fits the weights of the readout on validation scenes, as the finished simulator answers them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError
from usermirror_gym.progress import Display
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.simulators.affinity.affinity import AffinitySimulator
from usermirror_gym.simulators.readouts.likelihood import LikelihoodSimulator
from usermirror_gym.simulators.readouts.utility import (
    AffinityWeights,
    ChoiceWeights,
    LikelihoodWeights,
    SessionWeights,
    affinity_logprobs,
    choice_logprobs,
    fit_affinity,
    fit_choice,
    fit_likelihood,
    fit_session,
    likelihood_logprobs,
    session_logprobs,
)
from usermirror_gym.simulators.session.session import SessionSimulator
from usermirror_gym.train.config import Calibration, TrainConfig
from usermirror_gym.train.data import TrainData, TrainSource
from usermirror_gym.train.objectives.letters import answer_of, answerable
from usermirror_gym.train.objectives.sequences import name_keys
from usermirror_gym.types import BoolArray, FloatArray, IntArray

Weights = LikelihoodWeights | ChoiceWeights | AffinityWeights | SessionWeights
MakeSimulator = Callable[[TimeSplit], Any]
_CHUNK = 64
"""Scenes of one question to the engine."""


@dataclass(frozen=True)
class Asked:
    """What the simulator said about S validation scenes, before any correction.

    Attributes:
        values: likelihood: conditional, unconditional and number of tokens, each ``(S, K)``;
            affinity: affinity and item_bias, each ``(S, K)``;
            session: features ``(S, K, 1 + F)`` and far ``(S,)``;
            letters and options: log-probabilities ``(S, K + 1)``, *none of these* last.
        mask: ``(S, K)``.
        targets: ``(S,)``; the length of the list is *none of these*.
        users: ``(S,)`` numbers that tell users of all sources apart.
        sources: ``(S,)`` which source a scene is of.
        outside: whether *none of these* is offered.
    """

    values: tuple[FloatArray, ...]
    mask: BoolArray
    targets: IntArray
    users: IntArray
    sources: IntArray
    outside: bool

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def took_none(self) -> BoolArray:
        """``(S,)`` whether the true answer is *none of these*."""
        none: BoolArray = self.targets == self.mask.sum(axis=1)
        return none

    def rows(self, chosen: BoolArray) -> Asked:
        """Some of the scenes."""
        names = ("mask", "targets", "users", "sources")
        parts: dict[str, Any] = {name: getattr(self, name)[chosen] for name in names}
        return replace(self, values=tuple(v[chosen] for v in self.values), **parts)

    def fit(self, settings: Calibration) -> Weights:
        """The weights under which these choices are most likely."""
        if self.values[0].ndim == 3:
            features, far = self.values
            return fit_session(features, far > 0, self.mask, self.targets, outside=self.outside)
        if len(self.values) == 1:
            bias = settings.position_bias
            return fit_choice(*self.values, self.mask, self.targets, position_bias=bias)
        fit: Callable[..., Weights] = fit_likelihood if len(self.values) == 3 else fit_affinity
        return fit(*self.values, self.mask, self.targets, outside=self.outside)

    def logprobs(self, weights: Weights) -> FloatArray:
        """``(S, K + 1)`` of the options under the weights."""
        if isinstance(weights, LikelihoodWeights):
            cond, uncond, n_tokens = self.values
            return likelihood_logprobs(weights, cond, uncond, n_tokens, self.mask)
        if isinstance(weights, SessionWeights):
            features, far = self.values
            return session_logprobs(weights, features, far > 0, self.mask)
        if isinstance(weights, AffinityWeights):
            affinity, item_bias = self.values
            return affinity_logprobs(weights, affinity, item_bias, self.mask)
        return choice_logprobs(weights, self.values[0])


def validation_scenes(config: TrainConfig, source: TrainSource, sources: int) -> list[Scene]:
    """The scenes of one of so many sources that the readout is fitted on.

    Raises:
        ConfigError: there are none, or they are all of one user.
    """
    scenes = answerable(source.scenes_validation, source.builder)
    most = config.calibration.scenes
    if most is not None:
        scenes = scenes[: -(-most // sources)]
    if len({scene.user_id for scene in scenes}) < 2:
        raise ConfigError(
            f"{source.name} has {len(scenes)} validation scenes of fewer than two users, and the "
            "readout is fitted and scored on them: ask for more (scenes.validation)"
        )
    return scenes


def ask(
    config: TrainConfig,
    make_simulator: MakeSimulator,
    data: TrainData,
    *,
    more: Sequence[Scene] = (),
    display: Display,
) -> Asked:
    """Put the validation scenes to the simulator, before any correction.

    Args:
        make_simulator: makes the simulator of a data set.
        more: scenes of the last source behind them.
    """
    parts = [validation_scenes(config, source, len(data.sources)) for source in data.sources]
    parts[-1] = [*parts[-1], *more]
    scenes = [scene for part in parts for scene in part]
    counts = np.array([len(scene.slate) for scene in scenes])
    width = int(counts.max())
    answers = []
    with display.phase("calibration", len(scenes), "scene") as advance:
        for source, part in zip(data.sources, parts, strict=True):
            simulator = make_simulator(source.split)
            for start in range(0, len(part), _CHUNK):
                chunk = part[start : start + _CHUNK]
                answers.append(_values(simulator, chunk, width))
                advance(len(chunk))
    sources = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    names = [f"{data.sources[i].name} {s.user_id}" for i, s in zip(sources, scenes, strict=True)]
    return Asked(
        values=tuple(np.concatenate(column) for column in zip(*answers, strict=True)),
        mask=np.arange(width) < counts[:, None],
        targets=np.array([answer_of(scene) for scene in scenes], np.int64),
        users=name_keys(names),
        sources=sources,
        outside=config.prompt_config.outside_option,
    )


def cross_fitted(asked: Asked, settings: Calibration, seed: int) -> FloatArray:
    """``(S, K + 1)`` log-probabilities, each under weights fitted without the scene's user.

    Users who took *none of these* are spread over the rounds.  If there is but one, the utility of
    that option can be fitted on nobody else, and their round has weights fitted on everybody.
    """
    users = np.unique(asked.users)
    takers = np.isin(users, asked.users[asked.took_none])
    rounds = min(settings.folds, len(users))
    shuffled = np.random.default_rng((seed, 3)).permutation(len(users))
    fold = np.zeros(len(users), np.int64)
    fold[shuffled[np.argsort(~takers[shuffled], kind="stable")]] = np.arange(len(users)) % rounds
    own = fold[np.searchsorted(users, asked.users)]
    logprobs = np.zeros((len(asked), asked.mask.shape[1] + 1))
    for number in range(rounds):
        test = own == number
        unknown = asked.took_none.any() and not asked.took_none[~test].any()
        weights = (asked if unknown else asked.rows(~test)).fit(settings)
        logprobs[test] = asked.rows(test).logprobs(weights)
    return logprobs


def scores_of(asked: Asked, logprobs: FloatArray, names: Sequence[str]) -> dict[str, Any]:
    """Log-loss (nats), accuracy of the likeliest option, mean probability of the true one."""
    options = asked.mask.sum(axis=1) + asked.outside
    parts = [(name, asked.sources == i) for i, name in enumerate(names)]
    return {
        "scenes": len(asked),
        "users": len(np.unique(asked.users)),
        "all": _scores(asked, logprobs),
        "uniform": {
            "log_loss": float(np.log(options).mean()),
            "accuracy": float((1 / options).mean()),
        },
        "by_source": {name: _scores(asked.rows(own), logprobs[own]) for name, own in parts},
    }


def fitted_settings(weights: Weights) -> Mapping[str, Any]:
    """The weights as settings of a simulator."""
    fields = asdict(weights)
    if not isinstance(weights, ChoiceWeights) and weights.outside_utility is None:
        del fields["outside_utility"]
        fields["outside_option"] = False
    return fields


def _values(simulator: Any, scenes: Sequence[Scene], width: int) -> list[FloatArray]:
    """What the engine says, padded to lists of one width."""
    if isinstance(simulator, SessionSimulator):
        features, far, _ = simulator.scores(scenes)
        return [_padded(features, width, 0.0), far.astype(np.float64)]
    if isinstance(simulator, LikelihoodSimulator | AffinitySimulator):
        *values, _ = simulator.scores(scenes)
        return [_padded(own, width, 0.0) for own in values]
    logprobs = simulator.logprobs(scenes)
    return [np.column_stack([_padded(logprobs[:, :-1], width, -np.inf), logprobs[:, -1]])]


def _padded(values: FloatArray, width: int, fill: float) -> FloatArray:
    short = width - values.shape[1]
    room = ((0, 0), (0, short), *[(0, 0)] * (values.ndim - 2))
    return np.pad(values.astype(np.float64), room, constant_values=fill)


def _scores(asked: Asked, logprobs: FloatArray) -> dict[str, float]:
    places = np.where(asked.took_none, asked.mask.shape[1], asked.targets)
    true = logprobs[np.arange(len(places)), places]
    return {
        "log_loss": float(-true.mean()),
        "accuracy": float((logprobs.argmax(axis=1) == places).mean()),
        "expected_accuracy": float(np.exp(true).mean()),
    }
