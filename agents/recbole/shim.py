"""Make RecBole 1.2.0 run on numpy 2 and scipy 1.17, quietly and without side effects."""

from __future__ import annotations

import ast
import importlib.util
import io
import logging
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from unittest.mock import patch


def prepare() -> None:
    """Put back the names that RecBole still uses; call before any ``import recbole``.

    numpy 2 removed aliases of scalar types; scipy 1.17 lost the private ``dok_matrix._update``,
    which the graph models use to fill an adjacency matrix.  Harmless when called again.
    """
    import numpy as np
    from scipy.sparse import dok_matrix

    for alias, scalar in (("float_", "float64"), ("complex_", "complex128"), ("unicode_", "str_")):
        if not hasattr(np, alias):
            setattr(np, alias, getattr(np, scalar))
    if not hasattr(dok_matrix, "_update"):
        dok_matrix._update = _dok_update
    if _absent("kmeans_pytorch"):
        sys.modules["kmeans_pytorch"] = _module("kmeans_pytorch", kmeans=_kmeans)


def _dok_update(matrix: Any, entries: dict) -> None:
    for (row, column), value in entries.items():
        matrix[row, column] = value


class _NoWriter:
    """Stands in for TensorBoard's writer, which would create a folder in the working directory."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


@contextmanager
def contained(seed: int) -> Iterator[str]:
    """Run RecBole code with seeded generators, silenced, leaving no trace in the process.

    Yields the path of a temporary folder for whatever RecBole wants to write.  Afterwards the
    global generators of ``random``, numpy and torch, the root logger's level, and
    ``CUDA_VISIBLE_DEVICES`` (which RecBole's configuration sets) are as before.
    """
    prepare()
    import numpy as np
    import torch
    from recbole.config import Config
    from recbole.trainer import trainer
    from recbole.utils import init_seed

    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    root = logging.getLogger()
    level = root.level
    # faiss only meanwhile: other packages (datasets, for one) ask at their import whether there is
    # one, and would take the stand-in for the whole of it.
    if stands_in := _absent("faiss"):
        sys.modules["faiss"] = _module("faiss", Kmeans=_Kmeans)
    try:
        with (
            torch.random.fork_rng(),
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            patch.object(trainer, "get_tensorboard", lambda logger: _NoWriter()),
            # Otherwise any --name=value of the running program becomes a setting of the model.
            patch.object(Config, "_load_cmd_line", lambda self: {}),
            # It would evaluate every text among the settings as an expression of Python.
            patch.object(Config, "_convert_config_dict", lambda self, given: read_texts(given)),
            tempfile.TemporaryDirectory(prefix="usermirror-") as folder,
        ):
            warnings.simplefilter("ignore")
            root.setLevel(logging.ERROR)
            init_seed(seed, True)
            yield folder
    finally:
        if stands_in:
            del sys.modules["faiss"]
        root.setLevel(level)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        if visible is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible


def read_texts(settings: dict[str, Any]) -> dict[str, Any]:
    """Texts that spell a value ("[64, 32]", "1e-3", "true") as the value, as RecBole has them."""
    return {name: _value(v) for name, v in settings.items()}


def _value(text: Any) -> Any:
    if isinstance(text, list | tuple):
        return [_value(one) for one in text]
    if not isinstance(text, str):
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        found = ast.literal_eval(text) if len(text) < 1_000 else text
        return list(found) if isinstance(found, tuple) else found
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _absent(name: str) -> bool:
    return name not in sys.modules and importlib.util.find_spec(name) is None


def _module(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name, "scikit-learn behind the interface that RecBole uses")
    # find_spec raises for a registered module that has none.
    module.__spec__ = ModuleSpec(name, loader=None)
    module.__dict__.update(content)
    return module


def _fit(x: Any, clusters: int) -> Any:
    import numpy as np
    from sklearn.cluster import KMeans

    # Seeded from numpy's generator, which RecBole seeds.
    seed = int(np.random.randint(2**31))  # noqa: NPY002
    return KMeans(min(clusters, len(x)), n_init=1, random_state=seed).fit(x)


def _kmeans(X: Any, num_clusters: int, **_: Any) -> tuple[Any, Any]:
    import torch

    model = _fit(X.detach().cpu().numpy(), num_clusters)
    return torch.from_numpy(model.labels_).long(), torch.from_numpy(model.cluster_centers_)


class _Kmeans:
    """The part of ``faiss.Kmeans`` that NCL uses."""

    def __init__(self, d: int, k: int, **_: Any) -> None:
        self.k = k

    def train(self, x: Any) -> None:
        self._model = _fit(x, self.k)
        self.centroids = self._model.cluster_centers_
        self.index = self

    def search(self, x: Any, k: int) -> tuple[Any, Any]:
        nearest = self._model.predict(x)[:, None]
        return self._model.transform(x).min(axis=1, keepdims=True), nearest
