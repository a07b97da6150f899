"""Answers in a file: whole or absent, whoever writes, dies or damages it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.engines import hammer
from usermirror_gym.engines.store import answer_store
from usermirror_gym.engines.store.answer_store import AnswerStore
from usermirror_gym.errors import ConfigError, StoreError

SOURCES = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.sqlite"


def test_what_was_put_is_there_for_the_next_process(path: Path) -> None:
    AnswerStore(path).put({b"a": b"1", b"b": b"", b"c": bytes(range(256))})
    code = "import sys; from usermirror_gym.engines.store.answer_store import AnswerStore as S; " \
           "sys.stdout.write(repr(S(sys.argv[1]).get([b'c', b'x', b'b', b'a', b'a'])))"  # fmt: skip
    found = subprocess.run([sys.executable, "-c", code, path], cwd=SOURCES, capture_output=True)
    assert eval(found.stdout) == [bytes(range(256)), None, b"", b"1", b"1"]


def test_many_keys_in_one_call(path: Path) -> None:
    store = AnswerStore(path)
    store.put({hammer.key(q): hammer.answer(q) for q in range(1_300)})
    found = store.get([hammer.key(q) for q in range(-1, 1_300)])
    assert found == [None, *map(hammer.answer, range(1_300))]
    assert len(store) == 1_300


def test_a_damaged_answer_is_no_answer(path: Path) -> None:
    store = AnswerStore(path)
    store.put({b"a": b"right", b"b": b"right"})
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE answers SET value = value || X'00' WHERE key = ?", (b"a",))
    assert store.get([b"a", b"b"]) == [None, b"right"]
    assert store.damaged == 1
    # A value that belongs to another key is damage too.
    with db:
        db.execute("UPDATE answers SET value = (SELECT value FROM answers WHERE key = X'62')")
    assert store.get([b"a", b"b"]) == [None, b"right"]


def test_the_oldest_go_when_it_is_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000.0]
    monkeypatch.setattr(answer_store.time, "time", lambda: now[0])
    store = AnswerStore(path, max_bytes=1 << 20)
    kept = hammer.key(0)
    for round_ in range(60):
        now[0] += 7200
        store.put({hammer.key(100 * round_ + j): bytes(1_000) for j in range(100)})
        assert store.get([kept]) == [bytes(1_000)]  # in use, hence never the oldest
        assert store.size <= 1.1 * (1 << 20)
    newest = [hammer.key(100 * 59 + j) for j in range(100)]
    assert None not in store.get(newest)
    assert store.get([hammer.key(150)]) == [None]
    assert path.stat().st_size < 3 * (1 << 20)


def test_clearing_gives_the_room_back(path: Path) -> None:
    store = AnswerStore(path)
    store.put({hammer.key(q): bytes(5_000) for q in range(200)})
    before = store.size
    store.clear()
    assert len(store) == 0
    assert store.size < before / 10


def test_foreign_files_are_refused_unharmed(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"this is a letter to somebody" * 100)
    with pytest.raises(StoreError, match=r"answers\.sqlite.*delete it"):
        AnswerStore(path)
    assert path.read_bytes().startswith(b"this is a letter")
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE diary (day TEXT)")
    with pytest.raises(StoreError, match="no answer store of format 1"):
        AnswerStore(other)
    newer = tmp_path / "newer.sqlite"
    AnswerStore(newer)
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 2")
    with pytest.raises(StoreError, match="another version of this package"):
        AnswerStore(newer)
    with pytest.raises(StoreError, match="cannot open"):
        AnswerStore(tmp_path)  # a folder
    with pytest.raises(ConfigError, match="max_bytes is 10"):
        AnswerStore(path, max_bytes=10)


def test_trouble_in_mid_run_costs_the_store_and_not_the_run(path: Path, caplog) -> None:
    store = AnswerStore(path)
    store.put({b"a": b"1"})
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE answers")
    assert store.get([b"a", b"b"]) == [None, None]
    store.put({b"a": b"1"})
    assert store.get([b"a"]) == [None]
    assert [r.message.count("going on without the answer store") for r in caplog.records] == [1]


def test_threads_and_forks_have_connections_of_their_own(path: Path) -> None:
    store = AnswerStore(path)
    store.put({b"a": b"1"})
    found: list = []
    threads = [threading.Thread(target=lambda: found.extend(store.get([b"a"]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"1"] * 4
    child = multiprocessing.get_context("fork").Process(target=store.put, args=({b"b": b"2"},))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert store.get([b"a", b"b"]) == [b"1", b"2"]


@pytest.mark.parametrize("max_bytes", [1 << 30, 1 << 20])
def test_eight_processes_hammer_and_one_is_killed(path: Path, max_bytes: int) -> None:
    """The second time it is too small for all, so that answers are dropped all the time."""
    seconds = 2.0
    command = [sys.executable, "-m", "tests.engines.hammer", str(path)]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    crowd = [
        subprocess.Popen(
            [*command, str(seed), str(seconds), str(max_bytes)], cwd=SOURCES, env=quiet,
            stdout=subprocess.PIPE, text=True,
        )
        for seed in range(8)
    ]  # fmt: skip
    victim = crowd[3]
    assert victim.stdout is not None
    assert victim.stdout.readline() == "ready\n"
    time.sleep(seconds / 2)
    victim.kill()
    outputs = [process.communicate(timeout=60)[0] for process in crowd]
    assert victim.returncode == -signal.SIGKILL
    reports = [out.split()[-4:] for k, out in enumerate(outputs) if k != 3]
    assert [p.returncode for k, p in enumerate(crowd) if k != 3] == [0] * 7
    assert all(int(asked) > 0 for asked, *_ in reports)
    assert all(rest == ["0", "0", "False"] for _, *rest in reports)  # wrong, damaged, given up
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store = AnswerStore(path, max_bytes=max_bytes)
    found = store.get([hammer.key(q) for q in range(hammer.QUESTIONS)])
    kept = [(q, value) for q, value in enumerate(found) if value is not None]
    assert len(kept) > 100
    assert all(value == hammer.answer(q) for q, value in kept)
    assert store.size <= 1.1 * max_bytes
