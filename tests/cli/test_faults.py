"""Whatever happens to the process, its output or its disk: one line, no traceback, results stay."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from usermirror_gym import files
from usermirror_gym.benchmark import run as benchmark_run
from usermirror_gym.cli import app
from usermirror_gym.cli.options import show
from usermirror_gym.progress import Display, Terminal

BENCHMARK = (
    "benchmark", "--agents", "Random,Pop", "--simulator", "popularity", "--users", "4",
    "--steps", "2", "--fidelity-scenes", "0", "--out",
)  # fmt: skip


def command(*arguments: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    """The command as a process; keywords are variables of its environment."""
    line = [sys.executable, "-m", "usermirror_gym.cli", *arguments]
    return subprocess.run(line, capture_output=True, env={**os.environ, **more}, check=False)


@pytest.mark.parametrize("module", ["gymnasium", "typer", "pydantic"])
def test_an_interrupt_while_modules_are_imported_is_one_line(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(20)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = command("list", PYTHONPATH=path)
    assert done.returncode == 130
    assert done.stderr.decode().splitlines() == [
        "Stopped. Builds, training and benchmarks go on with the same command."
    ]


def test_importing_the_package_leaves_signals_alone() -> None:
    code = (
        "import signal; import usermirror_gym, usermirror_gym.cli; "
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_output_of_ascii_gets_characters_like_those_it_lacks(tmp_path: Path) -> None:
    done = command(*BENCHMARK, str(tmp_path / "é[red]x"), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    output = done.stdout.decode("ascii")
    assert "~" in output  # for the sign of plus and minus
    assert "?[red]x/report.html" in output.replace("\n", "")
    assert command("--help", PYTHONIOENCODING="ascii").returncode == 0


@pytest.mark.parametrize("arguments", [("list",), ("--help",)])
def test_a_full_output_is_one_line(arguments: tuple[str, ...]) -> None:
    line = [sys.executable, "-m", "usermirror_gym.cli", *arguments]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert " ".join(done.stderr.decode().split()).startswith("Error: the output: No space left")
    assert done.stderr.count(b"Error") == 1


@pytest.mark.parametrize("arguments", [("list",), ("--help",)])
def test_a_closed_output_is_no_error(arguments: tuple[str, ...]) -> None:
    line = [sys.executable, "-m", "usermirror_gym.cli", *arguments]
    reader, writer = os.pipe()
    os.close(reader)  # as by `| head`
    done = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.stderr == b""
    none = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *line], stderr=-1, check=False)  # closed
    assert (none.returncode, none.stderr) == (0, b"")


def test_a_full_disk_names_the_file_and_what_was_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = 4

    def full(number: int) -> None:
        nonlocal room
        room -= 1
        if room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        result = CliRunner().invoke(app, [*BENCHMARK, str(tmp_path / "run")])
    assert result.exit_code == 1
    output = "".join(result.output.split())
    found = sorted(path for path in (tmp_path / "run" / "episodes").rglob("*.jsonl"))
    assert len(found) == 1
    assert f"{found[0].with_name('000001.jsonl')}:Nospaceleftondevice.Makeroom" in output
    assert "Traceback" not in result.output
    before = found[0].stat()
    assert CliRunner().invoke(app, [*BENCHMARK, str(tmp_path / "run")]).exit_code == 0
    assert found[0].stat() == before


def test_a_library_that_hides_the_full_disk_does_not_hide_it_from_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = files.shutil.disk_usage(tmp_path)._replace(free=1000)
    for free, kind in ((usage, OSError), (usage._replace(free=10**9), ValueError)):
        monkeypatch.setattr(files.shutil, "disk_usage", lambda _, free=free: free)
        with pytest.raises(kind) as raised, files.replacing(tmp_path / "a.npz"):
            raise ValueError("cannot close the archive")
        assert getattr(raised.value, "filename", None) == (
            str(tmp_path / "a.npz") if kind is OSError else None
        )


@pytest.mark.parametrize("content", ["", "[1]", '{"users": 4', "[" * 10_000, '{"users": []}'])
def test_a_damaged_run_is_told_by_its_name(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    (tmp_path / "results.json").write_text("{}")
    for line in ([*BENCHMARK, str(tmp_path)], ["replay", str(tmp_path)]):
        result = CliRunner().invoke(app, line)
        assert result.exit_code == 1, line
        output = "".join(result.output.split())
        assert str(tmp_path) in output, line
        assert "Error:" in output
    assert (tmp_path / "results.json").read_text() == "{}"


def test_a_path_with_brackets_is_printed_as_it_is(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*BENCHMARK, str(tmp_path / "[red]x[/red]")])
    assert "[red]x[/red]/report.html" in result.output.replace("\n", "")


HOSTILE = "[red]\x1b[31mTitle\x1b]0;owned\u202e"
SHOWN = "[red]\\x1b[31mTitle\\x1b]0;owned\\u202e"


def test_what_is_said_and_counted_is_shown_as_it_stands() -> None:
    written = io.StringIO()
    display = Display(Terminal(file=written, force_terminal=True, width=200))
    display.say(HOSTILE)
    with display.phase(HOSTILE, 2, "steps") as advance:
        advance(2)
    assert written.getvalue().count(SHOWN) >= 2
    assert "\x1b[31m" not in written.getvalue()
    assert "\x1b]0" not in written.getvalue()


def test_tables_texts_and_errors_obey_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.table import Table

    table = Table("agent", title=HOSTILE, caption=HOSTILE, width=60)
    table.add_row(HOSTILE)
    show(table, HOSTILE, Path(HOSTILE))
    output = capsys.readouterr().out
    assert output.count(SHOWN) == 5
    assert "\x1b" not in output

    def refused(*_: object, **__: object) -> None:
        raise files.RunError(f"{HOSTILE} at http://u:s3cr3t-marker@host")

    monkeypatch.setattr(benchmark_run, "run_benchmark", refused)
    result = CliRunner().invoke(app, [*BENCHMARK, "x"])
    assert result.exit_code == 1
    assert SHOWN in result.output.replace("\n", "")
    assert "s3cr3t-marker" not in result.output
