"""Run folders that go on with something else than they began with, or hold something else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

from tests.hostile.case import Case, Place
from usermirror_gym.agents import PopAgent
from usermirror_gym.agents.learners.store import agent_class
from usermirror_gym.benchmark.config import BenchmarkConfig
from usermirror_gym.benchmark.replay import replay
from usermirror_gym.benchmark.run import run_benchmark
from usermirror_gym.envs import world
from usermirror_gym.files import read_json

FILMS, USERS = range(1, 25), range(1, 9)
LINES = [f"{u},{1 + (5 * u + i) % 24},{100 * i + u},4" for u in USERS for i in range(12)]


def log(place: Place, lines: list[str] = LINES) -> None:
    """A data set of the user's own: eight users who saw twelve of 24 films each."""
    (place.folder / "log.csv").write_text("\n".join(["who,what,when,stars", *lines]) + "\n")
    names = "\n".join(f"{item},Film {item}" for item in FILMS)
    (place.folder / "films.csv").write_text(f"what,name\n{names}\n")
    (place.folder / "data.yaml").write_text(
        "name: own\ndomain: movie\n"
        "interactions: {file: log.csv, user: who, item: what, time: when, rating: stars}\n"
        "items: {file: films.csv, item: what, title: name}\n"
    )


def config(place: Place, **more: Any) -> BenchmarkConfig:
    """A benchmark on it."""
    return BenchmarkConfig(**{
        "agents": ("Pop",), "users": 2, "steps": 2, "slate_size": 2, "fidelity_scenes": 0,
        "simulator": "popularity", "dataset": str(place.folder / "data.yaml"),
    } | more)  # fmt: skip


def run(place: Place, **more: Any) -> Any:
    """The benchmark, begun or gone on with, as by a new process."""
    world._load_split.cache_clear()
    return run_benchmark(config(place, **more), place.folder / "run")


def interrupted(place: Place, **more: Any) -> None:
    """A run that lacks an episode and its outcome."""
    log(place)
    run(place, **more)
    (place.folder / "run" / "results.json").unlink()
    next((place.folder / "run" / "episodes").glob("*/*.jsonl")).unlink()


def other_log(place: Place) -> None:
    """The data change between an interruption and the resume."""
    interrupted(place)
    log(place, [line.replace(",4", ",5") if line[0] == "1" else line for line in LINES])


def other_agent(place: Place) -> None:
    """A trained agent does."""
    log(place)
    world._load_split.cache_clear()
    split = world.make_world(config(place).dataset, simulator="uniform").split
    folder = place.folder / "agent"
    agent_class("LinUCB")(d=4).fit(split).save(folder)
    interrupted(place, agents=(str(folder),))
    shutil.rmtree(folder)
    agent_class("LinUCB")(d=5).fit(split).save(folder)


def with_agent(place: Place) -> Any:
    """Goes on with it."""
    return run(place, agents=(str(place.folder / "agent"),))


def file(name: str, content: str) -> Callable[[Place], None]:
    """A run with another file."""

    def given(place: Place) -> None:
        log(place)
        run(place)
        (place.folder / "run" / name).write_text(content)

    return given


def foreign_code(place: Place) -> None:
    """A run whose settings name a module that leaves the marker when it is imported."""
    log(place)
    run(place)
    (place.folder / "evil.py").write_text(f"{place.code}\n")
    path = place.folder / "run" / "run.json"
    path.write_text(json.dumps(read_json(path) | {"reward": "evil:reward"}))


def played(place: Place) -> Any:
    """As ``usermirror replay`` does it."""
    return replay(place.folder / "run")


class Renamed(PopAgent):
    """Takes the name of another when it is fitted."""

    name = "Late"

    def fit(self, data: Any) -> Any:
        """As the most popular, and under its name."""
        self.name = "Pop"
        return super().fit(data)


def twins(place: Place) -> Any:
    """Two agents that end up with one name."""
    return run(place, agents=("Pop", f"{__name__}:Renamed"))


def holds(place: Place, found: dict[str, Any]) -> bool:
    """Two episodes, each once."""
    rows = (place.folder / "run" / "episodes.jsonl").read_text().splitlines()
    return len({(json.loads(row)["episode"], json.loads(row)["step"]) for row in rows}) == len(rows)


CASES: list[Case] = [
    Case("run: goes on with what it began with", interrupted, run, gives=holds),
    Case("run: the data changed since it began", other_log, run, "data was 'own .* and is 'own "),
    Case("run: a trained agent changed since it began", other_agent, with_agent, "agent .* was"),
    Case("run: two fitted agents with one label", log, twins, "two agents are called 'Pop'"),
    Case("run: settings name a module", foreign_code, played, "names code that is not ours"),
    Case("run: settings are a list", file("run.json", "[]"), run, r"run\.json"),
    Case("run: settings are cut", file("run.json", '{"agents": ["P'), run, r"run\.json"),
    Case("run: settings are lists within lists", file("run.json", "[" * 9_999), run, r"run\.json"),
    Case("replay: settings are a list", file("run.json", "[]"), played, r"run\.json"),
]
"""Of interrupted, exchanged and damaged runs."""
