from __future__ import annotations

import numpy as np
import pytest

from usermirror_gym.errors import ConfigError
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.simulators import RecordingSimulator, UniformChooser


def scenes(count: int, first: int = 1) -> list[Scene]:
    return [Scene(first + i, (), (), (), (1, 2, 3)) for i in range(count)]


def users(kept: list[Scene]) -> list[int]:
    return [scene.user_id for scene in kept]


def recorder(capacity: int, seed: int = 0) -> RecordingSimulator:
    return RecordingSimulator(UniformChooser(), capacity, seed)


def test_every_scene_is_kept_with_the_same_probability():
    counts = np.zeros(40)
    for seed in range(600):
        reservoir = recorder(10, seed)
        for first in (1, 11, 21, 31):
            reservoir.choose(scenes(10, first))
        assert len(reservoir) == 10
        counts[np.array(users(reservoir.scenes())) - 1] += 1
    # 600 draws with probability 1/4: four standard deviations are 42.
    assert abs(counts - 150).max() < 43


def test_the_sample_does_not_depend_on_batches():
    whole, parts = (
        recorder(7, 3),
        recorder(7, 3),
    )
    whole.choose(scenes(100))
    for start in range(0, 100, 9):
        parts.choose(scenes(100)[start : start + 9])
    assert users(whole.scenes()) == users(parts.scenes())
    assert whole.seen == parts.seen == 100


def test_a_cleared_reservoir_samples_as_a_new_one():
    used, new = (
        recorder(5, 1),
        recorder(5, 1),
    )
    used.choose(scenes(50))
    used.clear()
    assert used.scenes() == []
    for each in (used, new):
        each.choose(scenes(30))
    assert users(used.scenes()) == users(new.scenes())


def test_recording_changes_no_answer():
    recording = RecordingSimulator(UniformChooser(), capacity=4)
    asked = scenes(6)
    np.testing.assert_array_equal(
        recording.choose(asked).probs, UniformChooser().choose(asked).probs
    )
    assert recording.name == UniformChooser().name
    assert len(recording.scenes()) == 4


def test_a_reservoir_holds_something():
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        recorder(0)
