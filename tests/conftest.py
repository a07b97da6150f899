"""For every test: thread limits, fixed seeds, reproducible hypothesis runs, eight films."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

# Several test processes on few cores: each must not start a thread per core.  Set before torch,
# numpy or RecBole are imported, and inherited by the processes that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_name, "1")
# Started in the background, a shell's jobs ignore interrupts, and so would those of the tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# What the developer has fetched must not decide what a test sees.
os.environ["USERMIRROR_DATA"] = os.path.join(os.devnull, "nothing")

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

from usermirror_gym.data import RecDataset, TimeSplit, time_cut
from usermirror_gym.errors import RunError

settings.register_profile("usermirror", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("usermirror")


@pytest.fixture(autouse=True)
def _global_seeds() -> None:
    """The library takes seeds; third-party code that draws globally is pinned here."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


GENRES = ("Drama", "Comedy", "Action, Drama", "Comedy, Romance", "Action", "", "Drama", "Sci-Fi")


def build_split(titles: Sequence[str] | None = None, n_users: int = 6) -> TimeSplit:
    """Eight films; user u saw films 1..u before the cut (film 1 is the most popular)."""
    titles = titles or [f"Film {i}" for i in range(1, 9)]
    items = pd.DataFrame(
        {"item_id": range(1, 9), "title": titles, "year": [1990 + i for i in range(8)],
         "genres": GENRES}
    )  # fmt: skip
    users = pd.DataFrame(
        {"user_id": range(1, n_users + 1), "age": 30, "gender": "F", "occupation": "writer"}
    )
    events = [(u, i, 10 * i + u, 4.0) for u in range(1, n_users + 1) for i in range(1, u + 1)]
    events += [(u, 8, 1000 + u, 5.0) for u in range(1, n_users + 1)]
    log = pd.DataFrame(events, columns=["user_id", "item_id", "timestamp", "rating"])
    dataset = RecDataset.from_tables("tiny", "movie", users=users, items=items, interactions=log)
    return time_cut(dataset, (len(events) - n_users) / len(events))


@pytest.fixture
def make_split() -> Callable[..., TimeSplit]:
    return build_split


@pytest.fixture
def split() -> TimeSplit:
    return build_split()


HOLDER = """
import sys
from pathlib import Path
from usermirror_gym.run_folder import locked
with locked(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Starts another process that is at work in a folder until the test ends."""
    with ExitStack() as stack:

        def start(folder: Path) -> subprocess.Popen[str]:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", HOLDER, str(folder)],
                    text=True,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            assert process.stdout is not None
            assert process.stdout.readline() == "in\n"
            return process

        yield start


@pytest.fixture
def refused_while_busy(
    holder: Callable[[Path], subprocess.Popen[str]],
) -> Callable[[Path, Callable[[], object]], None]:
    """Checks that a command names the process at work in its folder, and changes nothing there."""

    def check(folder: Path, command: Callable[[], object]) -> None:
        other = holder(folder)
        before = _contents(folder)
        with pytest.raises(
            RunError, match=rf"another process .* \(process {other.pid} on .*stop it"
        ):
            command()
        assert _contents(folder) == before

    return check


def _contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
