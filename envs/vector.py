"""SlateVectorEnv: N simulated users behind ``gymnasium.vector.VectorEnv``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from usermirror_gym.configs.session import SLATE_SIZE
from usermirror_gym.envs.core import SessionCore, StepResult
from usermirror_gym.envs.rewards import RewardSpec
from usermirror_gym.envs.session import SessionModel
from usermirror_gym.envs.spaces import Duplicates, check_options, check_setup, prepare, spaces_of
from usermirror_gym.envs.world import World, check_users, make_world
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.types import BoolArray, FloatArray, IntArray, Observation


class SlateVectorEnv(VectorEnv[Observation, IntArray, np.ndarray]):
    """N simulated users at once, with one simulator call a step.

    ## Description

    Row i of `reset(seed=s)` lives exactly like `SlateEnv.reset(seed=s + i)`. Spaces, rewards,
    starting state and episode end of a row are those of :class:`~usermirror_gym.envs.SlateEnv`;
    every array gets a leading axis of N = `num_envs`.

    ## Arguments

    Those of :class:`~usermirror_gym.envs.SlateEnv` except `text`, and

    | Parameter           | Default      | Description                                            |
    |---------------------|--------------|--------------------------------------------------------|
    | `num_envs`          | `1`          | N                                                      |
    | `max_episode_steps` | `20`         | the horizon, after which rows are truncated; or `None` |
    | `autoreset_mode`    | `"NextStep"` | or `"Disabled"`; see below                             |

    `NEXT_STEP`: the step after the end of a session starts the next one (reward 0, its action is
    ignored, no simulator call); the last observation of a session is returned by the step that
    ended it.  `DISABLED`: rows that ended stay still, at no cost, until
    `reset(options={"reset_mask": mask})`.  `reset(seed=[...])` seeds each row by its own number;
    `options={"user_id": ids}` chooses whose sessions start.

    ## Information

    Arrays over all rows: `probabilities` (N, K + 1), `shown` (N, K), `choice`, `item`, `rating`,
    `duplicates`, `user_id`, `rewards/<component>`, each with a mask `_<key>` of the rows to which
    it applies, as Gymnasium's vector environments do; where the simulator gives them also
    `rationales`, `prompt_tokens` and `cached_tokens`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        world: World | None = None,
        *,
        max_episode_steps: int | None = 20,
        slate_size: int = SLATE_SIZE,
        session: SessionModel | str | int = "patience",
        reward: RewardSpec = "click",
        duplicates: Duplicates = "drop",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **world_options: Any,
    ) -> None:
        self.world = world or make_world(**world_options)
        check_setup(self.world, slate_size, duplicates, render_mode, [])
        mode = _mode(autoreset_mode)
        if num_envs < 1 or (max_episode_steps is not None and max_episode_steps < 1):
            raise ConfigError(
                f"num_envs and max_episode_steps must be at least 1, got {num_envs} and "
                f"{max_episode_steps}"
            )
        self.metadata = {"render_modes": [], "autoreset_mode": mode}
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.slate_size = slate_size
        self.duplicates: Duplicates = duplicates
        self.render_mode = render_mode
        self.core = SessionCore(self.world, num_envs, slate_size, session, reward)
        self.single_observation_space, self.single_action_space = spaces_of(self.world, slate_size)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rows = np.arange(num_envs)
        self._over = np.ones(num_envs, np.bool_)
        self._begun = False

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Start all sessions, or those of ``options["reset_mask"]``.

        Raises:
            ConfigError, UnknownNameError: seeds, mask, user ids or option names do not fit.
        """
        options = check_options(options, ("user_id", "reset_mask"))
        mask = self._mask(options.get("reset_mask"))
        user_ids = self._user_ids(options.get("user_id"), mask)
        self._seed(seed, mask)
        self.core.reset_rows(self._rows[mask], user_ids)
        self._over[mask] = False
        self._begun = True
        return self.core.observe(), self._user_info()

    def step(
        self, actions: IntArray
    ) -> tuple[Observation, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Show one slate per row.

        Raises:
            ActionError: a slate cannot be shown; names the row.  Slates of resting rows are not
                looked at, apart from their shape and dtype.
            gymnasium.error.ResetNeeded: ``reset`` was not called yet.
        """
        if not self._begun:
            raise ResetNeeded("call reset() before step()")
        resting = self._over.nonzero()[0]
        slates, dropped = prepare(
            actions, (self.num_envs, self.slate_size), self.world.split.dataset.n_items,
            self.duplicates, resting if len(resting) else None,
        )  # fmt: skip
        info: dict[str, Any] = {}
        if len(resting) < self.num_envs:
            result = self.core.step(slates, ~self._over)
            rewards, terminated = result.rewards, result.terminated
            truncated = self._truncated(result.live)
            info = self._step_info(result, dropped)
        else:
            rewards = np.zeros(self.num_envs)
            terminated, truncated = np.zeros((2, self.num_envs), np.bool_)
        over = terminated | truncated
        if self.metadata["autoreset_mode"] is AutoresetMode.DISABLED:
            over |= self._over
        elif len(resting):
            self.core.reset_rows(resting)
        self._over = over
        return self.core.observe(), rewards, terminated, truncated, info | self._user_info()

    @property
    def live(self) -> BoolArray:
        """``(N,)`` rows whose session goes on; the others rest."""
        return ~self._over

    def _truncated(self, live: BoolArray) -> BoolArray:
        if self.max_episode_steps is None:
            return np.zeros(self.num_envs, np.bool_)
        return live & (self.core.turns >= self.max_episode_steps)

    def _user_info(self) -> dict[str, Any]:
        return {"user_id": self.core.user_ids.copy(), "_user_id": np.ones(self.num_envs, np.bool_)}

    def _step_info(self, result: StepResult, dropped: IntArray) -> dict[str, Any]:
        outcome, batch = result.outcome, result.batch
        columns: dict[str, np.ndarray] = {
            "probabilities": outcome.probs,
            "shown": outcome.slates,
            "choice": outcome.choices,
            "item": result.items,
            "rating": outcome.ratings,
            "duplicates": dropped,
        }
        for name, raw in result.components.items():
            columns[f"rewards/{name}"] = raw
        for name in ("prompt_tokens", "cached_tokens", "rationales"):
            values = getattr(batch, name)
            if values is not None:
                columns[name] = self._spread(np.asarray(values), result.rows)
        return columns | {f"_{name}": result.live for name in columns}

    def _spread(self, values: np.ndarray, rows: IntArray) -> np.ndarray:
        """Values of the live rows in an array over all rows, empty elsewhere."""
        full = np.zeros(self.num_envs, values.dtype)
        full[rows] = values
        return full

    def _mask(self, mask: Any) -> BoolArray:
        if mask is None:
            return np.ones(self.num_envs, np.bool_)
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise ConfigError(
                f"reset_mask must be {self.num_envs} booleans, one of them True, got {mask!r}"
            )
        if not self._begun:
            raise ConfigError("the first reset() starts all rows: call it without reset_mask")
        return mask

    def _seed(self, seed: int | Sequence[int | None] | None, mask: BoolArray) -> None:
        seeds: list[int | None]
        if seed is None or isinstance(seed, (int, np.integer)):
            super().reset(seed=None if seed is None else int(seed))  # of this env as a whole
            seeds = [None if seed is None else int(seed) + row for row in range(self.num_envs)]
        else:
            seeds = [None if s is None else int(s) for s in seed]
        if len(seeds) != self.num_envs:
            raise ConfigError(
                f"{len(seeds)} seeds for {self.num_envs} environments; give one per row, or an "
                "int s for s, s + 1, ..."
            )
        for row in self._rows[mask]:
            if seeds[row] is not None or self.core.generators[row] is None:
                self.core.seed_row(row, seeding.np_random(seeds[row])[0])

    def _user_ids(self, ids: Any, mask: BoolArray) -> IntArray | None:
        if ids is None:
            return None
        if np.shape(ids) not in ((), (self.num_envs,)):
            raise ConfigError(
                f"options['user_id'] must be one id or {self.num_envs}, got shape {np.shape(ids)}"
            )
        ids = np.broadcast_to(np.asarray(ids), (self.num_envs,))[mask]
        return check_users(ids, self.world.split.dataset.n_users)


def _mode(mode: AutoresetMode | str) -> AutoresetMode:
    modes = {m.value: m for m in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED)}
    name = mode.value if isinstance(mode, AutoresetMode) else mode
    if name not in modes:
        raise UnknownNameError("autoreset mode", name, modes)
    return modes[name]
