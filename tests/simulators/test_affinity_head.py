"""The head of the affinity readout: formulas, files, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from usermirror_gym.errors import CheckpointError, UnknownNameError
from usermirror_gym.simulators.affinity.affinity_head import (
    AffinityHead,
    LineMemory,
    read_head,
    write_head,
)

SHAPES = {"mean": (6,), "history": (6, 2), "option": (6, 2), "bias": (6,), "lags": (5,)}
NAMES = tuple(SHAPES)
FLOOR = np.array([0.25], np.float32)


@pytest.fixture
def head() -> AffinityHead:
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    return AffinityHead(((4, "mean"), (9, "last")), **arrays, floor=0.3)


def test_vectors_by_hand() -> None:
    head = AffinityHead(
        ((0, "mean"),), mean=[1.0, 2.0], history=[[1.0, 0.0], [0.0, 2.0]],
        option=[[0.5, 0.0], [0.0, -1.0]], bias=[3.0, -1.0], lags=[0.0],
    )  # fmt: skip
    vectors = head.vectors(np.array([[3.0, 5.0], [1.0, 2.0]], np.float32), ["a", "b"])
    assert vectors.history.tolist() == [[2.0, 6.0], [0.0, 0.0]]
    assert vectors.option.tolist() == [[1.0, -3.0], [0.0, 0.0]]
    assert vectors.item_bias.tolist() == [3.0, 0.0]


def test_what_is_remembered_by_hand(head: AffinityHead) -> None:
    memory = LineMemory.of(
        ["b", "a", "b"], np.array([[1.0], [2.0], [8.0]]), np.array([[3.0], [4.0], [8.0]]),
        np.array([5.0, 6.0, 8.0]),
    )  # fmt: skip
    states = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
    told = head.vectors(states, ["a", "c", "b"])
    both = replace(head, memory=memory).vectors(states, ["a", "c", "b"])
    np.testing.assert_array_equal(both.history, np.c_[told.history, [2.0, 0.0, 1.0]])
    np.testing.assert_array_equal(both.option, np.c_[told.option, [4.0, 0.0, 3.0]])
    np.testing.assert_array_equal(both.item_bias, told.item_bias + np.array([6.0, 0.0, 5.0]))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_remembered_comes_back_from_the_file(
    head: AffinityHead, tmp_path: Path, dtype: str
) -> None:
    values = np.array([[0.5, -2.0], [1.5, 4.0]])
    memory = LineMemory.of(["Heat\n", "Alien 3\n"], values, 2 * values, values[:, 0])
    whole = replace(head, memory=memory)
    write_head(tmp_path, whole, dtype)
    found = read_head(tmp_path)
    assert found.d == 4
    for one, other in zip(
        memory.recall(["Alien 3\n", "Heat\n"]), found.memory.recall(["Alien 3\n", "Heat\n"]),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(one, other)
    if dtype == "float32":
        assert found.digest == whole.digest
    other = replace(memory, item_bias=memory.item_bias + 1)
    names = {h.vectors_digest for h in (head, whole, replace(head, memory=other))}
    assert len(names) == 3


def test_a_memory_that_cannot_be_used_is_refused(head: AffinityHead, tmp_path: Path) -> None:
    memory = LineMemory.of(["a", "b"], np.ones((2, 3)), np.ones((2, 3)), np.ones(2))
    with pytest.raises(CheckpointError, match="must be ascending uint64 digests"):
        replace(memory, digests=memory.digests[::-1])
    with pytest.raises(CheckpointError, match=r"must be \(n,\), \(n, e\)"):
        replace(memory, option=np.ones((2, 4)))
    with pytest.raises(CheckpointError, match=r"memory\.item_bias .*not finite"):
        replace(head, memory=replace(memory, item_bias=np.array([1.0, np.nan])))
    path = write_head(tmp_path, replace(head, memory=memory))
    arrays = load_file(path)
    del arrays["known_appeal"]
    save_file(arrays, path, {"parts": json.dumps(head.parts)})
    with pytest.raises(CheckpointError, match=r"affinity\.safetensors holds .*known"):
        read_head(tmp_path)


def test_lag_weights_by_hand(head: AffinityHead) -> None:
    head = replace(head, lags=np.log([4.0, 2.0, 2.0, 7.0, 1.0]))
    np.testing.assert_allclose(head.lag_weights(3), [
        [0, 0, 0],
        [1, 0, 0],
        [4 / 6, 2 / 6, 0],
        [4 / 8, 2 / 8, 2 / 8],
    ], rtol=1e-6)  # fmt: skip


def test_affinity_by_hand(head: AffinityHead) -> None:
    match = np.array([[-3.0, 0.0], [0.75, 1.75]])
    expected = np.log([[0.3, 0.3], [1.05, 2.05]])
    np.testing.assert_allclose(head.affinity(match), expected, rtol=1e-6)


def test_lags_far_apart_do_not_overflow(head: AffinityHead) -> None:
    weights = replace(head, lags=np.array([-3e4, 3e4, 0, 0, 0])).lag_weights(5)
    np.testing.assert_allclose(weights[1], [1, 0, 0, 0, 0])
    np.testing.assert_allclose(weights[3], [0, 1, 0, 0, 0])


class TestFiles:
    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_what_is_read_is_what_was_written(self, head, tmp_path: Path, dtype: str) -> None:
        path = write_head(tmp_path / "new", head, dtype)
        assert path.name == "affinity.safetensors"
        found = read_head(tmp_path / "new")
        assert found.parts == head.parts
        assert found.floor == head.floor
        for name in NAMES:
            values = getattr(found, name)
            assert values.dtype == np.float32
            np.testing.assert_array_equal(values, getattr(head, name).astype(dtype))
            assert load_file(path)[name].dtype == dtype
        assert (found.digest == head.digest) is (dtype == "float32")

    def test_a_half_is_half_as_large(self, head, tmp_path: Path) -> None:
        large = replace(head, history=np.ones((6, 500)), option=np.ones((6, 500)))
        whole = write_head(tmp_path / "a", large).stat().st_size
        assert write_head(tmp_path / "b", large, "float16").stat().st_size < 0.55 * whole

    def test_digests_tell_apart_what_differs(self, head) -> None:
        others = [replace(head, **{name: getattr(head, name) + 1}) for name in NAMES]
        others.append(replace(head, parts=((4, "mean"), (8, "last"))))
        others.append(replace(head, floor=0.5))
        assert len({other.digest for other in (head, *others)}) == 8
        same = [other.vectors_digest == head.vectors_digest for other in others]
        assert same == [False, False, False, False, True, False, True]

    def test_a_failed_write_leaves_the_old_file(self, head, tmp_path: Path) -> None:
        write_head(tmp_path, head)
        large = replace(head, bias=head.bias + 1e6)
        with pytest.raises(CheckpointError, match=r"affinity\.safetensors: bias.*range of float16"):
            write_head(tmp_path, large, "float16")
        with pytest.raises(UnknownNameError, match="Did you mean 'float16'"):
            write_head(tmp_path, head, "float15")
        assert read_head(tmp_path).digest == head.digest
        assert [p.name for p in tmp_path.iterdir()] == ["affinity.safetensors"]


class TestRefusals:
    def written(self, folder: Path, parts: object = ((4, "mean"), (9, "last")), **arrays) -> Path:
        whole = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
        whole |= {"floor": FLOOR} | arrays
        kept = {name: values for name, values in whole.items() if values is not None}
        metadata = {} if parts is None else {"parts": json.dumps(parts)}
        save_file(kept, folder / "affinity.safetensors", metadata)
        return folder

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"has no affinity\.safetensors"):
            read_head(tmp_path)

    def test_damaged_files(self, tmp_path: Path) -> None:
        path = self.written(tmp_path) / "affinity.safetensors"
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(CheckpointError, match=r"cannot read .*affinity\.safetensors.*Fetch or"):
            read_head(tmp_path)

    def test_missing_and_foreign_arrays(self, tmp_path: Path) -> None:
        for arrays in ({"lags": None}, {"floor": None}, {"weight": np.ones(3)}):
            with pytest.raises(CheckpointError, match=r"holds .* and an affinity head is mean, "):
                read_head(self.written(tmp_path, **arrays))

    @pytest.mark.parametrize("parts", [None, [], 3, [[1, "max"]], [[-1, "mean"]], [[1]], "mean"])
    def test_parts_that_say_nothing(self, tmp_path: Path, parts: object) -> None:
        with pytest.raises(CheckpointError, match=r"affinity\.safetensors.*parts"):
            read_head(self.written(tmp_path, parts))

    @pytest.mark.parametrize("arrays", [
        {"mean": np.ones(5)},
        {"bias": np.ones((6, 1))},
        {"option": np.ones((6, 3))},
        {"history": np.ones(6), "option": np.ones(6)},
        {"lags": np.ones((5, 1))},
        {"lags": np.ones(0)},
        {"history": np.ones((6, 0)), "option": np.ones((6, 0))},
    ])  # fmt: skip
    def test_shapes_that_do_not_fit(self, tmp_path: Path, arrays: dict) -> None:
        with pytest.raises(CheckpointError, match=r"affinity\.safetensors.* have shapes .*must be"):
            read_head(self.written(tmp_path, **arrays))

    def test_a_width_that_is_no_multiple_of_the_parts(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"6 numbers of 4 parts"):
            read_head(self.written(tmp_path, [[i, "mean"] for i in range(4)]))

    def test_numbers_that_are_not_finite(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"affinity\.safetensors: history .* not finite"):
            read_head(self.written(tmp_path, history=np.full((6, 2), np.nan)))

    @pytest.mark.parametrize("floor", [0.0, -1.0, np.nan, np.inf])
    def test_a_floor_that_has_no_logarithm(self, tmp_path: Path, floor: float) -> None:
        with pytest.raises(CheckpointError, match=r"affinity\.safetensors: floor .* above 0"):
            read_head(self.written(tmp_path, floor=np.array([floor], np.float32)))

    def test_a_floor_that_is_many(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"affinity\.safetensors"):
            read_head(self.written(tmp_path, floor=np.ones(3, np.float32)))
