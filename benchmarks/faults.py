"""What is left after a fault: random faults, at random moments, in random commands.

    python benchmarks/faults.py --tries 60 --seed 0 --json benchmarks/results/faults.json

A try starts a command with tiny settings, disturbs it, and gives the same command again:

    kill, terminate, interrupt   kill -9, SIGTERM, Ctrl-C at a random moment
    full                         a disk that is full after a random number of bytes, then has room
    second                       the same command a second time while the first is at work
    changed                      kill -9, and a data file, the LLM or an agent is another one then

It is survived if in the end the same files are there as undisturbed, byte for byte (but for times;
``benchmarks/fault_tries/outcome.py``), and nothing else.  Until then there may be readable
errors, status 1, but no tracebacks.  A second process must be refused and told of the first.
After a change the command must name what changed, and end as undisturbed once that is undone; or
give the undisturbed result of the one input or of the other, and nothing mixed of both.

Moments are uniform over the time that the command takes undisturbed.  Seed and number of a try
decide everything that is drawn, so ``--only 17`` repeats one.  Status 1 if one is not survived.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from fault_tries.inputs import CHANGES, COMMANDS, INPUTS, write_inputs
from fault_tries.outcome import contents, differences, played_twice, unfinished

import usermirror_gym
from usermirror_gym.files import write_json
from usermirror_gym.run_folder import package_versions

SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
FAULTS = (*SIGNALS, "full", "second", "changed")
OUT, CACHE, SCRATCH = "out", "cache", "tmp"
_UNSEEN = (INPUTS, SCRATCH)
_PAGE = 4096
"""Bytes that the smallest file takes on a disk in memory."""


class NotSurvived(Exception):
    """Says what was wrong after a fault."""


@dataclass
class Ended:
    """How a process ended."""

    status: int
    text: str

    def check(self, *statuses: int) -> Ended:
        """Raise NotSurvived if it ended otherwise, or with a traceback."""
        if "Traceback (most recent call last)" in self.text or self.status not in statuses:
            raise NotSurvived(f"status {self.status}: {self.text.strip()[-1500:]}")
        if self.status == 1 and "Error: " not in self.text:
            raise NotSurvived(f"status 1 without a word: {self.text.strip()[-1500:]}")
        return self


@dataclass
class Place:
    """A folder in which commands run; it is the same for all tries, as paths are in the results.

    Attributes:
        root: has the inputs (``in``), what is written (``out``, ``cache``) and ``tmp``.
        inputs: where the inputs are copied from.
    """

    root: Path
    inputs: Path

    def clean(self) -> None:
        """Only the inputs, as they were in the beginning, times of change included."""
        self.root.mkdir(exist_ok=True)
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.restore()
        (self.root / SCRATCH).mkdir()

    def restore(self) -> None:
        """The inputs as they were."""
        shutil.rmtree(self.root / INPUTS, ignore_errors=True)
        shutil.copytree(self.inputs, self.root / INPUTS)

    def start(self, command: str, most_bytes: int | None = None) -> subprocess.Popen[bytes]:
        """Start a command.

        Args:
            most_bytes: of any file that it writes.
        """
        ours = Path(usermirror_gym.__file__).parents[1]  # of this process, installed or not
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ours), os.environ.get("PYTHONPATH", "")]),
            "USERMIRROR_CACHE": str(self.root / CACHE), "TMPDIR": str(self.root / SCRATCH),
            "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "500",
            "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        words = [sys.executable, "-m", "usermirror_gym.cli", *COMMANDS[command].words, "--out", OUT]

        def limited() -> None:
            # A runner that was started in the background may have inherited that it is ignored.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if most_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

        return subprocess.Popen(
            words, cwd=self.root, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=limited,
        )  # fmt: skip

    def run(self, command: str, most_bytes: int | None = None) -> Ended:
        """Run a command to its end."""
        return self.wait(self.start(command, most_bytes))

    @staticmethod
    def wait(process: subprocess.Popen[bytes], seconds: float = 600.0) -> Ended:
        """The end of a process, and what it said; NotSurvived if it hangs for so long."""
        try:
            text, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            text, _ = process.communicate()
            raise NotSurvived(f"hangs: {text.decode(errors='replace')[-1500:]}") from None
        return Ended(process.returncode, text.decode(errors="replace"))

    def contents(self) -> dict[str, str]:
        """See :func:`fault_tries.outcome.contents`."""
        return contents(self.root, without=_UNSEEN)

    @cached_property
    def mounts(self) -> bool:
        """Whether a small disk can be mounted here."""
        self.root.mkdir(exist_ok=True)
        try:
            with self.disk(_PAGE):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False

    @contextmanager
    def disk(self, size: int) -> Iterator[None]:
        """Inside the block the folder is a disk of its own, of ``size`` bytes."""
        quiet = {"check": True, "capture_output": True}
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.root)], **quiet
        )
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(self.root)], **quiet)

    def grow(self) -> None:
        """The disk has room."""
        subprocess.run(["mount", "-o", "remount,size=1g", str(self.root)], check=True)


@dataclass
class Calm:
    """An undisturbed run."""

    seconds: float
    size: int
    """Bytes that it took on the disk."""
    files: dict[str, str]


@dataclass
class Try:
    """One try, and what came of it."""

    number: int
    command: str
    fault: str
    moment: float = 0.0
    """Seconds after the start; of ``full``: bytes that there were room for."""
    outcome: str = ""
    survived: bool = False

    def __str__(self) -> str:
        unit = "bytes" if self.fault == "full" else "s"
        moment = f"{self.moment:,.0f}" if self.fault == "full" else f"{self.moment:.2f}"
        begin = f"{self.number:>3} {self.command:<11} {self.fault:<17}"
        mark = "ok" if self.survived else "NOT SURVIVED"
        return f"{begin} {moment:>9} {unit:<5} {mark}: {self.outcome}"


@dataclass
class Runner:
    """Makes tries in one place."""

    place: Place
    seed: int
    commands: tuple[str, ...]
    faults: tuple[str, ...]
    keep: Path
    """Where the folder of a try goes that was not survived."""
    calm: dict[tuple[str, str], Calm] = field(default_factory=dict)

    def run(self, number: int) -> Try:
        """One try."""
        rng = np.random.default_rng([self.seed, number])
        draw: Callable[[tuple[str, ...]], str] = lambda names: names[int(rng.integers(len(names)))]  # noqa: E731
        command, fault, share = draw(self.commands), draw(self.faults), float(rng.uniform())
        made = Try(number, command, fault)
        if fault == "changed":
            made.fault = f"changed {draw(COMMANDS[command].reads)}"
        try:
            calm = self.undisturbed(command)
            made.moment = share * calm.seconds
            with self._room(made, share, calm):
                self.place.clean()
                made.outcome = self._disturb(made, calm)
                made.survived = True
        except NotSurvived as error:
            made.outcome = str(error)
        return made

    def undisturbed(self, command: str, change: str = "") -> Calm:
        """What a command leaves if nothing happens; with an input that is changed before."""
        if (command, change) not in self.calm:
            self.place.clean()
            if change:
                CHANGES[change][0](self.place.root / INPUTS)
            start = time.monotonic()
            self.place.run(command).check(0)
            seconds = time.monotonic() - start
            size = _pages(self.place.root) - _pages(self.place.inputs)
            self.calm[command, change] = Calm(seconds, size, self.place.contents())
        return self.calm[command, change]

    @contextmanager
    def _room(self, made: Try, share: float, calm: Calm) -> Iterator[None]:
        """A disk that will be full, if that is the fault, is mounted."""
        try:
            if made.fault != "full":
                yield
                return
            if not self.place.mounts:  # every single file may be so large, then
                made.moment = share * max(calm.size / 10, 1)
                yield
                return
            made.moment = share * calm.size
            with self.place.disk(_pages(self.place.inputs) + _PAGE + int(made.moment)):
                try:
                    yield
                finally:
                    self._keep_if(made)
        finally:
            self._keep_if(made)

    def _keep_if(self, made: Try) -> None:
        place = self.keep / f"{made.number:03d}"
        if not made.survived and not place.exists():
            shutil.copytree(self.place.root, place, ignore_dangling_symlinks=True)

    def _disturb(self, made: Try, calm: Calm) -> str:
        """What happened, in words."""
        command, fault = made.command, made.fault
        if fault in SIGNALS:
            said = self._signalled(command, SIGNALS[fault], made.moment)
        elif fault == "full":
            said = self._full(command, int(made.moment))
        elif fault == "second":
            said = self._second(command, made.moment)
        else:
            return self._changed(command, fault.split()[1], made.moment)
        self.place.run(command).check(0)
        self._same(calm)
        return f"{said}; then the same files"

    def _same(self, *calm: Calm) -> int:
        """Which of these undisturbed runs has left the same files."""
        root = self.place.root
        if left := [*unfinished(root / OUT), *unfinished(root / CACHE)]:
            raise NotSurvived(f"left over: {', '.join(left)}")
        if twice := played_twice(root / OUT):
            raise NotSurvived(f"played twice: {', '.join(twice)}")
        found = self.place.contents()
        for number, one in enumerate(calm):
            if found == one.files:
                return number
        first = differences(found, calm[0].files)
        raise NotSurvived(f"other files than undisturbed: {'; '.join(first[:5])}")

    def _signalled(self, command: str, number: signal.Signals, moment: float) -> str:
        process = self.place.start(command)
        try:
            text, _ = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            pass
        else:
            Ended(process.returncode, text.decode(errors="replace")).check(0)
            return "was too late"
        os.killpg(process.pid, number)
        ended = self.place.wait(process)
        if number == signal.SIGINT and ended.status == -number:
            return "was ended by Python, outside the command"
        ended.check(0, -number, *([130] if number == signal.SIGINT else []))
        return f"ended with {ended.status}"

    def _full(self, command: str, room: int) -> str:
        if not self.place.mounts:
            ended = self.place.run(command, most_bytes=room).check(0, 1)
        else:
            ended = self.place.run(command).check(0, 1)
            self.place.grow()
        return "there was room" if ended.status == 0 else f"refused ({_message(ended)})"

    def _second(self, command: str, moment: float) -> str:
        first = self.place.start(command)
        time.sleep(moment)
        second = self.place.start(command)
        ends = {p.pid: self.place.wait(p) for p in (second, first)}
        refused = [pid for pid, end in ends.items() if end.check(0, 1).status == 1]
        for pid in refused:
            (other,) = ends.keys() - {pid}
            if len(refused) == 2 or f"process {other} " not in ends[pid].text:
                raise NotSurvived(f"does not name the other process: {_message(ends[pid])}")
        if not refused:
            return "one after the other"
        return f"the {'second' if refused == [second.pid] else 'first'} was refused"

    def _changed(self, command: str, what: str, moment: float) -> str:
        change, named = CHANGES[what]
        before, after = self.undisturbed(command), self.undisturbed(command, what)
        self.place.clean()
        self._signalled(command, signal.SIGKILL, moment)
        change(self.place.root / INPUTS)
        ended = self.place.run(command).check(0, 1)
        if ended.status == 0:
            return f"the result of the {('old', 'new')[self._same(before, after)]} input alone"
        if not re.search(named, message := _message(ended)):
            raise NotSurvived(f"does not say that the {what} changed: {message}")
        self.place.restore()
        self.place.run(command).check(0)
        self._same(before)
        return f"refused ({message}); undone, then the same files"


def _pages(folder: Path) -> int:
    """Bytes that the files below a folder take on a disk in memory."""
    sizes = (path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return sum(-(-size // _PAGE) * _PAGE for size in sizes)


def _message(ended: Ended) -> str:
    """The error on one line."""
    return " ".join(ended.text[ended.text.rfind("Error: ") :].split())[:300]


def names(given: str, known: tuple[str, ...], what: str) -> tuple[str, ...]:
    """Comma-separated names; SystemExit if one does not exist."""
    found = tuple(name.strip() for name in given.split(","))
    if unknown := set(found) - set(known):
        sys.exit(f"unknown {what} {', '.join(unknown)}: {', '.join(known)}")
    return found


def summary(runner: Runner, tries: list[Try]) -> dict[str, Any]:
    """What is written down: settings, every try, machine and versions."""
    return {
        "settings": {
            "seed": runner.seed, "commands": list(runner.commands), "faults": list(runner.faults),
            "full": "a small disk" if runner.place.mounts else "a limit on every file",
        },
        "survived": sum(one.survived for one in tries),
        "tried": len(tries),
        "tries": [asdict(one) for one in tries],
        "undisturbed_seconds": {
            command: calm.seconds for (command, change), calm in runner.calm.items() if not change
        },
        "machine": {"system": platform.system(), "cores": os.cpu_count()},
        "versions": package_versions(),
    }  # fmt: skip


def main() -> None:
    """Make the tries, and say how many were survived."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tries", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", default=",".join(COMMANDS), help="comma-separated")
    parser.add_argument("--faults", default=",".join(FAULTS), help="comma-separated")
    parser.add_argument("--only", type=int, help="the number of one try")
    parser.add_argument("--work", type=Path, help="folder; has those that were not survived, then")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    commands = names(args.commands, tuple(COMMANDS), "command")
    faults = names(args.faults, FAULTS, "fault")
    work = (args.work or Path(tempfile.mkdtemp(prefix="faults-"))).resolve()
    shutil.rmtree(work / INPUTS, ignore_errors=True)
    write_inputs(work / INPUTS)
    place = Place(work / "try", work / INPUTS)
    runner = Runner(place, args.seed, commands, faults, work / "not-survived")
    numbers = range(1, args.tries + 1) if args.only is None else [args.only]
    tries: list[Try] = []
    for number in numbers:
        tries.append(runner.run(number))
        print(tries[-1], flush=True)
        if args.json is not None:
            write_json(args.json, summary(runner, tries))
    survived = sum(one.survived for one in tries)
    print(f"{survived} faults survived of {len(tries)} faults tried")
    shutil.rmtree(place.root, ignore_errors=True)
    if survived < len(tries):
        sys.exit(f"the folders of the others are in {runner.keep}")
    if args.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
