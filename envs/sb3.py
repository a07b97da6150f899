"""The native vector environment as a Stable-Baselines3 ``VecEnv``.

env = gym.make_vec("UserMirror/Slate-v0", num_envs=64, autoreset_mode="Disabled")
env = VectorShortlistWrapper(env, agent, features_only=True)
PPO("MultiInputPolicy", SB3VecEnv(env)).learn(100_000)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.wrappers.vector import DictInfoToList

from usermirror_gym.errors import ConfigError, MissingDependencyError

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise MissingDependencyError("stable_baselines3", "rl") from error


class SB3VecEnv(VecEnv):
    """Stable-Baselines3's semantics over a Gymnasium vector environment.

    A session that ends is reset within the same step: the returned observation is the first of
    the next session, and ``infos[i]`` holds the last one as ``terminal_observation`` and, for the
    horizon, ``TimeLimit.truncated``.  Actions always count from 0, as Stable-Baselines3 assumes;
    the offset of item ids is added here.

    Args:
        env: a vector environment whose ``autoreset_mode`` is ``DISABLED``, possibly wrapped.
    """

    def __init__(self, env: VectorEnv) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.DISABLED:
            raise ConfigError(
                "SB3VecEnv resets rows itself: make the environment with "
                f'autoreset_mode="Disabled", got {mode}'
            )
        self.env = DictInfoToList(env)
        self._actions: np.ndarray | None = None
        self._start = getattr(env.single_action_space, "start", 0)
        super().__init__(
            env.num_envs, env.single_observation_space, _from_zero(env.single_action_space)
        )

    def reset(self) -> Any:
        """Start all rows with the seeds and options given before; both are used once."""
        seeds = None if all(s is None for s in self._seeds) else list(self._seeds)
        observations, self.reset_infos = self.env.reset(
            seed=seeds,  # type: ignore[arg-type]
            options=self._reset_options_of_all(),
        )
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Take note of the actions."""
        self._actions = np.asarray(actions) + self._start

    def step_wait(self) -> Any:
        """Step all rows; those that ended begin anew."""
        observations, rewards, terminated, truncated, infos = self.env.step(self._actions)
        dones = terminated | truncated
        for row, row_info in enumerate(infos):
            row_info["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
        if dones.any():
            for row in dones.nonzero()[0]:
                infos[row]["terminal_observation"] = _row(observations, row)
            observations, begun = self.env.reset(options={"reset_mask": dones})
            for row in dones.nonzero()[0]:
                self.reset_infos[row] = begun[row]
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the vector environment, which all rows share, once per row asked for."""
        return [_find(self.env, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the environment for all rows at once.

        Raises:
            ConfigError: for some rows only.
        """
        if len(set(self._get_indices(indices))) < self.num_envs:
            raise ConfigError(f"all rows share {attr_name!r}: leave out indices")
        setattr(self.env.unwrapped, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list:
        """Call a method of the vector environment once; its answer, once per row asked for."""
        answer = _find(self.env, method_name)(*args, **kwargs)
        return [answer] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Whether a wrapper of that class is around the vector environment, once per row."""
        env: Any = self.env
        while isinstance(env, VectorWrapper) and not isinstance(env, wrapper_class):
            env = env.env
        return [isinstance(env, wrapper_class)] * len(list(self._get_indices(indices)))

    def _reset_options_of_all(self) -> dict[str, Any] | None:
        """Options of the rows as one dict of lists."""
        names = {name for options in self._options for name in options}
        try:
            return {name: [o[name] for o in self._options] for name in sorted(names)} or None
        except KeyError as error:
            raise ConfigError(f"option {error} must be set for all rows or for none") from error


def _from_zero(space: spaces.Space) -> spaces.Space:
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec, dtype=space.dtype)
    return spaces.Discrete(space.n) if isinstance(space, spaces.Discrete) else space


def _row(observations: Any, row: int) -> Any:
    if isinstance(observations, dict):
        return {name: values[row] for name, values in observations.items()}
    return observations[row]


def _find(env: Any, name: str) -> Any:
    """An attribute of the outermost wrapper that has it."""
    while isinstance(env, VectorWrapper) and not hasattr(env, name):
        env = env.env
    return getattr(env, name)
