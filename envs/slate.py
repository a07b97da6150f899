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
    """One simulated user, who looks at slates and takes one item of each or none, until they leave.

    ## Description

    A recommender shows a user a list of K items, the slate. The user is a simulator (a language
    model, by default) that reads who they are, what they had before T0 and what happened in this
    session, and answers with a probability for every item and for *none of these*. The environment
    draws one of them, and all randomness is its own. K is `slate_size`, H is `history_size`.

    ```python
    >>> import gymnasium as gym
    >>> env = gym.make("usermirror_gym:UserMirror/Slate-v0", simulator="surrogate", slate_size=3)
    >>> observation, info = env.reset(seed=0, options={"user_id": 300})
    >>> observation, reward, terminated, truncated, info = env.step([50, 100, 181])
    >>> info["shown"], info["probabilities"].shape
    (array([ 50, 100, 181]), (4,))

    ```

    ## Action Space

    The action is the slate: an array of shape `(K,)` of item ids in `1..n_items`, in the order in
    which they are shown. The space is `MultiDiscrete` with `start=1`, dtype int64; 0 is padding and
    no item.

    ## Observation Space

    A flat `Dict` of fixed-shape arrays. `min_rating` and `max_rating` are those of the data set
    (`min_rating` at most 0).

    | Key               | Shape  | Type    | Min        | Max        | Content                     |
    |-------------------|--------|---------|------------|------------|-----------------------------|
    | `user_id`         | `()`   | int64   | 0          | n_users    | whose session it is         |
    | `history_items`   | `(H,)` | int64   | 0          | n_items    | oldest first, then zeros    |
    | `history_ratings` | `(H,)` | float32 | min_rating | max_rating | of each, 0 without a rating |
    | `history_length`  | `()`   | int64   | 0          | H          | how many entries are real   |
    | `last_slate`      | `(K,)` | int64   | 0          | n_items    | shown last, zeros at first  |
    | `last_choice`     | `()`   | int64   | 0          | K          | its place, K: none of these |
    | `turns`           | `(1,)` | int64   | 0          | 2**31 - 1  | lists seen in this session  |

    What is chosen is appended to the history; a full one loses its oldest item.

    ## Rewards

    | Name             | Reward of a step                                                      |
    |------------------|-----------------------------------------------------------------------|
    | `click`          | 1 if an item was taken, else 0                                        |
    | `expected_click` | the probability that any item is taken: its mean, with lower variance |
    | `target_rank`    | 1 / place of the item taken, 0 without one                            |
    | `satisfaction`   | the simulated rating of the item taken, 0 without one                 |

    `reward` is one of these names, somebody else's (`"mypkg.rewards:dwell"`, or an entry point),
    weights of several (`"click=1,satisfaction=0.2"`, or a mapping), or a function of an
    :class:`~usermirror_gym.envs.Outcome`. The raw components are in `info`.

    ## Starting State

    A user drawn evenly from those with `min_history` interactions before T0, or the one of
    `reset(options={"user_id": 17})`, with the newest H items of their real history at T0.

    ## Episode End

    1. Termination: the user leaves, as the session model says; by default after three lists in a
       row without a choice.
    2. Truncation: the episode is longer than `max_episode_steps` of `gym.make`, 20 by default.

    ## Arguments

    | Parameter           | Default            | Description                                      |
    |---------------------|--------------------|--------------------------------------------------|
    | `slate_size`        | `5`                | K, items per list                                |
    | `session`           | `"patience"`       | `"patience"`, `"stay"`, an int, a session model  |
    | `reward`            | `"click"`          | see Rewards                                      |
    | `duplicates`        | `"drop"`           | `"drop"` shows an item once, `"raise"`: an error |
    | `text`              | `True`             | whether `info["text"]` tells all in words        |
    | `render_mode`       | `None`             | `"ansi"` or `"html"`: what `render()` returns    |
    | `world`             | `None`             | of `make_world`, in place of all that follows    |
    | `dataset`           | `"ml-100k"`        | a name, a YAML file, a data set, or a split      |
    | `data_folder`       | `None`             | where its raw files are, if it needs any         |
    | `simulator`         | `"smollm2-ml100k"` | a name, a folder, or an object with `choose`     |
    | `simulator_options` | `None`             | settings of the simulator                        |
    | `history_size`      | `50`               | H                                                |
    | `min_history`       | `5`                | users with fewer interactions start no session   |
    | `users`             | `None`             | the ids that may, in place of `min_history`      |
    | `ratings`           | `None`             | rates chosen items; `None`: a bias model         |

    With `session=2` the user leaves after two lists in a row without a choice; `"mypkg:Hazard"` is
    somebody else's model. An item that is in a slate twice is shown once, and the list gets
    shorter. What `make_world` takes is documented at :func:`~usermirror_gym.envs.make_world`.

    ## Information

    `reset` tells `user_id` and `text`, `step` all of these:

    | Key             | Content                                                                |
    |-----------------|------------------------------------------------------------------------|
    | `user_id`       | whose session it is                                                    |
    | `probabilities` | `(K + 1,)`, the last one is that of *none of these*                    |
    | `shown`         | `(K,)`, the list as the user saw it, zeros at the end of a shorter one |
    | `choice`        | place of the item taken, K: none of these                              |
    | `item`          | id of the item taken, 0: none                                          |
    | `rating`        | its simulated rating, NaN: none                                        |
    | `rewards`       | raw components by name                                                 |
    | `duplicates`    | how many copies were left out of the list                              |
    | `text`          | the last step in words, with `text=True`                               |
    | `rationale`     | what the user thought, where the simulator tells it                    |
    | `prompt_tokens` | tokens of the question, where a language model was asked               |
    | `cached_tokens` | how many of them were not computed anew                                |

    ## Version History

    * v0: first release.
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
            outcome, batch = result.outcome, result.batch
            info |= {
                "probabilities": outcome.probs[0].copy(),
                "shown": outcome.slates[0].copy(),
                "choice": int(outcome.choices[0]),
                "item": int(result.items[0]),
                "rating": float(outcome.ratings[0]),
                "rewards": {name: float(raw[0]) for name, raw in result.components.items()},
            }
            if batch.rationales is not None:
                info["rationale"] = batch.rationales[0]
            if batch.prompt_tokens is not None and batch.cached_tokens is not None:
                info["prompt_tokens"] = int(batch.prompt_tokens[0])
                info["cached_tokens"] = int(batch.cached_tokens[0])
            info["duplicates"] = dropped
        if self.text:
            info["text"] = self.view().words()
        return info
