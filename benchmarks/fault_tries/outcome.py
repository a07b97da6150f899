"""What a command has left, without what tells the time.

Two outcomes are the same if these are, byte for byte.  Left out of the comparison:

- locks (``.lock``, ``NAME.lock``), and TensorBoard's files, called after time and process;
- what the cache remembers of files by their times (``weight-hashes``, ``own-files``);
- what the cache keeps of items (``item-vectors``): a resumed run asks for fewer of them, and in
  other blocks; what was made of them is compared;
- in JSON: numbers called ``seconds`` or ``..._seconds`` or ``seconds_...``, and ``timing``;
- in NumPy archives: the array ``seconds``;
- on pages: the numbers that are made of these (a time per step, the minutes of a stage).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

_UNFINISHED = re.compile(r"\..*\.(tmp|part)|\.holder\.json|fetching-.*")
_REMEMBERED = {"weight-hashes", "own-files", "item-vectors"}
_TIMES = (
    re.compile(r"<dt>(?:Time per step|seconds[^<]*)</dt><dd>[^<]*</dd>"),
    re.compile(r"<h3>Timing \(seconds\)[^<]*</h3><dl.*?</dl>", re.DOTALL),
    re.compile(r'<td class="off" data-v="[0-9.e-]*">[^<]*</td>'),  # training seconds of an agent
    re.compile(r"^- seconds [^\n]*$", re.MULTILINE),
)


def contents(folder: Path, *, without: tuple[str, ...]) -> dict[str, str]:
    """Checksum of every file below a folder, by its path.

    Args:
        without: top folders that are left out.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if place.parts[0] in without or path.suffix == ".lock" or path.name == ".lock":
            continue
        if _REMEMBERED.intersection(place.parts):
            continue
        if path.is_file() and not path.name.startswith("events.out.tfevents"):
            found[place.as_posix()] = hashlib.sha256(_timeless(path)).hexdigest()
    return found


def unfinished(folder: Path) -> list[str]:
    """What was being written and is neither whole nor gone."""
    paths = (path for path in folder.rglob("*") if _UNFINISHED.fullmatch(path.name))
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def played_twice(folder: Path) -> list[str]:
    """Steps of a benchmark's log that stand in it more than once."""
    path, seen, twice = folder / "episodes.jsonl", set(), []
    for line in path.read_text().splitlines() if path.is_file() else ():
        row = json.loads(line)
        step = (row["agent"], row["episode"], row["step"])
        if step in seen:
            twice.append("{}, episode {}, step {}".format(*step))
        seen.add(step)
    return twice


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """In words, which files are missing, too many, or other ones."""
    both = sorted(found.keys() & expected.keys())
    return [
        *(f"{name} is missing" for name in sorted(expected.keys() - found.keys())),
        *(f"{name} is too many" for name in sorted(found.keys() - expected.keys())),
        *(f"{name} differs" for name in both if found[name] != expected[name]),
    ]


def _timeless(path: Path) -> bytes:
    content = path.read_bytes()
    try:
        if path.suffix == ".json":
            return _without_times(json.loads(content))
        if path.suffix == ".jsonl":
            return b"\n".join(_without_times(json.loads(line)) for line in content.splitlines())
        if path.suffix == ".npz":
            with np.load(io.BytesIO(content)) as file:
                if "seconds" not in file.files:
                    return content
                parts = [(name, file[name]) for name in file.files if name != "seconds"]
            return b"".join(name.encode() + a.dtype.str.encode() + a.tobytes() for name, a in parts)
        if path.suffix in (".html", ".md"):
            return _without_shown_times(content.decode()).encode()
    except ValueError:  # damaged: its bytes will differ, and are shown
        return content
    return content


def _without_times(value: Any) -> bytes:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: plain(inner)
                for key, inner in value.items()
                if key != "timing" and not re.search(r"(^|_)seconds(_|$)", key)
            }
        return [plain(inner) for inner in value] if isinstance(value, list) else value

    return json.dumps(plain(value)).encode()


def _without_shown_times(text: str) -> str:
    for pattern in _TIMES:
        text = pattern.sub("TIME", text)
    lines, column = [], None
    for line in text.splitlines():
        cells = [cell.strip(" -:") for cell in line.split("|")]
        if len(cells) < 3:
            column = None
        elif "minutes" in cells:
            column = cells.index("minutes")
        if column is not None and len(cells) > column:
            cells[column] = "TIME"
            line = "|".join(cells)
        lines.append(line)
    return "\n".join(lines)
