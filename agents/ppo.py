"""A re-ranker over a recommender's shortlist, trained by Stable-Baselines3's PPO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from usermirror_gym.agents.base import Agent, Transition
from usermirror_gym.agents.learning import Arrays, LearningAgent
from usermirror_gym.agents.recbole_agent import RecBoleAgent
from usermirror_gym.agents.rl_settings import PPOSettings
from usermirror_gym.agents.rl_store import is_learning_agent, load_agent
from usermirror_gym.agents.simple import PopAgent
from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError, MissingDependencyError
from usermirror_gym.types import FloatArray, IntArray, Observation

if TYPE_CHECKING:
    from stable_baselines3 import PPO

    from usermirror_gym.envs import SlateVectorEnv
    from usermirror_gym.envs.shortlist import Shortlist

_POLICY, _SOURCE = "policy.zip", "source"


class PPOAgent(LearningAgent):
    """PPO (Schulman et al. 2017) as it comes from Stable-Baselines3, on the shortlist wrapper.

    A source proposes candidates, best first; the policy (``MultiInputPolicy``: two hidden layers
    over the features of :class:`~usermirror_gym.envs.shortlist.Shortlist`) picks K positions, each
    by a softmax of its own (``MultiDiscrete``).  It begins close to the source's order.  Without
    ``explore`` every slot takes its most probable position that is not yet taken; while it trains,
    the environment shows an item that was picked twice once.

    One iteration is one rollout of whole sessions from new seeds and its PPO epochs, so that
    Stable-Baselines3's own file (weights and optimizer) is all that going on needs.  Before the
    first iteration, and beyond K items, the source's order stands.

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
            self._model = self._new_model(venv, env.max_episode_steps)
        model = self._model
        model.set_env(venv, force_reset=True)
        steps = env.num_envs * env.max_episode_steps
        model.n_steps, model.rollout_buffer.buffer_size = env.max_episode_steps, env.max_episode_steps
        model.set_random_seed(_seed(self.seed, self.iteration))
        venv.seed(seeds[0])
        venv.set_options([{"user_id": int(user)} for user in users])
        model.learn(steps, log_interval=None)
        self.iteration += 1
        rewards = model.rollout_buffer.rewards
        return {"steps": steps, "return": float(rewards.sum()) / env.num_envs, **_losses(model)}

    def _venv(self, env: SlateVectorEnv) -> Any:
        from usermirror_gym.envs import VectorShortlistWrapper

        try:
            from usermirror_gym.envs.sb3 import SB3VecEnv
        except ImportError as error:
            raise MissingDependencyError("stable_baselines3", "rl") from error
        size = self.settings.shortlist
        return SB3VecEnv(VectorShortlistWrapper(env, self.source, size, features_only=True))

    def _new_model(self, venv: Any, horizon: int) -> PPO:
        import torch
        from stable_baselines3 import PPO

        own = self.settings
        model = PPO(
            "MultiInputPolicy", venv, n_steps=horizon, batch_size=own.batch_size,
            n_epochs=own.epochs, learning_rate=own.learning_rate, gamma=own.discount,
            ent_coef=own.entropy, policy_kwargs={"net_arch": [own.hidden, own.hidden]},
            seed=_seed(self.seed), device="cpu",
        )  # fmt: skip
        k, size = len(venv.action_space.nvec), own.shortlist
        with torch.no_grad():  # slot k begins with a liking for the source's k-th candidate
            model.policy.action_net.bias.view(k, size).diagonal().add_(own.trust)
        return model

    def _begin(self) -> None:
        if not self.trained and self.iteration == 0 and not self._loading:
            self._model = None

    def _recommend(self, observations: Observation, k: int) -> IntArray:
        size = self.settings.shortlist
        candidates = np.asarray(self.source.recommend(observations, max(k, size)))
        if self._model is None:
            return candidates[:, :k]
        slots = len(self._model.action_space.nvec)  # type: ignore[attr-defined]
        logits = self._logits(observations, candidates[:, :size], slots)
        order = np.concatenate([_without_repeats(logits), np.full((len(logits), 0), 0)], axis=1)
        return _then_the_rest(candidates, order)[:, :k]

    def _logits(self, observations: Observation, candidates: IntArray, slots: int) -> FloatArray:
        """``(N, K, size)`` log-probabilities of the positions, for every slot."""
        import torch

        assert self._model is not None
        shortlist = self._shortlist(observations, slots)
        seen = shortlist.augment(_with_slots(observations, slots), candidates)
        tensors, _ = self._model.policy.obs_to_tensor(seen)
        with torch.no_grad():
            found = self._model.policy.get_distribution(tensors).distribution
        return torch.stack([slot.logits for slot in found], dim=1).double().numpy()
