from __future__ import annotations

import numpy as np
import pytest

from usermirror_gym.envs import SlateEnv, SlateVectorEnv

H = 12  # history_size of the test worlds


def test_the_history_starts_at_t0_and_grows_with_choices(world_of, always, split):
    env = SlateEnv(world_of(always(1)), session="stay")
    user = next(u for u in split.users_with_history(5) if len(split.histories[u]) < H - 2)
    before = split.histories[user].items.tolist()
    observation, _ = env.reset(seed=0, options={"user_id": user})
    n = observation["history_length"]
    assert observation["history_items"][:n].tolist() == before
    observation, *_, info = env.step([3, 9, 4, 5, 6])
    assert observation["history_length"] == n + 1
    assert observation["history_items"][: n + 1].tolist() == [*before, 9]
    assert observation["history_ratings"][n] == np.float32(info["rating"])
    assert not observation["history_items"][n + 1 :].any()


def test_nothing_chosen_nothing_remembered(world_of, always, digest):
    env = SlateEnv(world_of(always(5)))
    first, _ = env.reset(seed=0)
    second = env.step([1, 2, 3, 4, 5])[0]
    for key in ("history_items", "history_ratings", "history_length"):
        np.testing.assert_array_equal(first[key], second[key])
    assert second["last_choice"] == 5
    assert second["turns"].tolist() == [1]


def test_a_full_history_drops_its_oldest(world_of, always):
    env = SlateEnv(world_of(always(0)), session="stay")
    observation, _ = env.reset(seed=0)
    expected = observation["history_items"][: observation["history_length"]].tolist()
    rng = np.random.default_rng(0)
    for _ in range(40):
        slate = rng.permutation(40)[:5] + 1
        observation = env.step(slate)[0]
        expected = [*expected, int(slate[0])][-H:]
        length = observation["history_length"]
        assert observation["history_items"][:length].tolist() == expected
        assert env.observation_space.contains(observation)
    assert length == H


@pytest.mark.parametrize("turns", [31, 32, 33, 70])
def test_the_simulator_sees_every_turn_of_a_long_session(world_of, scripted, turns):
    def answer(batch):  # takes position (turn mod 6), 5 is none of these
        probs = np.zeros((len(batch), 6))
        probs[np.arange(len(batch)), batch.turn_counts % 6] = 1.0
        return probs

    simulator = scripted(answer)
    env = SlateVectorEnv(2, world_of(simulator), session="stay", max_episode_steps=None)
    first, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)
    shown = [rng.permuted(np.tile(np.arange(1, 41), (2, 1)), axis=1)[:, :5] for _ in range(turns)]
    for slates in shown:
        env.step(slates)
    for row in range(2):
        scene = simulator.calls[-1][row]
        assert [turn.slate for turn in scene.turns] == [tuple(s[row]) for s in shown[:-1]]
        taken = [0 if t % 6 == 5 else shown[t][row][t % 6] for t in range(turns - 1)]
        assert [turn.chosen for turn in scene.turns] == taken
        # The scene's history stays that of T0; what was chosen since is in the turns.
        length = first["history_length"][row]
        assert list(scene.history) == first["history_items"][row, :length].tolist()
        assert len(scene.ratings) == len(scene.ages) == length


def test_a_new_session_forgets_the_last_one(world_of, always):
    simulator = always(0)
    env = SlateVectorEnv(1, world_of(simulator), session="stay", max_episode_steps=3)
    start, _ = env.reset(seed=0, options={"user_id": 3})
    for _ in range(3):
        env.step([[30, 31, 32, 33, 34]])
    again, _ = env.reset(options={"user_id": 3})
    for key, value in start.items():
        np.testing.assert_array_equal(again[key], value, err_msg=key)
    env.step([[1, 2, 3, 4, 5]])
    assert simulator.calls[-1][0].turns == ()


def test_short_slates_of_earlier_turns_are_kept_short(world_of, always):
    simulator = always(0)
    env = SlateEnv(world_of(simulator), session="stay")
    env.reset(seed=0)
    env.step([4, 4, 4, 2, 2])
    env.step([1, 2, 3, 4, 5])
    assert simulator.calls[0][0].slate == (4, 2)
    assert simulator.calls[1][0].turns[0].slate == (4, 2)
