"""The folder of a run: whose it is, who is at work in it, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from pydantic import BaseModel

from usermirror_gym.errors import RunError
from usermirror_gym.run_folder import locked, numbered_folder, run_folder
from usermirror_gym.train.agent.config import rl_config
from usermirror_gym.train.surrogate.config import SurrogateConfig


class Settings(BaseModel):
    """Of a training."""

    group: dict[str, int] = {"steps": 3}
    price: float = 1.0


def test_after_sigkill_the_next_run_goes_on(tmp_path: Path, holder) -> None:
    folder = tmp_path / "run"
    with run_folder(folder, {"users": 6}):
        pass
    other = holder(folder)
    (folder / ".half.npz.9.tmp").touch()
    with pytest.raises(RunError, match=f"process {other.pid} on"), run_folder(folder, {"users": 6}):
        pass
    assert (folder / ".half.npz.9.tmp").exists()  # the other one may be writing it
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (folder / ".holder.json").exists()  # it had no time to delete it
    with run_folder(folder, {"users": 6}):
        assert not (folder / ".half.npz.9.tmp").exists()
        assert json.loads((folder / ".holder.json").read_text())["pid"] != other.pid
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "run.json"]


def test_the_folder_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), run_folder(tmp_path, {"users": 6}):
        raise KeyboardInterrupt
    with run_folder(tmp_path, {"users": 6}):
        pass


def test_who_waits_is_told_for_whom(tmp_path: Path, holder) -> None:
    other, said = holder(tmp_path), []

    def told(message: str) -> None:
        said.append(message)
        other.kill()

    with locked(tmp_path, "fits", wait=told):
        pass
    assert len(said) == 1
    assert f"another process fits in {tmp_path} (process {other.pid} on" in said[0]


def test_a_holder_of_an_older_version_has_no_name(tmp_path: Path, holder) -> None:
    holder(tmp_path)
    for content in ("", "[]", "{}"):
        (tmp_path / ".holder.json").write_text(content)
        with (
            pytest.raises(RunError, match=rf"another process is at work in {tmp_path}: wait"),
            locked(tmp_path),
        ):
            pass


def test_settings_are_compared_and_some_may_change(tmp_path: Path) -> None:
    def begin(settings: Settings, **more: object) -> None:
        with run_folder(tmp_path, settings, "build", **more):
            pass

    begin(Settings())
    begin(Settings(price=2.0), may_change=lambda name: name == "price")
    with pytest.raises(RunError, match=r"a build with other settings \(price: 1.0 there, 2.0 here"):
        begin(Settings(price=2.0))
    with pytest.raises(RunError, match=r"group.steps: 3 there, 4 here"):
        begin(Settings(group={"steps": 4}), may_change=lambda name: name == "price")
    assert json.loads((tmp_path / "config.json").read_text()) == Settings().model_dump()


def test_secrets_of_settings_are_not_written(tmp_path: Path) -> None:
    secret = "s3cr3t-marker"
    options = {"engine": {"base_url": f"http://u:{secret}@host/v1", "extra_body": {"key": secret}}}
    training = rl_config(
        algo="linucb", simulator_options=options, eval_simulator_options=options
    )  # of train-agent
    teaching = SurrogateConfig(name="small", teacher_options=options)
    for name, settings in (("agent", training), ("surrogate", teaching), ("plain", options)):
        for _ in range(2):  # and goes on
            with run_folder(tmp_path / name, settings):
                pass
        text = next((tmp_path / name).glob("*.json")).read_text()
        assert secret not in text
        assert "http://***@host/v1" in text
    with (
        pytest.raises(RunError, match="other settings") as refused,
        run_folder(tmp_path / "plain", {"engine": f"http://u:{secret}@other"}),
    ):
        pass
    assert secret not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "Expecting value"), ("{", "Expecting property name"), ('{"a": 1', "Expecting ','"),
        ("[1]", "must hold a mapping, and holds a list"), ("null", "holds a NoneType"),
        ("\udcff", "utf-8"), ("[" * 100_000, "nested deeper"), ("7" * 5000, "digits"),
    ],
)  # fmt: skip
def test_damaged_settings_name_the_file_and_the_results_stay(
    content: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "run.json").write_text(content, errors="surrogateescape")
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(RunError, match=words) as refused, run_folder(tmp_path, {"users": 1}):
        pass
    assert f"{tmp_path}/run.json" in str(refused.value)
    assert "use another folder" in str(refused.value)
    assert (tmp_path / "results.json").read_text() == "{}"


def test_hidden_files_are_nothing_and_others_are_left_alone(tmp_path: Path) -> None:
    for name in (".run.json.7.tmp", ".lock", ".DS_Store"):
        (tmp_path / "mine" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "mine" / name).touch()
    with run_folder(tmp_path / "mine", {}):
        pass
    (tmp_path / "letter.txt").touch()
    with pytest.raises(RunError, match="not empty and holds no run"), run_folder(tmp_path, {}):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letter.txt", "mine"]


def test_a_kill_before_the_first_file_leaves_no_number_behind(tmp_path: Path) -> None:
    """A folder that is being numbered has its lock, and perhaps half a file, before its run."""
    base = tmp_path / "card"
    base.mkdir()
    for name in (".lock", ".holder.json", ".run.json.7.tmp"):
        (base / name).touch()
    assert numbered_folder(base, {"users": 1}) == base
    with run_folder(base, {"users": 1}):
        assert not (base / ".run.json.7.tmp").exists()
    assert numbered_folder(base, {"users": 1}) == base
    (tmp_path / "mine").mkdir()  # somebody made it for something
    assert numbered_folder(tmp_path / "mine", {"users": 1}).name == "mine-2"


def test_the_lock_tells_who_is_at_work_and_not_the_note_beside_it(tmp_path: Path) -> None:
    """Left by a process that died on another machine, whose number is that of one here."""
    about = {"pid": os.getpid(), "host": "elsewhere", "command": "x", "since": "then"}
    (tmp_path / ".lock").touch()
    (tmp_path / ".holder.json").write_text(json.dumps(about))
    with run_folder(tmp_path, {"users": 6}):
        assert json.loads((tmp_path / ".holder.json").read_text())["host"] != "elsewhere"
    assert not (tmp_path / ".holder.json").exists()


def test_a_folder_that_an_error_left_empty_goes_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "new"):
        raise KeyboardInterrupt
    (tmp_path / "mine").mkdir()
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "mine"):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_numbered_folders(tmp_path: Path) -> None:
    base = tmp_path / "card"
    assert numbered_folder(base, {"users": 1}) == base
    for users, name in ((1, "card"), (2, "card-2"), (3, "card-3"), (2, "card-2")):
        folder = numbered_folder(base, {"users": users})
        assert folder.name == name
        with run_folder(folder, {"users": users}):
            pass


@pytest.mark.parametrize("settings", [{"users": 6}, Settings()])
def test_a_run_does_not_go_on_with_other_inputs(tmp_path: Path, settings: object) -> None:
    def begin(**inputs: str) -> None:
        with run_folder(tmp_path, settings, inputs=inputs):
            pass

    begin(data="ml 1", simulator="user 1")
    begin(data="ml 1", simulator="user 1")
    before = {path: path.read_bytes() for path in tmp_path.glob("*.json")}
    with pytest.raises(RunError, match=r"not what this run began with: data was 'ml 1' and is"):
        begin(data="ml 2", simulator="user 1")
    with pytest.raises(RunError, match="agent x was None and is 'a'"):
        begin(data="ml 1", simulator="user 1", **{"agent x": "a"})
    assert {path: path.read_bytes() for path in tmp_path.glob("*.json")} == before


def test_a_default_folder_is_that_of_the_settings_whatever_they_are_made_of(tmp_path: Path) -> None:
    with run_folder(tmp_path / "run", {"users": 6}, inputs={"data": "ml 1"}):
        pass
    assert numbered_folder(tmp_path / "run", {"users": 6}) == tmp_path / "run"
    assert numbered_folder(tmp_path / "run", {"users": 7}) == tmp_path / "run-2"


def test_only_our_own_remains_are_deleted_and_not_those_of_runs_below(tmp_path: Path) -> None:
    below = tmp_path / "other"
    below.mkdir()
    (below / ".lock").touch()
    kept = [tmp_path / ".notes.tmp", tmp_path / ".cache.tmp", below / ".results.json.7.tmp"]
    for path in kept:
        path.touch()
    (tmp_path / "sub").mkdir()
    gone = [tmp_path / ".half.npz.9.tmp", tmp_path / "sub" / ".x.9.tmp", tmp_path / ".link.9.tmp"]
    for path in gone[:2]:
        path.touch()
    gone[2].symlink_to(below)
    with locked(tmp_path, clean=False):
        assert all(map(Path.exists, (*kept, *gone)))
    with locked(tmp_path):
        assert all(map(Path.exists, kept))
        assert not any(path.is_symlink() or path.exists() for path in gone)
