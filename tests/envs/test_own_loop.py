"""Trainers that were not written for these environments run on the wrappers as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from usermirror_gym.agents.simple import PopAgent
from usermirror_gym.envs import SlateVectorEnv, VectorShortlistWrapper

SIZE, K = 12, 5


@pytest.fixture
def make(world_of, scripted):
    """N users who like an item the more the fewer others took it: the last candidates of Pop."""
    source = PopAgent()

    def answer(batch):
        wanted = answer.rarity[batch.slates] ** 3
        probs = np.column_stack([wanted, np.ones(len(wanted))])
        return probs / probs.sum(axis=1, keepdims=True)

    def make(n, **options):
        world = world_of(scripted(answer))
        source.fit(world.split)
        env = SlateVectorEnv(n, world, session="stay", reward="expected_click",
                             max_episode_steps=4, **options)  # fmt: skip
        answer.rarity = 1.5 * (1 - world.split.popularity / world.split.popularity.max())
        return VectorShortlistWrapper(env, source, SIZE, features_only=True)

    return make


def test_a_loop_in_the_manner_of_cleanrl_learns(make):
    """One file, no framework: a policy gradient over MultiDiscrete, Gymnasium's own autoreset."""
    torch.manual_seed(0)
    envs = make(16)
    sizes = [space.shape[0] for space in envs.single_observation_space.values()]
    nvec = envs.single_action_space.nvec.tolist()
    policy = torch.nn.Sequential(
        torch.nn.Linear(sum(sizes), 32), torch.nn.Tanh(), torch.nn.Linear(32, sum(nvec))
    )
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    observations, _ = envs.reset(seed=1)
    means, over = [], np.zeros(16, bool)
    for _ in range(300):
        names = envs.single_observation_space.keys()
        flat = torch.from_numpy(np.concatenate([observations[name] for name in names], axis=1))
        parts = policy(flat).split(nvec, 1)
        slots = [torch.distributions.Categorical(logits=part) for part in parts]
        actions = torch.stack([slot.sample() for slot in slots], dim=1)
        log_prob = sum(slot.log_prob(a) for slot, a in zip(slots, actions.T, strict=True))
        observations, rewards, terminated, truncated, _ = envs.step(actions.numpy())
        live = torch.from_numpy(~over)  # rows that were reset in this step saw no list
        over = terminated | truncated
        if not live.any():
            continue
        gain = torch.from_numpy(rewards).float()
        loss = -((gain - gain[live].mean()) * log_prob)[live].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        means.append(float(gain[live].mean()))
    assert np.mean(means[-20:]) > np.mean(means[:20]) + 0.03


@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
def test_stable_baselines3_runs_out_of_the_box(algorithm, make):
    sb3 = pytest.importorskip("stable_baselines3")
    from usermirror_gym.envs.sb3 import SB3VecEnv

    env = SB3VecEnv(make(4, autoreset_mode="Disabled"))
    model = getattr(sb3, algorithm)("MultiInputPolicy", env, n_steps=8, seed=0, device="cpu")
    before = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(64)
    assert model.num_timesteps == 64
    assert any((p != q).any() for p, q in zip(before, model.policy.parameters(), strict=True))
    actions, _ = model.predict(env.reset(), deterministic=True)
    assert actions.shape == (4, K)
    assert actions.max() < SIZE
