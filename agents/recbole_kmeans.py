"""scikit-learn's k-means under the two names that RecBole's NCL and LDiffRec import.

Those packages (faiss, kmeans_pytorch) are not among RecBole's dependencies; LDiffRec's import
would otherwise keep every general model from loading.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any


def install() -> None:
    """Register the stand-ins for whichever of the two packages is absent."""
    for name, content in (("kmeans_pytorch", {"kmeans": _kmeans}), ("faiss", {"Kmeans": _Kmeans})):
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            module = ModuleType(name, "scikit-learn behind the interface that RecBole uses")
            module.__dict__.update(content)
            sys.modules[name] = module


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
