"""The session readout: whole histories, each option for itself, whatever the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from usermirror_gym.data import TimeSplit
from usermirror_gym.data.dataset import Impressions
from usermirror_gym.envs import SlateVectorEnv, make_world
from usermirror_gym.errors import CheckpointError
from usermirror_gym.scenes import PromptBuilder, PromptConfig, Scene, SceneBatch, domain_text
from usermirror_gym.scenes.scene import Turn
from usermirror_gym.simulators import RecordingSimulator, SessionSimulator, SessionWeights
from usermirror_gym.simulators.affinity.affinity_head import LineMemory
from usermirror_gym.simulators.readouts.utility import fit_session, session_logprobs
from usermirror_gym.simulators.session.session import passed_over
from usermirror_gym.simulators.session.session_head import (
    SESSION_WEIGHTS,
    LineMap,
    SessionHead,
    read_session,
    write_session,
)
from usermirror_gym.simulators.session.session_net import (
    SessionNet,
    SessionShape,
    age_classes,
    rating_classes,
)
from usermirror_gym.simulators.surrogate.profile_codes import profile_features

DAY = 86_400
SCENE = Scene(
    user_id=1, history=(1, 2, 3), ratings=(4.0, 2.0, 5.0), ages=(9 * DAY, 8 * DAY, 7 * DAY),
    slate=(10, 11, 12),
)  # fmt: skip
WEIGHTS = SessionWeights(1.5, (0.5,), outside_utility=0.25)
Make = Callable[..., SessionSimulator]


def random_net(shape: SessionShape, seed: int = 0) -> SessionNet:
    """Every number of it counts."""
    net = SessionNet(shape, seed=seed)
    draw = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for values in net.parameters():
            values += 0.3 * torch.randn(values.shape, generator=draw)
    return net.eval()


@pytest.fixture
def builder(split: TimeSplit) -> PromptBuilder:
    return PromptBuilder(domain_text(split.dataset), PromptConfig(form="session"))


@pytest.fixture
def make(split: TimeSplit, builder: PromptBuilder, arithmetic) -> Make:
    """A simulator that has learned the first 30 films; others are read by their words."""

    def simulator(weights=WEIGHTS, data: TimeSplit = split, lines: int = 1000, **settings):
        features = profile_features(split.dataset.users)
        shape = SessionShape(6, 2, lines, sum(f.size for f in features))
        told = builder.item_lines(tuple(range(1, 31))).options
        rng = np.random.default_rng(3)
        known = LineMemory.of(
            told,
            0.2 * rng.normal(size=(30, 6)),
            0.2 * rng.normal(size=(30, 6)),
            rng.normal(size=30),
        )
        arrays = [
            0.2 * rng.normal(size=size).astype(np.float32) for size in ((4,), (4, 6), (4, 6), (4,))
        ]
        words = LineMap(((3, "mean"), (7, "last")), *arrays)
        head = SessionHead(random_net(shape), known, words, features)
        engine = settings.pop("engine", arithmetic)
        return SessionSimulator(head, weights, data, builder, engine=engine, **settings)

    return simulator


def test_the_order_and_the_batch_do_not_matter_and_one_list_answers_for_its_parts(
    make: Make,
) -> None:
    simulator = make()
    others = [
        replace(SCENE, user_id=user, history=tuple(range(1, 1 + 9 * user)),
                ratings=(3.0,) * 9 * user, ages=(DAY,) * 9 * user, slate=(31, 32, 5, 6))
        for user in (2, 3, 4)
    ]  # fmt: skip
    alone = simulator.choose([SCENE]).probs[0]
    together = simulator.choose([*others, SCENE]).probs[-1]
    assert together[[0, 1, 2]].tolist() == alone[:3].tolist()
    assert together[-1] == alone[-1]
    turned = simulator.choose([replace(SCENE, slate=(12, 10, 11))]).probs[0]
    assert np.abs(turned[[1, 2, 0, 3]] - alone).max() < 1e-15
    union, _, _ = simulator.scores([replace(SCENE, slate=(12, 10, 11, 20, 21, 22))])
    part, _, _ = simulator.scores([SCENE])
    assert union[0, [1, 2, 0]].tolist() == part[0].tolist()


@pytest.mark.parametrize(
    "change",
    [
        {"ratings": (2.0, 4.0, 1.0)},
        {"ages": (9 * DAY, 8 * DAY, 30)},
        {"history": (4, 2, 3)},
        {"user_id": 2},
        {"turns": (Turn((20, 21), 21),)},
        {"turns": (Turn((20, 21), 0),)},
    ],
)  # fmt: skip
def test_it_reads_what_it_is_given(make: Make, change: dict) -> None:
    simulator = make()
    before, after = simulator.choose([SCENE, replace(SCENE, **change)]).probs
    assert np.abs(before - after).max() > 1e-4


def test_the_oldest_line_of_a_long_history_counts_and_lines_beyond_the_limit_do_not(
    make: Make,
) -> None:
    many = 400
    long = Scene(
        1, (1,) + (2,) * (many - 1), (4.0,) * many, (DAY,) * many, slate=(10, 11, 12)
    )  # fmt: skip
    other = replace(long, history=(30, *long.history[1:]))
    first, second = make().choose([long, other]).probs
    assert np.abs(first - second).max() > 1e-6
    first, second = make(lines=many - 1).choose([long, other]).probs
    assert first.tolist() == second.tolist()


def test_what_was_passed_over_in_the_session_and_in_the_log_counts(
    make: Make, split: TimeSplit
) -> None:
    data = split.dataset
    shown = Impressions(
        np.array(["a", "b", "c"]), np.array([1, 1, 1]),
        np.array([split.t0 - 20, split.t0 - 10, split.t0 + 5]), np.array([0, 3, 5, 7]),
        np.array([10, 21, 22, 23, 24, 25, 26]),
        np.array([False, True, False, False, False, False, False]),
    )  # fmt: skip
    logged = TimeSplit(replace(data, impressions=shown), split.t0)
    assert passed_over(logged)[1].tolist() == [24, 23, 22, 10]
    assert passed_over(logged)[2].tolist() == []
    plain, reading = (make(data=which).choose([SCENE]).probs[0] for which in (split, logged))
    assert np.abs(plain - reading).max() > 1e-4
    simulator = make()
    turns = [(), (Turn((10, 20), 0),), (Turn((10, 20), 0), Turn((10, 21), 0))]
    found = [simulator.scores([replace(SCENE, turns=own)]).features[0, 0, 0] for own in turns]
    with torch.no_grad():  # the option's own count, apart from what its vector does to the taste
        simulator.head.net.passed.zero_()
    found = [simulator.scores([replace(SCENE, turns=own)]).features[0, 0, 0] for own in turns]
    slope = float(simulator.head.net.shown.detach())
    assert np.diff(found) == pytest.approx(slope * np.diff(np.log1p([0, 1, 2])), abs=1e-5)


def test_nobody_takes_an_item_twice_where_nobody_did_in_the_log(
    make: Make, split: TimeSplit
) -> None:
    scene = replace(SCENE, slate=(2, 21, 12), turns=(Turn((20, 21), 21),))
    probs = make().choose([scene]).probs[0]
    assert probs[:2].max() < 1e-9
    assert probs[2] > 1e-3
    data = split.dataset
    twice = data.interactions.iloc[[0]]
    events = pd.concat([data.interactions, twice]).sort_values("timestamp", kind="stable")
    again = TimeSplit(replace(data, interactions=events.reset_index(drop=True)), split.t0)
    assert make(data=again).choose([scene]).probs[0, :2].min() > 1e-6


def test_users_who_did_nothing_are_asked_too(make: Make) -> None:
    nobody = replace(SCENE, history=(), ratings=(), ages=())
    alone = make().choose([nobody, nobody]).probs
    assert alone.sum(axis=1) == pytest.approx(1)
    assert make().choose([SCENE, nobody]).probs[1].tolist() == alone[0].tolist()


def test_weights_are_others_for_who_comes_back_after_an_hour(make: Make) -> None:
    weights = replace(WEIGHTS, far=(-1.5, 0.7))
    near = replace(SCENE, ages=(DAY, DAY, 3000))
    back = replace(SCENE, turns=(Turn((20, 21), 21),))  # took something a moment ago
    for scene, far in ((near, False), (back, False), (SCENE, True)):
        plain, other = (make(w).choose([scene]).probs[0] for w in (WEIGHTS, weights))
        assert (np.abs(plain - other).max() > 1e-3) == far


def test_lines_of_training_ask_no_model_and_others_are_read_once(make: Make, arithmetic) -> None:
    engines = []

    def engine():
        engines.append(arithmetic())
        return engines[-1]

    simulator = make(engine=engine)
    simulator.choose([SCENE])
    assert not engines
    first = simulator.choose([replace(SCENE, slate=(10, 35))]).probs
    assert len(engines[0].lines) == 1
    again = simulator.choose([replace(SCENE, slate=(10, 35))]).probs
    assert len(engines) == 1
    assert again.tolist() == first.tolist()


def test_it_comes_back_from_its_file(make: Make, tmp_path: Path) -> None:
    simulator = make()
    write_session(tmp_path, simulator.head, "float32")
    head = read_session(tmp_path)
    assert head.digest == simulator.head.digest
    assert (head.net.shape, head.profiles) == (simulator.head.net.shape, simulator.head.profiles)
    path = tmp_path / SESSION_WEIGHTS
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"session\.safetensors.*train it again"):
        read_session(tmp_path)


def test_a_number_that_is_none_is_refused(make: Make, tmp_path: Path) -> None:
    head = make().head
    head.known.history[0, 0] = np.nan
    with pytest.raises(CheckpointError, match="known_past"):
        write_session(tmp_path, head)


def test_environments_show_it_the_whole_history(make: Make, split: TimeSplit) -> None:
    simulator = RecordingSimulator(make(), 10)
    world = make_world(split, simulator=simulator, history_size=2)
    user = max(world.users.tolist(), key=lambda user: len(split.histories[user]))
    env = SlateVectorEnv(1, world=world, slate_size=3)
    observation, _ = env.reset(seed=0, options={"user_id": np.array([user])})
    assert observation["history_items"].shape == (1, 2)
    env.step(np.array([[10, 11, 12]]))
    (scene,) = simulator.scenes()
    assert len(scene.history) == len(split.histories[user]) > 2
    narrow = make_world(split, simulator=make(lines=1), history_size=2)
    assert narrow.remembered(np.array([user]))("items").shape == (1, 2)


def test_fitted_weights_are_those_that_made_the_choices() -> None:
    rng = np.random.default_rng(0)
    true = SessionWeights(
        1.2, (0.8, -0.5), (0.6, -0.4, 0.3), outside_utility=0.5, value_match=0.7,
        value_general=0.4,
    )  # fmt: skip
    count = 40_000
    features, mask = rng.normal(size=(count, 4, 3)), np.ones((count, 4), np.bool_)
    far = rng.random(count) < 0.4
    probs = np.exp(session_logprobs(true, features, far, mask))
    targets = (probs.cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1)
    found = fit_session(features, far, mask, targets)
    assert found.coefficients == pytest.approx(true.coefficients, abs=0.06)
    assert found.outside_utility == pytest.approx(0.5, abs=0.06)
    assert found.value_match == pytest.approx(0.7, abs=0.08)
    assert found.value_general == pytest.approx(0.4, abs=0.08)
    assert fit_session(features, far, mask, targets % 4, outside=False).outside_utility is None
    # On few choices of one kind of users nothing is fitted of its own.
    few = np.arange(count) < 100
    assert fit_session(features, few, mask, targets).far == ()
    assert fit_session(features, ~few, mask, targets).far == ()


def test_classes_of_ages_and_ratings() -> None:
    ages = np.array([-1, 0, 60, 61, 3600, 3601, 86_400, 86_401, 40 * DAY])
    assert age_classes(ages).tolist() == [0, 1, 1, 2, 3, 4, 4, 5, 6]
    stars = np.array([np.nan, 1, 2, 3, 4, 5])
    assert rating_classes(stars, 1.0, 5.0).tolist() == [0, 1, 2, 3, 4, 5]
    assert rating_classes(np.array([-10.0, 0.0, 10.0]), -10.0, 10.0).tolist() == [1, 3, 5]


def test_a_batch_of_an_environment_gives_what_its_scenes_give(make: Make) -> None:
    scenes = [SCENE, replace(SCENE, turns=(Turn((20, 21, 22, 23), 21), Turn((5, 6), 0)))]
    simulator = make()
    assert simulator.choose(SceneBatch.of(scenes)).probs[:, [0, 1, 2, -1]].tolist() == (
        simulator.choose(scenes).probs.tolist()
    )
