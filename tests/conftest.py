"""What holds for every test: thread limits, fixed global seeds, reproducible hypothesis runs."""

from __future__ import annotations

import os
import random
import sys

# Several test processes on few cores: each must not start a thread per core.  Set before torch,
# numpy or RecBole are imported, and inherited by the processes that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# What the developer has fetched must not decide what a test sees.
os.environ["USERMIRROR_DATA"] = os.path.join(os.devnull, "nothing")

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("usermirror", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("usermirror")


@pytest.fixture(autouse=True)
def _global_seeds() -> None:
    """The library takes seeds; third-party code that draws globally is pinned here."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
