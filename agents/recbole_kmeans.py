"""scikit-learn's k-means under the two names that RecBole's NCL and LDiffRec import.

Those packages (faiss, kmeans_pytorch) are not among RecBole's dependencies; LDiffRec's import
would otherwise keep every general model from loading.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def install() -> None:
    """Register ``kmeans_pytorch``, if it is absent, for as long as the process lives."""
    if _absent("kmeans_pytorch"):
        sys.modules["kmeans_pytorch"] = _module("kmeans_pytorch", kmeans=_kmeans)


@contextmanager
def faiss() -> Iterator[None]:
    """``faiss``, if it is absent, while NCL trains and no longer.

    Other packages (datasets, for one) ask at their import whether there is a faiss, and would
    take the stand-in for the whole of it.
    """
    if not _absent("faiss"):
        yield
        return
    sys.modules["faiss"] = _module("faiss", Kmeans=_Kmeans)
    try:
        yield
    finally:
        del sys.modules["faiss"]


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
