"""SlateEnv: one simulated user behind ``gymnasium.Env``."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from usermirror_gym.configs.session import SLATE_SIZE
from usermirror_gym.envs.core import SessionCore, StepResult
from usermirror_gym.envs.render import RENDERERS, StepView, step_view
from usermirror_gym.envs.rewards import RewardSpec
from usermirror_gym.envs.session import SessionModel
from usermirror_gym.envs.spaces import Duplicates, check_options, check_setup, prepare, spaces_of
from usermirror_gym.envs.world import World, check_users, make_world
from usermirror_gym.errors import ConfigError
from usermirror_gym.types import IntArray, Observation


class SlateEnv(gymnasium.Env[Observation, IntArray]):
    """A user looks at a slate and takes one item or none, until they leave.

    Args:
        world: the data, the simulator and the users; or leave it out and pass the arguments of
            :func:`~usermirror_gym.envs.make_world` (``dataset``, ``simulator``, ...).
        slate_size: K, items per list.
        session: when the user leaves: ``"patience"``, ``"stay"``, an int (the patience), a
            session model, or the name of somebody else's (``"mypkg:Hazard"``).
        reward: the name of a component (also of somebody else's: ``"mypkg.rewards:dwell"``),
            weights of several (``"click=1,satisfaction=0.2"``, or a mapping), or a function.
        duplicates: what happens to an item that is in the slate twice: ``"drop"`` shows it once
            (the list gets shorter; counted in ``info["duplicates"]``), ``"raise"`` is an error.
        text: whether ``info["text"]`` tells profile, history and list in words.
        render_mode: ``"ansi"`` or ``"html"``: :meth:`render` returns the last step as a string.

    ``info`` after a step: ``probabilities`` (K + 1,), ``choice``, ``item`` (0 = none), ``rating``
    (NaN = none), ``rewards`` (raw components), ``duplicates``, ``user_id``, ``shown`` (the list as
    the user saw it), and where the simulator gives them ``rationale``, ``prompt_tokens``,
    ``cached_tokens``.

    ``reset(options={"user_id": 17})`` starts the session of that user.  The horizon is
    Gymnasium's: ``gym.make(..., max_episode_steps=20)``.
    """

    metadata = {"render_modes": list(RENDERERS), "render_fps": 1}  # noqa: RUF012 - Gymnasium's form

    def __init__(
        self,
        world: World | None = None,
        *,
        slate_size: int = SLATE_SIZE,
        session: SessionModel | str | int = "patience",
        reward: RewardSpec = "click",
        duplicates: Duplicates = "drop",
        text: bool = True,
        render_mode: str | None = None,
        **world_options: Any,
    ) -> None:
        self.world = world or make_world(**world_options)
        check_setup(self.world, slate_size, duplicates, render_mode, self.metadata["render_modes"])
        self.slate_size = slate_size
        self.duplicates: Duplicates = duplicates
        self.text = text
        self.render_mode = render_mode
        self.core = SessionCore(self.world, 1, slate_size, session, reward)
        observation_space, self.action_space = spaces_of(self.world, slate_size)
        self.observation_space = observation_space  # type: ignore[assignment]
        self._rows = np.zeros(1, np.int64)
        self._over = True
        self._last: StepResult | None = None
        self._return = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a session; ``options={"user_id": id}`` chooses whose.

        Raises:
            ConfigError, UnknownNameError: options that do not exist or do not fit.
        """
        user = check_options(options, ("user_id",)).get("user_id")
        if user is not None:
            user = check_users(user, self.world.split.dataset.n_users).reshape(-1)
            if len(user) != 1:
                raise ConfigError(f"options['user_id'] must be one id, got {len(user)}")
        super().reset(seed=seed)
        if self.core.generators[0] is not self.np_random:
            self.core.seed_row(0, self.np_random)
        self.core.reset_rows(self._rows, user)
        self._over, self._last, self._return = False, None, 0.0
        return self._observation(), self._info(None, 0)

    def step(self, action: IntArray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Show a slate.

        Raises:
            ActionError: the slate cannot be shown.
            gymnasium.error.ResetNeeded: the session is over.
        """
        if self._over:
            raise gymnasium.error.ResetNeeded("the session is over (or not begun): call reset()")
        n_items = self.world.split.dataset.n_items
        slates, dropped = prepare(action, (self.slate_size,), n_items, self.duplicates)
        result = self.core.step(slates, np.ones(1, np.bool_))
        self._last, self._over = result, bool(result.terminated[0])
        reward = float(result.rewards[0])
        self._return += reward
        info = self._info(result, int(dropped[0]))
        return self._observation(), reward, self._over, False, info

    def render(self) -> str | None:
        """The last step as text or HTML, by ``render_mode``; ``None`` without one."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() needs render_mode='ansi' or 'html' in gym.make")
            return None
        return RENDERERS[self.render_mode](self.view())

    def view(self) -> StepView:
        """Everything a person would want to see of the last step, in words."""
        return step_view(self.core, 0, self._last, self._return)

    def _observation(self) -> Observation:
        return {name: values[0] for name, values in self.core.observe().items()}

    def _info(self, result: StepResult | None, dropped: int) -> dict[str, Any]:
        info: dict[str, Any] = {"user_id": int(self.core.user_ids[0])}
        if result is not None:
            info |= step_info(result, 0) | {"duplicates": dropped}
        if self.text:
            info["text"] = self.view().words()
        return info


def step_info(result: StepResult, index: int) -> dict[str, Any]:
    """What one live row's info says of a step, as plain Python and fresh arrays."""
    info: dict[str, Any] = {
        "probabilities": result.outcome.probs[index].copy(),
        "shown": result.outcome.slates[index].copy(),
        "choice": int(result.outcome.choices[index]),
        "item": int(result.items[index]),
        "rating": float(result.outcome.ratings[index]),
        "rewards": {name: float(raw[index]) for name, raw in result.components.items()},
    }
    batch = result.batch
    if batch.rationales is not None:
        info["rationale"] = batch.rationales[index]
    if batch.prompt_tokens is not None and batch.cached_tokens is not None:
        info["prompt_tokens"] = int(batch.prompt_tokens[index])
        info["cached_tokens"] = int(batch.cached_tokens[index])
    return info
