from __future__ import annotations

import numpy as np
import pytest

from usermirror_gym.envs import SlateEnv, SlateVectorEnv
from usermirror_gym.errors import UserMirrorError

SLATES = np.arange(1, 21).reshape(4, 5)


def uniform(batch) -> np.ndarray:
    return np.full((len(batch), 6), 1 / 6)


def spoiled(row, values):
    def answer(batch):
        probs = uniform(batch)
        probs[row] = values
        return probs

    return answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda b: np.full((len(b), 5), 0.2), r"shape \(4, 5\), expected \(4, 6\)"),
        (lambda b: np.full((len(b) - 1, 6), 1 / 6), r"shape \(3, 6\), expected \(4, 6\)"),
        (lambda b: np.full(len(b), 1.0), r"shape \(4,\), expected \(4, 6\)"),
        (spoiled(2, np.nan), r"row 2 with \[nan"),
        (spoiled(1, [0.5, 0.6, -0.1, 0, 0, 0]), r"row 1 with \[0.5, 0.6, -0.1"),
        (spoiled(3, [0.5, 0, 0, 0, 0, 0.4]), "row 3 with .* no probability distribution"),
        (spoiled(0, [0, 0, 0, 0, 0, 0]), "row 0 with"),
        (spoiled(3, [np.inf, 0, 0, 0, 0, 0]), "row 3 with"),
    ],
)
def test_a_bad_answer_is_an_error_and_changes_nothing(world_of, scripted, digest, answer, message):
    simulator = scripted(uniform)
    env = SlateVectorEnv(4, world_of(simulator))
    env.reset(seed=0)
    env.step(SLATES)
    before = digest(env.core.observe())
    simulator.answer = answer
    with pytest.raises(UserMirrorError, match=message) as error:
        env.step(SLATES)
    assert "'scripted'" in str(error.value)
    assert digest(env.core.observe()) == before
    calm = SlateVectorEnv(4, world_of(scripted(uniform)))
    calm.reset(seed=0)
    calm.step(SLATES)
    simulator.answer = uniform
    assert digest(env.step(SLATES)[:4]) == digest(calm.step(SLATES)[:4])


def test_float32_answers_and_rounding_are_accepted(world_of, scripted):
    env = SlateEnv(world_of(scripted(lambda b: uniform(b).astype(np.float32))))
    env.reset(seed=0)
    assert env.step(SLATES[0])[4]["probabilities"].dtype == np.float64


@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
def test_one_call_per_step_for_live_rows_only(world_of, scripted, mode):
    def answer(batch):  # users with an even id take nothing
        probs = np.zeros((len(batch), 6))
        probs[np.arange(len(batch)), np.where(batch.user_ids % 2, 0, 5)] = 1.0
        return probs

    simulator = scripted(answer)
    env = SlateVectorEnv(
        4, world_of(simulator), session=2, autoreset_mode=mode, max_episode_steps=None
    )
    env.reset(seed=0, options={"user_id": [1, 2, 3, 4]})
    for _ in range(2):
        *_, terminated, _, _ = env.step(SLATES)
    assert terminated.tolist() == [False, True, False, True]
    assert len(simulator.calls) == 2
    observations, rewards, terminated, truncated, info = env.step(SLATES)
    assert [scene.user_id for scene in simulator.calls[2]] == [1, 3]
    assert [scene.slate for scene in simulator.calls[2]] == [
        tuple(SLATES[0].tolist()), tuple(SLATES[2].tolist())
    ]  # fmt: skip
    assert info["_probabilities"].tolist() == [True, False, True, False]
    assert rewards.tolist() == [1, 0, 1, 0]
    assert not terminated.any()
    assert not truncated.any()
    fresh = mode == "NextStep"
    assert observations["turns"][:, 0].tolist() == ([3, 0, 3, 0] if fresh else [3, 2, 3, 2])


def test_when_everybody_rests_nobody_is_asked(world_of, always):
    simulator = always(5)
    env = SlateVectorEnv(4, world_of(simulator), session=1, autoreset_mode="Disabled")
    env.reset(seed=0)
    env.step(SLATES)
    assert not env.live.any()
    for _ in range(3):
        _, rewards, terminated, truncated, info = env.step(SLATES)
        assert not rewards.any()
        assert not terminated.any()
        assert not truncated.any()
        assert set(info) == {"user_id", "_user_id"}
    assert len(simulator.calls) == 1
    env.reset(options={"reset_mask": np.array([False, True, False, False])})
    assert env.live.tolist() == [False, True, False, False]
    env.step(SLATES)
    assert len(simulator.calls[1]) == 1


def test_rationales_and_token_counts_reach_the_info(world_of, scripted):
    simulator = scripted(
        uniform,
        rationales=lambda b: tuple(f"I am user {u}" for u in b.user_ids),
        prompt_tokens=lambda b: np.full(len(b), 80),
        cached_tokens=lambda b: np.full(len(b), 60),
    )
    world = world_of(simulator)
    env = SlateEnv(world, render_mode="html")
    _, info = env.reset(seed=0)
    user = info["user_id"]
    *_, info = env.step(SLATES[0])
    assert (info["rationale"], info["prompt_tokens"]) == (f"I am user {user}", 80)
    assert f"I am user {user}" in env.render()
    vector = SlateVectorEnv(4, world)
    vector.reset(seed=0)
    *_, info = vector.step(SLATES)
    assert info["rationales"][3] == f"I am user {info['user_id'][3]}"
    assert info["cached_tokens"].tolist() == [60] * 4


def test_the_ground_truth_answers_as_environments_ask(split, world_of):
    from usermirror_gym.experiments.transfer.ground_truth import LatentFactorUser, TruthSettings

    user = LatentFactorUser.fit(split.dataset, TruthSettings(factors=3, iterations=20))
    world = world_of(user.knowing(split))
    env = SlateVectorEnv(4, world, session="stay", max_episode_steps=None)
    env.reset(seed=0)
    taken: list[set[int]] = [set() for _ in range(4)]
    for step in range(20):
        *_, info = env.step(1 + (SLATES + 3 * step) % 40)
        for row, item in enumerate(info["item"].tolist()):
            assert item not in taken[row]  # nobody takes a film twice
            taken[row] |= {item} - {0}
    assert all(taken)


def test_options_are_drawn_as_often_as_their_probabilities_say(world_of, scripted):
    probs = np.array([0.05, 0.0, 0.4, 0.25, 0.0, 0.3])
    env = SlateVectorEnv(
        500, world_of(scripted(lambda b: np.tile(probs, (len(b), 1)))), session="stay"
    )
    env.reset(seed=0)
    counts = np.zeros(6)
    for _ in range(10):
        counts += np.bincount(env.step(np.tile(SLATES[0], (500, 1)))[4]["choice"], minlength=6)
    np.testing.assert_allclose(counts / 5000, probs, atol=0.025)
    assert counts[1] == counts[4] == 0


def test_the_last_number_below_one_draws_the_last_possible_option():
    from usermirror_gym.envs.core import inverse_transform

    almost = np.nextafter(1.0, 0.0)
    cumulative = np.array([[0.3, 1.0, 1.0], [0.1, 0.2, almost], [0.0, 0.5, 1.0]])
    assert inverse_transform(cumulative, np.full(3, almost)).tolist() == [1, 2, 2]
    assert inverse_transform(cumulative, np.zeros(3)).tolist() == [0, 0, 1]
