from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from usermirror_gym.errors import CheckpointError, ConfigError, SceneError
from usermirror_gym.scenes.scene import Scene, Turn
from usermirror_gym.simulators import SurrogateSimulator, make_simulator
from usermirror_gym.simulators.checkpoint import write_simulator
from usermirror_gym.simulators.surrogate.surrogate import read_surrogate, write_surrogate
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.train.surrogate.config import NetworkSettings
from usermirror_gym.train.surrogate.distil import new_student


@pytest.fixture(scope="module")
def student(split) -> SurrogateSimulator:
    """Weights far from their start, as after a training."""
    student = new_student(split, NetworkSettings(dim=16, items="none"), teacher="t", seed=1)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in student.net.named_parameters():
            noise = 0.3 * torch.randn(parameter.shape, generator=draw)
            if name in ("past", "option"):
                noise[..., 0, :] = 0.0  # padding, to which nothing is ever taught
            parameter += noise
    student.net = student.net
    return student


def scene(user: int, history: tuple[int, ...], slate: tuple[int, ...], *turns: Turn) -> Scene:
    n = len(history)
    return Scene(user, history, (4.0,) * n, (60,) * n, slate, turns)


SCENES = [
    scene(1, (1, 2, 3), (4, 5, 6, 7)),
    scene(2, (), (9, 4), Turn((1, 2, 3), 0), Turn((4, 5, 6), 5)),
    scene(3, tuple(range(10, 40)), (11, 12, 50, 51, 52, 53), Turn((50, 51), 0)),
    scene(1, (1, 2, 3), (3, 5, 6, 7), Turn((8, 9), 9)),
]


def test_answers_are_distributions_over_the_options_that_are_there(student):
    probs = student.choose(SCENES).probs
    assert probs.shape == (4, 7)
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, atol=1e-9)
    assert (probs >= 0).all()
    np.testing.assert_array_equal(probs[0, 4:6], 0.0)
    np.testing.assert_array_equal(probs[1, 2:6], 0.0)
    assert (probs[:, -1] > 0).all()


def test_a_row_does_not_depend_on_the_others(student):
    together = student.choose(SCENES).probs
    for row, one in enumerate(SCENES):
        alone = student.choose([one]).probs[0]
        k = len(one.slate)
        np.testing.assert_array_equal(alone[:k], together[row, :k])
        assert alone[-1] == together[row, -1]


def test_memory_profile_session_and_list_are_read(student):
    base = SCENES[0]
    changes = [
        replace(base, history=(1, 2, 20)),
        replace(base, history=(3, 2, 1)),
        replace(base, user_id=2),
        replace(base, turns=(Turn((8, 9), 0),)),
        replace(base, slate=(4, 5, 6, 8)),
    ]
    probs = student.choose([base, *changes]).probs
    for row in range(1, len(changes) + 1):
        assert abs(probs[row] - probs[0]).max() > 1e-6, row


def test_forcing_a_choice_leaves_the_others_alike(split, student):
    forced = SurrogateSimulator(student.net, student.facts, split, offers_outside=False)
    free, bound = student.choose(SCENES).probs, forced.choose(SCENES).probs
    np.testing.assert_array_equal(bound[:, -1], 0.0)
    np.testing.assert_allclose(bound[:, :-1], free[:, :-1] / (1 - free[:, -1:]), atol=1e-9)
    assert "forced" in forced.name
    assert forced.name != student.name


def test_what_is_written_is_read_and_asked_by_name(split, student, tmp_path):
    write_surrogate(tmp_path, student.net, student.facts)
    write_simulator(tmp_path, {"checkpoint": "t", "readout": "surrogate", "domain": "movie"})
    again = make_simulator(str(tmp_path), split)
    np.testing.assert_allclose(
        again.choose(SCENES).probs, student.choose(SCENES).probs, atol=2e-3
    )  # float16 tables
    net, facts = read_surrogate(tmp_path)
    assert facts == student.facts
    twice = SurrogateSimulator(net, facts, split)
    assert twice.name == again.name
    np.testing.assert_array_equal(twice.choose(SCENES).probs, again.choose(SCENES).probs)


def test_options_that_a_surrogate_cannot_have_are_refused(split, student, tmp_path):
    write_surrogate(tmp_path, student.net, student.facts)
    write_simulator(tmp_path, {"checkpoint": "t", "readout": "surrogate"})
    with pytest.raises(ConfigError, match=r"no option outside_utility.*train-surrogate"):
        make_simulator(str(tmp_path), split, outside_utility=1.2)
    forced = make_simulator(str(tmp_path), split, outside_option=False)
    assert forced.choose(SCENES[:1]).probs[0, -1] == 0


def test_other_items_are_refused(student):
    with pytest.raises(ConfigError, match=r"60 items of 'tiny'.*has 50 items"):
        SurrogateSimulator(student.net, student.facts, tiny_split(n_users=60, n_items=50, seed=3))


@pytest.mark.parametrize(
    "wrong", [scene(1, (), (1, 61)), scene(61, (), (1,)), scene(1, (99,), (1,))]
)
def test_scenes_of_other_data_are_refused(student, wrong):
    with pytest.raises(SceneError, match=r"1 \.\. 60"):
        student.choose([wrong])


def test_no_scenes_no_answers(student):
    assert len(student.choose([]).probs) == 0


def spoil_bytes(path):
    path.write_bytes(b"nothing")


def spoil_numbers(path):
    weights = load_file(path)
    weights["outside"] = torch.tensor(float("nan"))
    save_file(weights, path, _metadata(path))


def spoil_shape(path):
    about = json.loads(_metadata(path)["surrogate"])
    about["shape"]["hidden"] = 3
    save_file(load_file(path), path, {"surrogate": json.dumps(about)})


def _metadata(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata()


@pytest.mark.parametrize("spoil", [spoil_bytes, spoil_numbers, spoil_shape])
def test_a_damaged_file_is_named(student, tmp_path, spoil):
    path = write_surrogate(tmp_path, student.net, student.facts)
    spoil(path)
    with pytest.raises(CheckpointError, match=r"surrogate\.safetensors"):
        read_surrogate(tmp_path)


def test_numbers_that_the_file_cannot_hold_are_refused(split, tmp_path):
    student = new_student(split, NetworkSettings(dim=4, items="none"), teacher="t")
    with torch.no_grad():
        student.net.option[1, 0] = 1e9
    with pytest.raises(CheckpointError, match="option"):
        write_surrogate(tmp_path, student.net, student.facts)
    assert not list(tmp_path.iterdir())
