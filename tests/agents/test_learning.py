"""What the algorithms compute, against the formulas they are named after."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

from usermirror_gym.agents import make_agent
from usermirror_gym.agents.base import Transition
from usermirror_gym.agents.learners.reinforce import _following, _SessionNumbers
from usermirror_gym.agents.learners.slateq import SlateQAgent, Values, best_slate_scores
from usermirror_gym.agents.learners.store import agent_class, is_learning_agent, load_agent
from usermirror_gym.agents.recbole.agent import RecBoleAgent
from usermirror_gym.envs import make_world
from usermirror_gym.errors import AgentError, CheckpointError, ConfigError, UnknownNameError
from usermirror_gym.testing.agents import grow

KINDS = ("LinUCB", "Thompson", "SlateQ", "REINFORCE", "PPO")


def step(observations, slates, choices, **changes):
    n, k = slates.shape
    options = np.column_stack([slates, np.zeros(n, np.int64)])
    fields = {
        "rewards": (choices < k).astype(float),
        "terminated": np.zeros(n, bool),
        "truncated": np.zeros(n, bool),
    }
    grown = grow(observations, options[np.arange(n), choices])
    return Transition(observations, slates, choices, next_observations=grown, **fields | changes)


@pytest.mark.parametrize("kind", ["LinUCB", "Thompson"])
def test_bandits_are_ridge_regression_of_what_was_chosen(kind, learner, split, everybody):
    agent = learner(kind, ridge=2.0).fit(split)
    prior = agent._mean.copy()
    slates = agent.recommend(everybody, 5)
    choices = np.arange(len(slates)) % 6
    features = agent._features(everybody, slates).reshape(-1, 10)
    agent.observe(step(everybody, slates, choices))
    target = (choices[:, None] == np.arange(5)).reshape(-1)
    # Ridge towards the prior: regress what the prior leaves unexplained.
    gram = features.T @ features + 2.0 * np.eye(10)
    expected = prior + np.linalg.solve(gram, features.T @ (target - features @ prior))
    np.testing.assert_allclose(agent._mean, expected, rtol=1e-4, atol=1e-6)  # float32 features


def test_linucb_adds_standard_deviations(learner, split, everybody):
    agent = learner("LinUCB", width=0.7).fit(split)
    slates = agent.recommend(everybody, 5)
    agent.observe(step(everybody, slates, np.zeros(30, np.int64)))
    items = np.tile(np.arange(1, 41), (30, 1))
    x = agent._features(everybody, items)
    spread = np.sqrt(np.einsum("nki,ij,nkj->nk", x, np.linalg.inv(agent.precision), x))
    expected = x @ agent._mean + 0.7 * spread
    np.testing.assert_allclose(agent._scores(everybody, 5)[:, 1:], expected, rtol=1e-4, atol=1e-5)


def test_thompson_draws_have_the_covariance_of_the_posterior(learner, split, everybody):
    agent = learner("Thompson").fit(split)
    many = {k: np.repeat(v[:1], 4000, axis=0) for k, v in everybody.items()}
    many["turns"] = np.arange(4000)[:, None]
    draws = agent._normal(many) @ agent._half.T
    np.testing.assert_allclose(np.cov(draws.T), agent._covariance, atol=0.1)


def test_slateq_finds_the_best_slate():
    """Against all slates, where *none of these* is better than some items and worse than others."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        utility, worth = torch.randn(2, 1, 8, generator=generator)
        outside, none = torch.randn(2, generator=generator)
        hidden = torch.zeros(1, 8, dtype=torch.bool)
        hidden[0, 0] = True
        values = Values(worth, none[None])
        scores = best_slate_scores(utility, outside, values, hidden, 3)
        found = scores.masked_fill(hidden, -torch.inf).topk(3).indices[0].tolist()

        def value(slate, utility=utility, outside=outside, worth=worth, none=none):
            logits = torch.cat([utility[0, list(slate)], outside[None]])
            own = torch.cat([worth[0, list(slate)], none[None]])
            return float(torch.softmax(logits, 0) @ own)

        best = max(itertools.combinations(range(1, 8), 3), key=value)
        assert value(found) == pytest.approx(value(best), abs=1e-6)


def test_slateq_does_not_overflow():
    values = Values(torch.ones(1, 4), torch.zeros(1))
    hidden = torch.tensor([[True, False, False, False]])
    for utility in ([0.0, 900.0, 800.0, -900.0], [0.0, -900.0, -800.0, -950.0]):
        scores = best_slate_scores(torch.tensor([utility]), torch.tensor(0.0), values, hidden, 2)
        assert torch.isfinite(scores).all()


def test_slateq_tells_items_apart_where_something_is_taken_nearly_always():
    """P(none of these) is 1e-11: lost in float32, where all slates would be worth the same."""
    utility = torch.tensor([[0.0, 22.0, 25.0, 18.0]])
    values = Values(torch.ones(1, 4), torch.zeros(1))
    hidden = torch.tensor([[True, False, False, False]])
    scores = best_slate_scores(utility, torch.tensor(0.0), values, hidden, 2)
    order = scores.masked_fill(hidden, -torch.inf).argsort(descending=True)
    assert order[0].tolist() == [2, 1, 3, 0]


