"""A re-ranker over a recommender's shortlist, trained by Stable-Baselines3's PPO."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat

from usermirror_gym.agents.base import Agent, Transition
from usermirror_gym.agents.learners.learning import LearningAgent
from usermirror_gym.agents.learners.store import is_learning_agent, load_agent
from usermirror_gym.agents.learners.torch_agent import moments_of, set_moments
from usermirror_gym.agents.recbole.agent import RecBoleAgent
from usermirror_gym.agents.saved import Arrays
from usermirror_gym.agents.simple import PopAgent
from usermirror_gym.configs.settings import Positive, Settings
from usermirror_gym.data import TimeSplit
from usermirror_gym.envs.shortlist import Shortlist
from usermirror_gym.errors import CheckpointError, ConfigError
from usermirror_gym.types import FloatArray, IntArray, Observation

if TYPE_CHECKING:
    from stable_baselines3 import PPO

    from usermirror_gym.envs import SlateVectorEnv

_POLICY, _OLD_POLICY, _SOURCE = "policy.", "policy.zip", "source"


class PPOSettings(Settings):
    """Of :class:`PPOAgent`; passed on to Stable-Baselines3."""

    d: Positive = 32
    """Unused item factors of what all learning agents keep; small."""
    source: str = "ItemKNN"
    """Whose shortlist is re-ranked: Pop, a RecBole model, or the folder of a trained agent."""
    trust: NonNegativeFloat = 4.0
    """Logit by which slot k prefers the source's k-th candidate at the beginning."""
    shortlist: Positive = 50
    """Candidates."""
    learning_rate: PositiveFloat = 3e-4
    batch_size: Positive = 500
    epochs: Positive = 10
    discount: Annotated[float, Field(ge=0, lt=1)] = 0.5
    entropy: NonNegativeFloat = 0.0
    hidden: Positive = 64
    """Units of each of two hidden layers."""


