"""What holds for every test: thread limits, fixed global seeds, reproducible hypothesis runs."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

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