def test_returns_follow_sessions_whose_rows_drop_out(everybody):
    numbers = _SessionNumbers()
    three = {k: v[:3] for k, v in everybody.items()}
    slates, choices = np.tile(np.arange(1, 6), (3, 1)), np.array([0, 5, 0])
    first = step(three, slates, choices, terminated=np.array([False, True, False]))
    two = {k: v[[0, 2]] for k, v in first.next_observations.items()}
    second = step(two, slates[:2], choices[[0, 2]])
    session = np.r_[numbers.of(first), numbers.of(second)]
    assert session.tolist() == [0, 1, 2, 0, 2]
    turn, reward = np.float32([0, 0, 0, 1, 1]), np.float32([1, 2, 3, 4, 5])
    np.testing.assert_allclose(_following(session, turn, reward, 0.5), [2, 0, 2.5, 0, 0])


def test_new_sessions_get_new_numbers(everybody):
    numbers = _SessionNumbers()
    slates, choices = np.tile(np.arange(1, 6), (30, 1)), np.zeros(30, np.int64)
    one = numbers.of(step(everybody, slates, choices))
    assert not set(one) & set(numbers.of(step(everybody, slates, choices)))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_comes_back(kind, practised, split, everybody, tmp_path):
    if kind == "PPO":
        pytest.importorskip("stable_baselines3")
    agent = practised(kind, split)
    folder = agent.save(tmp_path / "agent")
    again = load_agent(folder)
    np.testing.assert_array_equal(again.recommend(everybody, 5), agent.recommend(everybody, 5))
    assert not again.explore
    assert is_learning_agent(folder)
    assert again.fit(split) is again
    np.testing.assert_array_equal(again.recommend(everybody, 5), agent.recommend(everybody, 5))
    assert type(agent).load(folder).iteration == 2


@pytest.mark.parametrize("kind", KINDS)
def test_ours_is_no_pickle(kind, practised, split, tmp_path):
    folder = practised(kind, split).save(tmp_path / "agent")
    assert {p.name for p in folder.iterdir()} == {"agent.json", "agent.safetensors"}


def test_ppo_brings_its_recommender_along(learner, split, everybody, tmp_path):
    source = RecBoleAgent("ItemKNN", progress=False)
    agent = agent_class("PPO")(source=source, shortlist=12).fit(split)
    again = load_agent(agent.save(tmp_path / "agent"))
    assert again.source.name == "ItemKNN"
    np.testing.assert_array_equal(again.recommend(everybody, 7), agent.recommend(everybody, 7))


def test_ppo_shows_more_than_its_slots_in_the_order_of_its_source(practised, split, everybody):
    agent = practised("PPO", split)
    slates = agent.recommend(everybody, 12)
    np.testing.assert_array_equal(slates[:, :5], agent.recommend(everybody, 5))
    proposed = agent.source.recommend(everybody, 12)
    for slate, candidates in zip(slates.tolist(), proposed.tolist(), strict=True):
        assert slate[5:] == [item for item in candidates if item not in slate[:5]]


def test_ppo_refuses_a_source_without_an_order(learner, split):
    with pytest.raises(ConfigError, match="Random"):
        learner("PPO", source="Random").fit(split)


def test_ppo_needs_a_horizon(learner, split):
    pytest.importorskip("stable_baselines3")
    from usermirror_gym.envs import SlateVectorEnv

    world = make_world(split, simulator="popularity", history_size=12)
    env = SlateVectorEnv(2, world, max_episode_steps=None, autoreset_mode="Disabled")
    with pytest.raises(ConfigError, match="max_episode_steps"):
        learner("PPO").fit(split).practise(env, world.users[:2], [1, 2])


def test_names_and_files_that_are_wrong(learner, split, tmp_path):
    with pytest.raises(UnknownNameError, match="SlateQ"):
        agent_class("slatq")
    with pytest.raises(CheckpointError, match=r"agent\.json is missing"):
        load_agent(tmp_path)
    with pytest.raises(AgentError, match=r"not fitted.*fit"):
        learner("SlateQ").save(tmp_path / "agent")
    folder = learner("LinUCB").fit(split).save(tmp_path / "agent")
    with pytest.raises(CheckpointError, match="LinUCB, not SlateQ"):
        SlateQAgent.load(folder)
    with pytest.raises(CheckpointError, match=r"training\.safetensors is missing"):
        load_agent(folder, training=True)
    header = json.loads((folder / "agent.json").read_text())
    (folder / "agent.json").write_text(json.dumps(header | {"format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        load_agent(folder)
    (folder / "agent.json").write_text(json.dumps(header))
    (folder / "agent.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_agent(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("keep me")
    with pytest.raises(AgentError, match="not a saved agent"):
        learner("LinUCB").fit(split).save(tmp_path / "other")


@pytest.mark.parametrize("name", ["SlateQ", "reinforce", "PPO"])
def test_who_has_to_be_trained_first_says_so(name):
    with pytest.raises(ConfigError, match=rf"train-agent --algo {name.lower()}"):
        make_agent(name)
