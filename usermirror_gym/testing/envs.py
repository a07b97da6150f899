"""A check of native vector environments: what Gymnasium's ``check_env`` does for single ones.

    from usermirror_gym.testing.envs import check_vector_env

    def make_env(num_envs, autoreset_mode):
        return gym.make_vec("My/Env-v0", num_envs=num_envs, autoreset_mode=autoreset_mode)

    check_vector_env(make_env)

The environment must support the autoreset modes NEXT_STEP and DISABLED, and its episodes must end
within ``steps`` steps of random actions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium.spaces import Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

MakeEnv = Callable[..., VectorEnv]
Episode = list[tuple[Any, ...]]


def check_vector_env(
    make_env: MakeEnv, *, num_envs: int = 4, steps: int = 120, seed: int = 0
) -> None:
    """Check everything that Gymnasium's vector API promises.

    - Spaces: the batched ones are those of the single ones; observations lie in them, with exactly
      their shapes and dtypes; rewards are floats, terminations and truncations booleans, ``(N,)``.
    - Info: every ``key`` has a boolean mask ``_key`` of shape ``(N,)``.
    - Arrays that were returned never change afterwards.
    - Seeds: equal seeds give equal episodes, in a new environment and in a used one; an integer
      seed s means s, s + 1, ...; a row does not depend on how many others there are.
    - Autoreset: the last observation of an episode is returned by the step that ended it; with
      NEXT_STEP the next step starts an episode with reward 0; with DISABLED
      ``reset(options={"reset_mask": mask})`` does, and leaves the other rows alone.  Both modes
      live through the same episodes.

    Args:
        make_env: called as ``make_env(num_envs=..., autoreset_mode=...)`` with a member of
            :class:`gymnasium.vector.AutoresetMode`.
        num_envs: N, at least 2.
        steps: how many steps each check may take.
        seed: of the environments and of the actions.

    Raises:
        AssertionError: says which promise is broken, where, and how.
    """
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED):
        env = make_env(num_envs=num_envs, autoreset_mode=mode)
        check_spaces(env, num_envs, mode)
        check_steps(env, steps, seed)
        env.close()
    check_seeds(make_env, num_envs, steps, seed)
    check_autoreset(make_env, num_envs, steps, seed)


def check_spaces(env: VectorEnv, num_envs: int, mode: AutoresetMode) -> None:
    """Spaces and metadata of one environment."""
    _require(env.num_envs == num_envs, f"num_envs is {env.num_envs}, {num_envs} were asked for")
    stated = env.metadata.get("autoreset_mode")
    _require(stated is mode, f"metadata['autoreset_mode'] is {stated!r}, expected {mode!r}")
    for kind in ("observation", "action"):
        single, batched = getattr(env, f"single_{kind}_space"), getattr(env, f"{kind}_space")
        expected = batch_space(single, num_envs)
        _require(
            batched == expected,
            f"{kind}_space is not single_{kind}_space batched {num_envs} times: {batched}, "
            f"expected {expected}",
        )


def check_steps(env: VectorEnv, steps: int, seed: int) -> None:
    """Shapes, dtypes, masks and freshness of everything an environment returns."""
    env.action_space.seed(seed)
    answer = env.reset(seed=seed)
    _require(
        isinstance(answer, tuple) and len(answer) == 2, "reset() must return (observations, info)"
    )
    observations, info = answer
    _check_observations(env, observations, "reset()")
    _check_info(env, info, "reset()")
    kept: list[tuple[str, np.ndarray, np.ndarray]] = []
    for number in range(steps):
        step = env.step(env.action_space.sample())
        _require(len(step) == 5, f"step() must return 5 values, got {len(step)}")
        observations, rewards, terminated, truncated, info = step
        where = f"step {number}"
        _check_observations(env, observations, where)
        _check_flags(env, rewards, terminated, truncated, where)
        _check_info(env, info, where)
        for name, array, copy in kept:
            _require(_same(array, copy), f"{name} was changed by a later step: return a new array")
        kept = [
            (f"{where}: {name}", array, array.copy())
            for name, array in _leaves(
                {"observation": observations, "reward": rewards, "terminated": terminated,
                 "truncated": truncated, "info": info}
            )
        ]  # fmt: skip
        over = terminated | truncated
        if env.metadata["autoreset_mode"] is AutoresetMode.DISABLED and over.any():
            env.reset(options={"reset_mask": over})


def check_seeds(make_env: MakeEnv, num_envs: int, steps: int, seed: int) -> None:
    """Equal seeds, equal episodes."""
    env = make_env(num_envs=num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)
    first = record(env, steps, seed, seed)
    seeds = [seed + row for row in range(num_envs)]
    other = make_env(num_envs=num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)
    _compare(first, record(other, steps, seed, seed), "a new environment with the same seed")
    _compare(first, record(env, steps, seed, seed), "the same environment, seeded again")
    _compare(first, record(env, steps, seeds, seed), f"seed={seeds} instead of seed={seed}")
    for row in (0, num_envs - 1):
        alone = make_env(num_envs=1, autoreset_mode=AutoresetMode.NEXT_STEP)
        episodes = record(alone, steps, seed + row, seed, rows=[row])
        _compare(first[row : row + 1], episodes, f"row {row} alone in an environment of one")


def check_autoreset(make_env: MakeEnv, num_envs: int, steps: int, seed: int) -> None:
    """Both modes give the same episodes, whole ones, with their last observations."""
    next_step, disabled = (
        record(make_env(num_envs=num_envs, autoreset_mode=mode), steps, seed, seed)
        for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED)
    )
    ended = sum(len(episodes) - 1 for episodes in next_step)
    _require(ended > 0, f"no episode ended within {steps} steps: give the check a shorter horizon")
    _compare(next_step, disabled, "autoreset DISABLED instead of NEXT_STEP")


def record(
    env: VectorEnv, steps: int, seed: Any, action_seed: int, rows: list[int] | None = None
) -> list[list[Episode]]:
    """Episodes of every row: (observation,), (observation, reward, terminated, truncated), ...

    The j-th action of a row depends on its number and on j alone, however often it was reset.
    """
    numbers = list(range(env.num_envs)) if rows is None else rows
    policies = [_actions(env.single_action_space, action_seed + 1000 * n) for n in numbers]
    pending = [next(policy) for policy in policies]
    observations, _ = env.reset(seed=seed)
    episodes: list[list[Episode]] = [[[(_row(observations, r),)]] for r in range(env.num_envs)]
    over = np.zeros(env.num_envs, np.bool_)
    for _ in range(steps):
        observations, rewards, terminated, truncated, _ = env.step(
            np.stack(pending).astype(env.action_space.dtype)
        )
        for row in range(env.num_envs):
            step = (_row(observations, row), rewards[row], terminated[row], truncated[row])
            if over[row]:
                _require(
                    step[1] == 0 and not step[2] and not step[3],
                    f"row {row}: the step that starts an episode (NEXT_STEP) must have reward 0 "
                    f"and end nothing, got {step[1:]}",
                )
                episodes[row].append([step[:1]])
            else:
                episodes[row][-1].append(step)
                pending[row] = next(policies[row])
        over = terminated | truncated
        if env.metadata["autoreset_mode"] is AutoresetMode.DISABLED and over.any():
            _reset_rows(env, observations, over, episodes)
            over = np.zeros(env.num_envs, np.bool_)
    return episodes


def _reset_rows(
    env: VectorEnv, before: Any, mask: np.ndarray, episodes: list[list[Episode]]
) -> None:
    observations, _ = env.reset(options={"reset_mask": mask.copy()})
    for row in range(env.num_envs):
        if mask[row]:
            episodes[row].append([(_row(observations, row),)])
        else:
            _require(
                _same(_row(observations, row), _row(before, row)),
                f"row {row} was not in reset_mask, but its observation changed",
            )


def _actions(space: Space, seed: int) -> Iterator[Any]:
    own = deepcopy(space)  # other rows draw from the space, too
    own.seed(seed)
    while True:
        yield own.sample()


def _check_observations(env: VectorEnv, observations: Any, where: str) -> None:
    _require(
        env.observation_space.contains(observations),
        f"{where}: the observations are not in observation_space: {observations}",
    )
    sample = dict(_leaves({"observation": env.observation_space.sample()}))
    for name, array in _leaves({"observation": observations}):
        _require(
            array.shape == sample[name].shape and array.dtype == sample[name].dtype,
            f"{where}: {name} has shape {array.shape} and dtype {array.dtype}, its space says "
            f"{sample[name].shape} and {sample[name].dtype}",
        )


def _check_flags(env: VectorEnv, rewards: Any, terminated: Any, truncated: Any, where: str) -> None:
    for name, array, kind in (
        ("rewards", rewards, np.floating), ("terminations", terminated, np.bool_),
        ("truncations", truncated, np.bool_),
    ):  # fmt: skip
        _require(
            _is_column(array, env.num_envs, kind),
            f"{where}: {name} must be a {kind.__name__} array of shape ({env.num_envs},), "
            f"got {array!r}",
        )


def _is_column(array: Any, rows: int, kind: type[np.generic]) -> bool:
    shaped = isinstance(array, np.ndarray) and array.shape == (rows,)
    return shaped and np.issubdtype(array.dtype, kind)


def _check_info(env: VectorEnv, info: Any, where: str) -> None:
    _require(isinstance(info, dict), f"{where}: info must be a dict, got {type(info).__name__}")
    for name in info:
        if name.startswith("_"):
            continue
        mask = info.get(f"_{name}")
        _require(
            _is_column(mask, env.num_envs, np.bool_),
            f"{where}: info[{name!r}] needs a mask info['_{name}'] of {env.num_envs} booleans, "
            f"got {mask!r}",
        )


def _compare(a: list[list[Episode]], b: list[list[Episode]], what: str) -> None:
    """The common part of two recordings is equal (in one of them resets may have cost steps)."""
    for row, (first, second) in enumerate(zip(a, b, strict=True)):
        for number, (one, two) in enumerate(zip(first, second, strict=False)):
            last = number == min(len(first), len(second)) - 1
            _require(
                last or len(one) == len(two),
                f"{what}: episode {number} of row {row} has {len(two) - 1} steps, not "
                f"{len(one) - 1}",
            )
            for step, (x, y) in enumerate(zip(one, two, strict=False)):
                _require(
                    _same(x, y),
                    f"{what}: row {row}, episode {number}, step {step} differs: {y}, not {x}",
                )


def _leaves(tree: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """All arrays in nested dicts and tuples, with their paths."""
    if isinstance(tree, np.ndarray):
        yield name, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{name}[{key!r}]" if name else str(key))
    elif isinstance(tree, tuple):
        for index, value in enumerate(tree):
            yield from _leaves(value, f"{name}[{index}]")


def _row(tree: Any, row: int) -> Any:
    if isinstance(tree, dict):
        return {key: _row(value, row) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_row(value, row) for value in tree)
    return np.array(tree[row])


def _same(a: Any, b: Any) -> bool:
    try:
        np.testing.assert_equal(a, b)  # which looks into dicts and tuples, and takes NaN for NaN
    except AssertionError:
        return False
    return True


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
