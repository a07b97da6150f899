"""Vectors on disk: found again, put together, made anew."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from usermirror_gym.simulators.affinity import item_vectors as vector_store
from usermirror_gym.simulators.affinity.item_vectors import VectorStore

WIDTH = 3


def vectors(texts: list[str]) -> np.ndarray:
    """A row that belongs to its text."""
    return np.array([[len(text), hash(text) % 7, 0.1] for text in texts]).reshape(-1, WIDTH)


def filled(path: Path | None, texts: list[str]) -> VectorStore:
    store = VectorStore(WIDTH, path)
    store.add(texts, vectors(texts), seconds=1.0)
    return store


def assert_holds(store: VectorStore, texts: list[str]) -> None:
    assert store.unknown(texts) == []
    found = store.vectors[store.rows(texts)]
    np.testing.assert_array_equal(found, vectors(texts).astype(np.float32))


def test_row_0_is_for_padding() -> None:
    store = filled(None, ["a"])
    assert store.vectors[0].tolist() == [0.0, 0.0, 0.0]
    assert store.rows(["a"]).tolist() == [1]


def test_found_again_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.npz"
    first = filled(path, ["a", "b"])
    again = VectorStore(WIDTH, path)
    np.testing.assert_array_equal(again.vectors, first.vectors)
    assert again.unknown(["b", "c", "a", "c"]) == ["c"]
    with pytest.raises(KeyError):
        again.rows(["c"])


@pytest.mark.parametrize("damage", ["cut", "changed", "foreign", "empty", "narrow", "nan"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: str, caplog) -> None:
    path = tmp_path / "file.npz"
    filled(path, ["a", "b"])
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-30])
    elif damage == "changed":  # one bit of a number
        at = content.index(vectors(["a"]).astype(np.float32).tobytes())
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    elif damage == "foreign":
        np.savez(path, weights=np.ones(3))
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        rows = np.ones((1, 2)) if damage == "narrow" else np.full((1, WIDTH), np.nan)
        np.savez(path, digests=np.array(["x" * 32]), vectors=rows.astype(np.float32))
    store = VectorStore(WIDTH, path)
    assert "is damaged and is made anew" in caplog.text
    assert store.unknown(["a", "b"]) == ["a", "b"]
    store.add(["a"], vectors(["a"]), seconds=1.0)
    assert_holds(VectorStore(WIDTH, path), ["a"])


def test_two_at_once_are_put_together(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    one, two = VectorStore(WIDTH, path), VectorStore(WIDTH, path)
    one.add(["a", "b"], vectors(["a", "b"]), seconds=1.0)
    two.add(["b", "c"], vectors(["b", "c"]), seconds=1.0)
    assert_holds(two, ["a", "b", "c"])  # learned from the file at saving
    assert_holds(VectorStore(WIDTH, path), ["a", "b", "c"])
    one.add(["d"], vectors(["d"]), seconds=1.0)
    assert_holds(VectorStore(WIDTH, path), ["a", "b", "c", "d"])


def _write(path: Path, own: str, start: object) -> None:
    store = VectorStore(WIDTH, path)
    start.wait()
    for i in range(15):
        texts = [f"{own} {i}", f"shared {i}"]
        store.add(texts := store.unknown(texts), vectors(texts), seconds=100.0)


def test_two_processes(tmp_path: Path, caplog) -> None:
    path = tmp_path / "file.npz"
    context = multiprocessing.get_context("fork")  # the same hash() in both
    start = context.Barrier(2)
    writers = [context.Process(target=_write, args=(path, own, start)) for own in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    store = VectorStore(WIDTH, path)
    assert caplog.text == ""
    known = [t for own in ("a", "b", "shared") for t in (f"{own} {i}" for i in range(15))]
    known = [text for text in known if not store.unknown([text])]
    assert len(known) >= 30  # the last writer's own rows, whatever was lost between read and write
    assert_holds(store, known)
    assert [p.name for p in tmp_path.iterdir()] == ["file.npz"]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, caplog) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    store = filled(tmp_path / "taken" / "file.npz", ["a"])
    assert "is not kept" in caplog.text
    assert_holds(store, ["a"])


def test_saving_waits_until_it_is_cheap(tmp_path: Path, monkeypatch) -> None:
    """A file is not written at every step if writing takes long."""
    path = tmp_path / "file.npz"
    store = filled(path, ["a"])
    store._saving_seconds = 1.0
    share = vector_store._SAVING_SHARE
    store.add(["b"], vectors(["b"]), seconds=0.6 / share)
    assert VectorStore(WIDTH, path).unknown(["b"]) == ["b"]
    store.add(["c"], vectors(["c"]), seconds=0.6 / share)
    assert_holds(VectorStore(WIDTH, path), ["a", "b", "c"])