class PPOAgent(LearningAgent):
    """PPO (Schulman et al. 2017) as it comes from Stable-Baselines3, on the shortlist wrapper.

    A source proposes candidates, best first; the policy (``MultiInputPolicy``: two hidden layers
    over the features of :class:`~usermirror_gym.envs.shortlist.Shortlist`) picks K positions, each
    by a softmax of its own (``MultiDiscrete``).  It begins close to the source's order.  Without
    ``explore`` every slot takes its most probable position that is not yet taken; while it trains,
    the environment shows an item that was picked twice once.

    One iteration is one rollout of whole sessions from new seeds and its PPO epochs, so that the
    weights and the moments of the optimizer are all that going on needs; Stable-Baselines3's own
    file, which holds pickles, is neither written nor read.  Before the first iteration, and beyond
    K items, the source's order stands.

    Args:
        source: whose shortlist is re-ranked; by default the agent that the setting ``source``
            names: ``Pop`` or a RecBole model.  It is fitted by :meth:`fit`.

    Raises:
        ConfigError: the source can be no source.
    """

    kind = "PPO"
    settings_type = PPOSettings
    settings: PPOSettings
    feedback = "expected_click"

    def __init__(self, *, seed: int = 0, source: Agent | str | None = None, **options: Any) -> None:
        if isinstance(source, str):
            options["source"] = source
        super().__init__(seed=seed, **options)
        self._source = source if not isinstance(source, str) else None
        self._model: PPO | None = None
        self._policy: Any = None  # the model's, or one that was read; it gives the lists
        self._moments: Arrays | None = None
        self._restored = False

    @property
    def source(self) -> Agent:
        """Who proposes candidates."""
        if self._source is None:
            self._source = _named_source(self.settings.source, self.seed)
        return self._source

    def fit(self, data: TimeSplit) -> Self:
        """Read the data, fit the source and begin anew; see :class:`LearningAgent`."""
        if not self.trained:
            self.source.fit(data)
            self._restored = False
        return super().fit(data)

    def practise(self, env: SlateVectorEnv, users: IntArray, seeds: list[int]) -> dict[str, float]:
        """One rollout and its epochs; see :meth:`LearningAgent.practise`.

        Rows whose user left go on with other users of the environment's world.

        Raises:
            ConfigError: the environment has no horizon.
            MissingDependencyError: Stable-Baselines3 is not installed.
        """
        if env.max_episode_steps is None:
            raise ConfigError("PPO plays whole sessions: give the environment max_episode_steps")
        venv = self._venv(env)
        if self._model is None:
            self._model = self._resumed(self._new_model(venv, env.max_episode_steps))
            self._policy = self._model.policy
        model = self._model
        model.set_env(venv, force_reset=True)
        steps = env.num_envs * env.max_episode_steps
        model.set_random_seed(_seed(self.seed, self.iteration))
        venv.seed(seeds[0])
        venv.set_options([{"user_id": int(user)} for user in users])
        model.learn(steps, log_interval=None)  # type: ignore[arg-type]
        self.iteration += 1
        played = [session["r"] for session in model.ep_info_buffer or []]
        return {"steps": steps, "return": float(np.mean(played)), **_losses(model)}

    def _venv(self, env: SlateVectorEnv) -> Any:
        from usermirror_gym.envs import VectorShortlistWrapper
        from usermirror_gym.envs.sb3 import SB3VecEnv  # explains what is missing

        vec_env: Any = import_module("stable_baselines3.common.vec_env")
        size = self.settings.shortlist
        shortlist = VectorShortlistWrapper(env, self.source, size, features_only=True)
        return vec_env.VecMonitor(SB3VecEnv(shortlist))

    def _new_model(self, venv: Any, horizon: int) -> PPO:
        import torch
        from stable_baselines3 import PPO

        own = self.settings
        model = PPO(
            "MultiInputPolicy", venv, n_steps=horizon, batch_size=own.batch_size,
            n_epochs=own.epochs, learning_rate=own.learning_rate, gamma=own.discount,
            ent_coef=own.entropy, policy_kwargs={"net_arch": [own.hidden, own.hidden]},
            seed=_seed(self.seed), device="cpu", stats_window_size=1_000_000,
        )  # fmt: skip
        k, size = len(venv.action_space.nvec), own.shortlist
        with torch.no_grad():  # slot k begins with a liking for the source's k-th candidate
            head: Any = model.policy.action_net
            head.bias.view(k, size).diagonal().add_(own.trust)
        return model

    def _resumed(self, model: PPO) -> PPO:
        """With the weights and moments that were read, if any were."""
        if self._policy is not None:
            model.policy.load_state_dict(self._policy.state_dict())
        if self._moments is not None:
            set_moments(model.policy.optimizer, self._moments)
        return model

    def _begin(self) -> None:
        if not self._restored:
            self._model = self._policy = self._moments = None

    def _recommend(self, observations: Observation, k: int) -> IntArray:
        size = self.settings.shortlist
        candidates = np.asarray(self.source.recommend(observations, max(k, size)))
        if self._policy is None:
            return candidates[:, :k]
        order = self._slots(observations, candidates[:, :size])
        rest = np.broadcast_to(np.arange(candidates.shape[1]), candidates.shape)
        # Slots first, then everything else in the source's order.
        rank = np.full(candidates.shape, order.shape[1] + candidates.shape[1]) + rest
        np.put_along_axis(rank, order, np.arange(order.shape[1])[None], axis=1)
        best = np.argsort(rank, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(candidates, best, axis=1)

    def _slots(self, observations: Observation, candidates: IntArray) -> IntArray:
        """``(N, K)`` different positions, the slots filled one after another."""
        logits = self._logits(observations, candidates)
        chosen = np.zeros(logits.shape[:2], np.int64)
        for slot in range(logits.shape[1]):
            chosen[:, slot] = logits[:, slot].argmax(axis=1)
            np.put_along_axis(
                logits, chosen[:, slot, None, None].repeat(logits.shape[1], 1), -np.inf, axis=2
            )
        return chosen

    def _logits(self, observations: Observation, candidates: IntArray) -> FloatArray:
        """``(N, K, size)`` log-probabilities of the positions, for every slot."""
        import torch

        slots = len(self._policy.action_space.nvec)
        shortlist = self._shortlist(slots, observations["history_items"].shape[1])
        features = shortlist.augment(_with_slots(observations, slots), candidates)
        tensors, _ = self._policy.obs_to_tensor(features)
        with torch.no_grad():
            found: Any = self._policy.get_distribution(tensors).distribution
        return torch.stack([slot.logits for slot in found], dim=1).double().numpy()

    def _scores(self, observations: Observation, k: int) -> FloatArray:
        raise NotImplementedError("candidates are ranked, not the catalogue")

    def _observe(self, transition: Transition) -> None:
        """Does nothing: Stable-Baselines3 collects for itself."""

    def _shortlist(self, slots: int, history_size: int) -> Shortlist:
        return Shortlist(
            self.source, self.settings.shortlist, slots, popularity=self.space.counts,
            history_size=history_size, features_only=True,
        )  # fmt: skip

    def _policy_arrays(self) -> Arrays:
        state = {} if self._policy is None else self._policy.state_dict()
        return {_POLICY + name: value.numpy().copy() for name, value in state.items()}

    def _take_policy(self, arrays: Arrays) -> None:
        if isinstance(self._source, PopAgent):
            self._source = PopAgent.of(self.space.counts, self.space.seen)
        own = {name.removeprefix(_POLICY): value for name, value in arrays.items()}
        if own:
            self._policy = self._read_policy(own)

    def _read_policy(self, arrays: Arrays) -> Any:
        """A policy of these weights; its spaces follow from the settings and their shapes."""
        import_module("usermirror_gym.envs.sb3")  # explains what is missing
        import torch
        from gymnasium import spaces
        from stable_baselines3.common.policies import MultiInputActorCriticPolicy

        own = self.settings
        shortlist = self._shortlist(len(arrays["action_net.bias"]) // own.shortlist, 1)
        policy = MultiInputActorCriticPolicy(
            shortlist.observation_space(spaces.Dict()), shortlist.action_space(),
            lambda _: own.learning_rate, net_arch=[own.hidden, own.hidden],
        )  # fmt: skip
        policy.load_state_dict({name: torch.from_numpy(v.copy()) for name, v in arrays.items()})
        return policy.train(False)

    def training_arrays(self) -> Arrays:
        """Moments of the optimizer."""
        if self._model is not None:
            return moments_of(self._model.policy.optimizer)
        return self._moments or {}

    def take_training(self, arrays: Arrays) -> None:
        """What :meth:`training_arrays` gave."""
        self._moments = arrays

    def write_files(self, folder: Path) -> None:
        """The source."""
        if isinstance(self.source, RecBoleAgent | LearningAgent):
            self.source.save(folder / _SOURCE)

    def read_files(self, folder: Path) -> None:
        """What :meth:`write_files` wrote.

        Raises:
            CheckpointError: an earlier version wrote the folder.
        """
        if (folder / _OLD_POLICY).exists():
            raise CheckpointError(
                f"{folder} holds {_OLD_POLICY}: pickles, which earlier versions wrote and which "
                "are no longer read; train the agent again"
            )
        place = folder / _SOURCE
        if is_learning_agent(place):
            self._source = load_agent(place)
        elif place.is_dir():
            self._source = RecBoleAgent.load(place, progress=False)
        else:
            self._source = PopAgent()
        self._restored = True


def _named_source(name: str, seed: int) -> Agent:
    from usermirror_gym.agents.registry import make_agent

    source = make_agent(name, seed=seed, progress=False)
    if not isinstance(source, PopAgent | RecBoleAgent | LearningAgent):
        raise ConfigError(
            f"agent PPO, source: {name!r} proposes no shortlist that can be saved; use Pop, a "
            "RecBole model or the folder of a trained agent"
        )
    return source


def _with_slots(observations: Observation, slots: int) -> Observation:
    """With the last choice as the policy knows it: places behind its last slot count as that."""
    width = observations["last_slate"].shape[1]
    choice = observations["last_choice"].reshape(-1)
    known = np.where(choice == width, slots, np.minimum(choice, slots - 1))
    return observations | {"last_choice": known}


def _seed(*parts: int) -> int:
    """One number below 2**31 from several."""
    return int(np.random.default_rng(list(parts)).integers(2**31))


def _losses(model: PPO) -> dict[str, float]:
    names = ("loss", "value_loss", "policy_gradient_loss", "entropy_loss", "approx_kl")
    logged = model.logger.name_to_value
    return {name: float(logged[f"train/{name}"]) for name in names if f"train/{name}" in logged}
