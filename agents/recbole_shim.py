"""Make RecBole 1.2.0 run on numpy 2 and scipy 1.17, quietly and without side effects."""

from __future__ import annotations

import io
import logging
import os
import random
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from usermirror_gym.agents import recbole_kmeans


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
    recbole_kmeans.install()


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
    writer, root = trainer.get_tensorboard, logging.getLogger()
    command_line = Config._load_cmd_line
    level = root.level
    try:
        with (
            torch.random.fork_rng(),
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            recbole_kmeans.faiss(),
            tempfile.TemporaryDirectory(prefix="usermirror-") as folder,
        ):
            warnings.simplefilter("ignore")
            root.setLevel(logging.ERROR)
            trainer.get_tensorboard = lambda logger: _NoWriter()
            # Otherwise any --name=value of the running program becomes a setting of the model.
            Config._load_cmd_line = lambda self: {}
            init_seed(seed, True)
            yield folder
    finally:
        trainer.get_tensorboard = writer
        Config._load_cmd_line = command_line
        root.setLevel(level)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        if visible is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible
