"""Folders of agents: RecBole's settings and solution, PPO's policy, headers."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.conftest import build_split
from tests.hostile.case import Case, Place
from usermirror_gym.agents import RecBoleAgent, make_agent
from usermirror_gym.agents.learners.store import agent_class, save_agent
from usermirror_gym.agents.saved import HEADER, TENSORS
from usermirror_gym.run_folder import run_folder

LAYERS = {"mlp_hidden_size": [8], "latent_dimension": 4, "epochs": 1}


def recbole(model: str = "ItemKNN", **config: Any) -> Callable[[Place], object]:
    """A folder of a fitted RecBole agent, before anybody changes it."""
    return lambda place: (
        RecBoleAgent(model, config=config, progress=False)
        .fit(build_split())
        .save(place.folder / "agent")
    )


def learner(kind: str = "LinUCB", **settings: Any) -> Callable[[Place], object]:
    """A folder of a learning agent."""
    return lambda place: save_agent(
        agent_class(kind)(**settings).fit(build_split()), place.folder / "agent", training=True
    )


def changed(
    make: Callable[[Place], object], change: Callable[[Place, dict[str, Any]], object]
) -> Callable[[Place], None]:
    """The folder with another header."""

    def given(place: Place) -> None:
        make(place)
        path = place.folder / "agent" / HEADER
        header = json.loads(path.read_text())
        change(place, header)
        path.write_text(json.dumps(header))

    return given


def other_arrays(
    make: Callable[[Place], object], change: Callable[[dict[str, np.ndarray]], object]
) -> Callable[[Place], None]:
    """The folder with other arrays."""

    def given(place: Place) -> None:
        make(place)
        path = place.folder / "agent" / TENSORS
        arrays = load_file(path)
        change(arrays)
        save_file(arrays, path)

    return given


def setting(name: str, value: Callable[[Place], Any]) -> Callable[[Place, dict[str, Any]], None]:
    """Another value of one of RecBole's settings."""

    def change(place: Place, header: dict[str, Any]) -> None:
        header["settings"][name] = value(place)
        header["config"][name] = value(place)

    return change


def put(**values: Any) -> Callable[[Place, dict[str, Any]], None]:
    """Other values in a header."""
    return lambda place, header: header.update(values)


def load(place: Place) -> Any:
    """As a benchmark does it with a folder among its agents."""
    agent = make_agent(str(place.folder / "agent")).fit(build_split())
    agent.recommend(observations(), 2)
    return agent


def observations() -> dict[str, np.ndarray]:
    """Of one user with a short history."""
    return {
        "user_id": np.array([1]), "history_items": np.array([[1, 2, 0]]),
        "history_ratings": np.zeros((1, 3), np.float32), "history_length": np.array([2]),
        "last_slate": np.zeros((1, 2), np.int64), "last_choice": np.array([2]),
        "turns": np.zeros((1, 1), np.int64),
    }  # fmt: skip


def resume(place: Place) -> Any:
    """As a run does it with what its folder holds from before."""
    with run_folder(place.folder / "run", {}):
        return RecBoleAgent("ItemKNN", progress=False).fit_once(
            build_split(), place.folder / "agent"
        )


def policy_zip(place: Place) -> None:
    """A policy as Stable-Baselines3 writes it, with the marker in a pickle."""
    learner("PPO", source="Pop", shortlist=5)(place)
    with zipfile.ZipFile(place.folder / "agent" / "policy.zip", "w") as archive:
        archive.writestr("data", json.dumps({"policy_class": {":type:": "", ":serialized:": ""}}))
        archive.writestr("policy.pth", place.pickled())


def deep(place: Place) -> None:
    """A header of lists within lists."""
    learner()(place)
    (place.folder / "agent" / HEADER).write_text("[" * 5_000 + "]" * 5_000)


def drop(name: str, value: np.ndarray) -> Callable[[dict[str, np.ndarray]], None]:
    """Another array of that name."""
    return lambda arrays: arrays.update({name: value.astype(arrays[name].dtype)})


CODE = r"ItemKNN may have|more than numbers and words"
CASES: list[Case] = [
    Case("RecBole: a setting is an expression",
         changed(recbole(), setting("k", lambda place: place.code)), load, CODE),
    Case("RecBole: a list of settings holds an expression",
         changed(recbole("MultiVAE", **LAYERS), setting("mlp_hidden_size", lambda p: [p.code])),
         load, "more than numbers and words"),
    Case("RecBole: a run that goes on meets an expression",
         changed(recbole(), setting("k", lambda place: place.code)), resume, CODE),
    Case("RecBole: a setting that a class is looked up by",
         changed(recbole(), setting("teacher", lambda place: place.code)), load, CODE),
    Case("RecBole: pretrained weights that are unpickled",
         changed(recbole("MultiVAE", **LAYERS), setting("pre_model_path", lambda p: str(p.marker))),
         load, "MultiVAE may have"),
    Case("RecBole: a folder to write into",
         changed(recbole(), setting("checkpoint_dir", lambda p: str(p.marker))), load, CODE),
    Case("RecBole: a setting that nobody knows",
         changed(recbole(), setting("shrin", lambda place: 1.0)), load, "did you mean 'shrink'"),
    Case("RecBole: a model that does not exist",
         changed(recbole(), put(model="os.system")), load, "unknown RecBole model"),
    Case("RecBole: another model in a run's folder",
         recbole("EASE"), resume, "holds EASE"),
    Case("RecBole: indices that lead out of a matrix",
         other_arrays(recbole(), drop("solved.w/indices", np.full(1, 10**6))), load,
         "cannot be read"),
    Case("RecBole: ids below 1",
         other_arrays(recbole(), drop("log.items", np.full(21, -3))), load, "no numbers from 1 on"),
    Case("RecBole: more items than fit into memory",
         changed(recbole(), put(n_items=10**12)), load, "says that there are 1000000000000"),
    Case("RecBole: an array in place of a method",
         other_arrays(recbole(), lambda a: a.update({"solved.predict/dense": np.ones(2)})), load,
         "no matrix of ItemKNN"),
    Case("PPO: a policy with pickles", policy_zip, load, "pickles, which earlier versions wrote"),
    Case("PPO: a source that is somebody's module",
         changed(learner("PPO", source="Pop", shortlist=5),
                 lambda place, header: header["settings"].update(source="antigravity:fly")), load),
    Case("learner: a label that leaves the folder",
         changed(learner(), put(label="../../elsewhere")), load, "no name for a file"),
    Case("learner: a label with codes for the terminal",
         changed(learner(), put(label="Lin\x1b[31mUCB")), load, r"Lin\\x1b\[31mUCB"),
    Case("learner: a label that is no text",
         changed(learner(), put(label=["LinUCB"])), load, "no name for a file"),
    Case("learner: a kind that is a path to code",
         changed(learner(), put(kind="os:system")), load, "unknown learning agent"),
    Case("learner: a setting that nobody knows",
         changed(learner(), put(settings={"hook": "os.system"})), load, "hook"),
    Case("learner: items that do not exist",
         other_arrays(learner(), drop("space.seen_items", np.full(21, 9_999))), load,
         "do not fit together"),
    Case("learner: a header of lists within lists", deep, load, "nested deeper"),
    Case("learner: an empty header",
         changed(learner(), lambda place, header: header.clear()), load, "cannot be read"),
]  # fmt: skip
