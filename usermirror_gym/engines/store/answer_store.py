"""Answers kept in one file that many processes share: SQLite in WAL mode.

A process may be killed at any moment: what it had committed stays, the rest was never there.  A row
that does not match its checksum is no answer.  Once the file is in use, trouble with it (a full
disk, say) costs the store and not the run: a warning is logged, and every question is asked.  The
file must lie on a local disk: file locks and WAL need one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from usermirror_gym.engines.checkpoints import cache_folder
from usermirror_gym.engines.reopening import Reopened
from usermirror_gym.errors import ConfigError, StoreError

T = TypeVar("T")
logger = logging.getLogger(__name__)

_APPLICATION, _FORMAT = 0x554D4741, 1
"""What SQLite's header says of our files: whose they are, and in which form."""
_TIMEOUT = 60.0
"""Seconds to wait while another process writes."""
_CHECK = 8
"""Bytes of checksum before every value."""
_AGING = 3600
"""Seconds before a use is noted again: reading stays reading, and *least recently* is by the hour.
"""
_CHUNK = 500
"""Keys of one query."""
_SPARED = 0.9
"""Share of the largest size that is left after the oldest answers were dropped."""


class AnswerStore(Reopened):
    """Bytes by key, bounded in size; the least recently used go first.

    Safe to use from many processes, threads, and after a fork.

    Args:
        path: the file; made if absent.
        max_bytes: about the most that it holds.  The file does not shrink, its room is used again.

    Raises:
        ConfigError: ``max_bytes`` is too small.
        StoreError: the file cannot be opened, or is no answer store of this format.
    """

    def __init__(self, path: str | Path, *, max_bytes: int = 4 * 1024**3) -> None:
        if max_bytes < 1 << 20:
            raise ConfigError(
                f"max_bytes is {max_bytes}: an answer store needs a megabyte or more."
            )
        self.path, self.max_bytes = Path(path).expanduser(), max_bytes
        self.damaged = 0
        self._broken = False
        self._local = threading.local()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite does not wait where two processes turn a new file to WAL at once.
            with FileLock(f"{self.path}.lock"):
                self._check_format()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"cannot open the answer store {self.path}: {error}. Name a file on a local disk "
                "that may be written; if it is damaged, delete it: it holds nothing that cannot be "
                "computed again."
            ) from error

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of every key, ``None`` where there is none."""
        nothing: list[tuple[bytes, bytes]] = []
        rows = self._guarded(lambda db: self._read(db, keys), nothing)
        found: dict[bytes, bytes] = {}
        for key, checked in rows:
            value = checked[_CHECK:]
            if _checksum(key, value) == checked[:_CHECK]:
                found[key] = value
            else:
                self.damaged += 1
        return [found.get(key) for key in keys]

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values, all of them or none; what is there already is replaced."""
        if not values:
            return
        now = int(time.time())
        rows = [(key, _checksum(key, value) + value, now) for key, value in values.items()]

        def write(db: sqlite3.Connection) -> None:
            with db:
                db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)
            if self._size(db) > self.max_bytes:
                self._drop_oldest(db)

        self._guarded(write, None)

    def __len__(self) -> int:
        count = "SELECT count(*) FROM answers"
        return self._guarded(lambda db: int(db.execute(count).fetchone()[0]), 0)

    @property
    def size(self) -> int:
        """Bytes in use, without the room that dropped answers left."""
        return self._guarded(self._size, 0)

    def clear(self) -> None:
        """Drop every answer and give the room back."""

        def clear(db: sqlite3.Connection) -> None:
            with db:
                db.execute("DELETE FROM answers")
            db.execute("VACUUM")

        self._guarded(clear, None)

    def _check_format(self) -> None:
        db = self._connection()
        about = [
            db.execute(question).fetchone()[0]
            for question in (
                "PRAGMA application_id",
                "PRAGMA user_version",
                "SELECT count(*) FROM sqlite_master",
            )
        ]
        if about != [0, 0, 0] and about[:2] != [_APPLICATION, _FORMAT]:
            raise StoreError(
                f"{self.path} is a SQLite file, but no answer store of format {_FORMAT}: name "
                "another file, or delete it if it was made by another version of this package."
            )
        db.execute("PRAGMA journal_mode = WAL")
        with db:
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
            db.execute(f"PRAGMA user_version = {_FORMAT}")
            db.execute(
                "CREATE TABLE IF NOT EXISTS answers "
                "(key BLOB PRIMARY KEY, value BLOB NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID"
            )
            db.execute("CREATE INDEX IF NOT EXISTS oldest ON answers (used)")

    def _connection(self) -> sqlite3.Connection:
        """One per thread and process: SQLite's do not survive a fork."""
        if getattr(self._local, "pid", None) != os.getpid():
            db = sqlite3.connect(self.path, timeout=_TIMEOUT)
            db.text_factory = bytes  # a damaged value may be text to SQLite
            # Safe against death of the process; the newest answers may be lost in a power cut.
            db.execute("PRAGMA synchronous = NORMAL")
            self._local.db, self._local.pid = db, os.getpid()
        found: sqlite3.Connection = self._local.db
        return found

    def _guarded(self, use: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        if self._broken:
            return otherwise
        try:
            return use(self._connection())
        except sqlite3.Error as error:
            self._broken = True
            logger.warning("going on without the answer store %s: %s", self.path, error)
            return otherwise

    def _read(self, db: sqlite3.Connection, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        old: list[tuple[int, bytes]] = []
        now = int(time.time())
        unique = list(dict.fromkeys(keys))
        for start in range(0, len(unique), _CHUNK):
            part = unique[start : start + _CHUNK]
            query = (
                f"SELECT key, value, used FROM answers WHERE key IN ({','.join('?' * len(part))})"
            )
            for key, value, used in db.execute(query, part):
                found.append((key, value))
                if now - used > _AGING:
                    old.append((now, key))
        if old:
            with db:
                db.executemany("UPDATE answers SET used = ? WHERE key = ?", old)
        return found

    def _size(self, db: sqlite3.Connection) -> int:
        pages, free, size = (
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _drop_oldest(self, db: sqlite3.Connection) -> None:
        """In one transaction, so that several processes do not do it one after another."""
        db.execute("BEGIN IMMEDIATE")
        with db:
            while (size := self._size(db)) > _SPARED * self.max_bytes:
                count = db.execute("SELECT count(*) FROM answers").fetchone()[0]
                share = 1 - _SPARED * self.max_bytes / size
                gone = max(1, int(count * share))
                db.execute(
                    "DELETE FROM answers WHERE key IN "
                    "(SELECT key FROM answers ORDER BY used LIMIT ?)", (gone,),
                )  # fmt: skip
                if count <= gone:
                    return


def default_store() -> Path:
    """The store in the user's cache folder."""
    return cache_folder() / "answers.sqlite"


def _checksum(key: bytes, value: bytes) -> bytes:
    return hashlib.blake2b(key + value, digest_size=_CHECK).digest()
