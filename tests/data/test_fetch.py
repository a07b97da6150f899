"""Files are fetched whole and right, or a person is told exactly what to do."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from usermirror_gym.data.raw.fetch import by_hand, fetch
from usermirror_gym.data.sources.base import Download, Source, default_folder
from usermirror_gym.errors import ConfigError, DataError
from usermirror_gym.progress import Display

FileServer = Any
"""The class of the fixture ``server``, see conftest.py."""
CONTENT = np.random.default_rng(0).bytes(1_500_000)
NO_WAIT = (0.0, 0.0, 0.0)


class Invented(Source):
    name = "invented"
    domain = "movie"
    title = "Invented films"
    homepage = "https://example.org/films"
    terms = "For these tests only."
    how_to_get = "Ask politely."
    files = ("films.dat", "more/users.dat")

    def read(self, folder: Any, log: Any, limits: Any) -> Any:
        raise NotImplementedError


def single(server: FileServer, content: bytes = CONTENT, **known: Any) -> Invented:
    source = Invented()
    source.files = ("films.dat",)
    source.downloads = (Download(server.url + "films.dat", **known),)
    server.files["films.dat"] = content
    return source


def sha256(content: bytes = CONTENT) -> str:
    return hashlib.sha256(content).hexdigest()


def visible(folder: Path) -> set[str]:
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    return names - {".lock"}


def test_a_file_is_fetched_and_checked(server: FileServer, tmp_path: Path) -> None:
    source = single(server, sha256=sha256(), md5=hashlib.md5(CONTENT).hexdigest(), size=1_500_000)
    assert fetch(source, tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    assert (tmp_path / "new" / "folder" / "films.dat").read_bytes() == CONTENT
    assert visible(tmp_path / "new" / "folder") == {"films.dat"}


@pytest.mark.parametrize("name", ["films.dat", "films.dat.gz"])
def test_what_is_there_is_not_fetched_again(server: FileServer, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    fetch(single(server, sha256=sha256()), tmp_path)
    assert server.requests == []
    assert (tmp_path / name).read_bytes() == b"mine"


def test_a_broken_transfer_goes_on_where_it_was(server: FileServer, tmp_path: Path) -> None:
    server.break_after = [500_000, 300_000]
    fetch(single(server, sha256=sha256()), tmp_path, waits=NO_WAIT)
    assert (tmp_path / "films.dat").read_bytes() == CONTENT
    ranges = [r.get("Range") for r in server.requests]
    assert ranges == [None, "bytes=500000-", "bytes=800000-"]


def test_progress_renews_the_attempts(server: FileServer, tmp_path: Path) -> None:
    server.break_after = [100_000] * 14
    fetch(single(server), tmp_path, waits=(0.0,))
    assert (tmp_path / "films.dat").read_bytes() == CONTENT


def test_a_killed_fetch_goes_on(server: FileServer, tmp_path: Path) -> None:
    source = single(server, sha256=sha256())
    server.pause = 0.05
    code = (
        "import sys; from pathlib import Path; from usermirror_gym.progress import Display; "
        "from usermirror_gym.data.raw.fetch import download; "
        "download(sys.argv[1], Path(sys.argv[2]), display=Display(quiet=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, source.downloads[0].url, str(tmp_path / "films.dat")]
    )
    part = tmp_path / ".films.dat.part"
    until = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size > 200_000):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "films.dat").exists()
    have = part.stat().st_size
    assert have < len(CONTENT)
    server.pause = 0.0
    fetch(source, tmp_path)
    assert (tmp_path / "films.dat").read_bytes() == CONTENT
    assert server.requests[-1]["Range"] == f"bytes={have}-"
    assert visible(tmp_path) == {"films.dat"}


@pytest.mark.parametrize("way", ["no ranges", "no tags", "changed"])
def test_what_cannot_be_resumed_starts_again(server: FileServer, tmp_path: Path, way: str) -> None:
    server.break_after = [400_000]
    server.ranges, server.tags = way != "no ranges", way != "no tags"
    with pytest.raises(DataError, match="peer closed connection"):
        fetch(single(server), tmp_path, waits=())
    content = CONTENT[::-1] if way == "changed" else CONTENT
    fetch(single(server, content, sha256=sha256(content)), tmp_path, waits=())
    assert (tmp_path / "films.dat").read_bytes() == content
    assert visible(tmp_path) == {"films.dat"}


def test_a_beginning_longer_than_the_file_starts_again(server: FileServer, tmp_path: Path) -> None:
    server.break_after = [400_000]
    with pytest.raises(DataError):
        fetch(single(server), tmp_path, waits=())
    with (tmp_path / ".films.dat.part").open("ab") as file:
        file.write(bytes(2_000_000))
    fetch(single(server, sha256=sha256()), tmp_path, waits=(0.0,))
    assert (tmp_path / "films.dat").read_bytes() == CONTENT


def test_a_beginning_that_is_wrong_is_noticed(server: FileServer, tmp_path: Path) -> None:
    server.break_after = [400_000]
    with pytest.raises(DataError):
        fetch(single(server), tmp_path, waits=())
    part = tmp_path / ".films.dat.part"
    part.write_bytes(bytes(part.stat().st_size))
    fetch(single(server, sha256=sha256()), tmp_path, waits=())
    assert (tmp_path / "films.dat").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"sha256": "0" * 64}, "its sha256 is [0-9a-f]{64}, not 0{64}"),
        ({"md5": "0" * 32}, "its md5 is [0-9a-f]{32}, not 0{32}"),
        ({"size": 7}, "has 1,500,000 bytes instead of 7"),
    ],
)
def test_a_wrong_file_is_refused(
    server: FileServer, tmp_path: Path, known: dict, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        fetch(single(server, **known), tmp_path, waits=NO_WAIT)
    assert len(server.requests) == 2
    assert visible(tmp_path) == set()


def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [503, 500, 429]
    told = io.StringIO()
    fetch(single(server), tmp_path, Display(Console(file=told, width=200)), waits=NO_WAIT)
    assert (tmp_path / "films.dat").read_bytes() == CONTENT
    assert told.getvalue().count("trying again") == 3
    assert "503 Service Unavailable" in told.getvalue()


def test_a_server_that_stays_busy_is_given_up(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [503] * 9
    with pytest.raises(DataError, match=r"503 Service Unavailable \(tried 4 times\)"):
        fetch(single(server), tmp_path, waits=NO_WAIT)


@pytest.mark.parametrize("status", [404, 403, 401, 409, 410])
def test_a_refusal_is_final_and_says_what_to_do(
    server: FileServer, tmp_path: Path, status: int
) -> None:
    source = single(server)
    server.statuses = [status]
    with pytest.raises(DataError) as caught:
        fetch(source, tmp_path, waits=NO_WAIT)
    text = str(caught.value)
    assert f"films.dat answers {status}" in text
    for part in (f"Invented films: put films.dat into {tmp_path}", source.downloads[0].url):
        assert part in text
    for part in (source.how_to_get, source.homepage, source.terms):
        assert part in text
    assert len(server.requests) == 1


def test_no_network_is_one_readable_error(server: FileServer, tmp_path: Path) -> None:
    source = single(server)
    with socket.socket() as free:  # a port that nobody listens on
        free.bind(("127.0.0.1", 0))
        source.downloads = (Download(f"http://127.0.0.1:{free.getsockname()[1]}/films.dat"),)
        with pytest.raises(DataError, match=r"connection to 127\.0\.0\.1 failed: .*tried 4 times"):
            fetch(source, tmp_path, waits=NO_WAIT)


def test_a_form_instead_of_a_file_is_noticed(server: FileServer, tmp_path: Path) -> None:
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(DataError, match=r"films\.dat is a web page, not the file"):
        fetch(single(server), tmp_path)


def test_a_disk_too_small_is_said_before_the_transfer(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9, 9, 1_000_000))
    with pytest.raises(DataError, match="too full: 2 MB are needed, 1 MB are free"):
        fetch(single(server), tmp_path)


def test_a_disk_that_fills_up_keeps_what_arrived(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("usermirror_gym.data.raw.fetch._receive", full)
        with pytest.raises(DataError, match="is full; what arrived is kept"):
            fetch(single(server), tmp_path, waits=NO_WAIT)
    fetch(single(server), tmp_path)
    assert (tmp_path / "films.dat").read_bytes() == CONTENT


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


MEMBERS = {"v2/films.dat": b"films", "v2/users.dat": b"users", "../evil": b"x", "v2/README": b"r"}


def packed(server: FileServer, content: bytes, **known: Any) -> Invented:
    source = Invented()
    members = ("v2/films.dat", "v2/users.dat")
    source.downloads = (Download(server.url + "all.zip", members=members, **known),)
    server.files["all.zip"] = content
    return source


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_only_the_wanted_members_are_unpacked(
    server: FileServer, tmp_path: Path, pack: Any
) -> None:
    folder = tmp_path / "in"
    fetch(packed(server, pack(MEMBERS)), folder)
    assert visible(folder) == {"films.dat", "more/users.dat"}
    assert (folder / "more/users.dat").read_bytes() == b"users"
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_members_that_moved_are_found(server: FileServer, tmp_path: Path) -> None:
    moved = {"data 3/films.dat": b"films", "users.dat": b"users"}
    fetch(packed(server, zipped(moved)), tmp_path)
    assert (tmp_path / "films.dat").read_bytes() == b"films"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped({"v2/films.dat": b"f"}), r"holds no 'v2/users\.dat'; it holds v2/films\.dat"),
        (zipped({"a/users.dat": b"", "b/users.dat": b"", "films.dat": b""}), "holds no 'v2/users"),
        (zipped(MEMBERS)[:-30], r"all\.zip cannot be unpacked"),
        (tarred(MEMBERS)[:-30], r"all\.zip cannot be unpacked"),
        (b"not an archive at all", r"all\.zip cannot be unpacked"),
        (b"", r"all\.zip cannot be unpacked"),
    ],
)
def test_a_bad_archive_is_named_and_removed(
    server: FileServer, tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        fetch(packed(server, content), tmp_path)
    assert not (tmp_path / "all.zip").exists()
    assert not list(tmp_path.rglob(".*.tmp"))


def test_links_in_a_tar_are_not_followed(server: FileServer, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("v2/films.dat")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(info)
    with pytest.raises(DataError, match=r"holds no 'v2/films\.dat'"):
        fetch(packed(server, out.getvalue()), tmp_path)


def test_a_source_cannot_write_outside_its_folder(server: FileServer, tmp_path: Path) -> None:
    source = single(server)
    source.files = ("../../films.dat",)
    with pytest.raises(ConfigError, match="not a file below its folder"):
        fetch(source, tmp_path / "in")


def test_gz_is_kept_as_it_is(server: FileServer, tmp_path: Path) -> None:
    source = Invented()
    source.files = ("more/users.dat",)
    source.downloads = (Download(server.url + "a%20b/users.dat.gz?download=1"),)
    server.files["a%20b/users.dat.gz?download=1"] = gzip.compress(b"users")
    fetch(source, tmp_path)
    assert gzip.decompress((tmp_path / "more/users.dat.gz").read_bytes()) == b"users"


def test_a_source_without_downloads_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "films.dat").write_bytes(b"x")
    with pytest.raises(DataError, match=re.escape(f"put more/users.dat into {tmp_path}")) as caught:
        fetch(Invented(), tmp_path)
    assert "Ask politely." in str(caught.value)
    assert "From:" not in by_hand(Invented(), tmp_path)


def test_two_fetches_do_not_write_into_one_folder(
    server: FileServer, tmp_path: Path, refused_while_busy
) -> None:
    refused_while_busy(tmp_path, lambda: fetch(single(server), tmp_path))


def test_a_folder_that_cannot_be_made_is_said(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot write into"):
        fetch(single(server), tmp_path / "file")


def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("USERMIRROR_DATA", str(tmp_path))
    assert default_folder("ml-1m") == tmp_path / "ml-1m"
    assert default_folder("amazon:All_Beauty") == tmp_path / "amazon-All_Beauty"
    assert Invented().missing(tmp_path) == ["films.dat", "more/users.dat"]
    monkeypatch.delenv("USERMIRROR_DATA")
    assert default_folder("ml-1m").parts[-3:] == ("usermirror-gym", "data", "ml-1m")
