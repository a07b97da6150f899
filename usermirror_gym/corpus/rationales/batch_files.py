"""Rationales by hosted batch: request files in OpenAI's batch format, and their results.

A provider takes a file of requests, works on it for hours at a lower price, and gives a file of
results in any order.  Requests name what they are for in their ``custom_id``; results become the
same journal records as live generation, so a build does not know the difference.  What failed is
asked again by the next file, as a further attempt; what never came back, as the same one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from usermirror_gym.corpus.rationales.journal import Journal
from usermirror_gym.corpus.rationales.plan import (
    Ledger,
    RationaleSettings,
    Request,
    Role,
    chunks,
    open_rationales,
    rationales_of,
    sampling_of,
)
from usermirror_gym.engines.base import Generations
from usermirror_gym.engines.server.chat_api import chat_body, generations_of, server_model_id
from usermirror_gym.errors import EngineError, RunError
from usermirror_gym.files import write_text
from usermirror_gym.foreign import masked, parse_json
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import PromptBuilder
from usermirror_gym.scenes.words.rationale_prompt import rationale_prompt

MAX_REQUESTS = 50_000
"""Most requests of one file (OpenAI's limit)."""
MAX_BYTES = 200 * 1000 * 1000
"""Most bytes of one file (OpenAI's limit)."""
URL = "/v1/chat/completions"
_AT_ONCE = 512


@dataclass(frozen=True)
class BatchJob:
    """The rationales of one model, to be had through files.

    Args:
        scenes, builder, settings, role: as for
            :func:`~usermirror_gym.corpus.rationales.write.write_rationales`.
        model: the provider's name for it.
        path: the journal.
        extra_body: further fields of every request; ``None`` takes a field away.
    """

    scenes: Sequence[Scene]
    builder: PromptBuilder
    settings: RationaleSettings
    role: Role
    model: str
    path: Path
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    def open(self) -> AbstractContextManager[tuple[Journal, Ledger]]:
        """See :func:`~usermirror_gym.corpus.rationales.plan.open_rationales`."""
        model_id = server_model_id(self.model)
        return open_rationales(
            self.scenes, self.builder, model_id, self.settings, self.role, self.path
        )


@dataclass(frozen=True)
class BatchReport:
    """What result files brought.

    Attributes:
        written: rationales that can be used.
        failed: attempts that brought none: error lines, empty or unreadable texts.
        missing: requests without any result so far; they are asked again as they were.
        problems: what is wrong with lines, each with file and line number.
    """

    written: int
    failed: int
    missing: tuple[str, ...]
    problems: tuple[str, ...]

    def __str__(self) -> str:
        shown = "".join(f"\n  {problem}" for problem in self.problems[:20])
        more = len(self.problems) - 20
        tail = f"\n  and {more} more" if more > 0 else ""
        return (
            f"batch results: {self.written:,} rationales written, {self.failed:,} attempts failed, "
            f"{len(self.missing):,} requests without a result{shown}{tail}"
        )


def write_batch(job: BatchJob, path: Path) -> list[Path]:
    """Write what is still to be asked.

    Args:
        path: ``NAME.jsonl``; the files are ``NAME-001.jsonl`` and so on, and older ones of these
            names are removed.

    Returns:
        The files; none if nothing is left to ask.

    Raises:
        RunError: the journal was begun differently; one request is larger than a file may be.
    """
    with job.open() as (_, ledger):
        requests = list(_pending(ledger, job.settings))
    files = [
        write_text(_numbered(path, number), "".join(lines))
        for number, lines in enumerate(_parts(_lines(job, requests)), start=1)
    ]
    for old in path.parent.glob(_numbered(path, 0).name.replace("000", "[0-9][0-9][0-9]")):
        if old not in files:
            old.unlink()
    return files


def read_batch_results(job: BatchJob, paths: Sequence[Path]) -> BatchReport:
    """Put the results of a batch into the journal.

    Result and error files may be given together, in any order, again, and unfinished: what is in
    the journal already is not written twice, and lines that cannot be read are reported.

    Raises:
        RunError: the journal was begun differently, or a file cannot be opened.
    """
    problems: list[str] = []
    with job.open() as (journal, ledger):
        pending = {custom_id(job.role, r): r for r in _pending(ledger, job.settings)}
        results = _results(paths, job, pending, problems)
        written, failed = ledger.written, ledger.failures
        answered = [(name, request) for name, request in pending.items() if name in results]
        for some in chunks(answered, _AT_ONCE):
            found = (
                rationales_of(request, _answer(results[name], job, request), job.settings, job.role)
                for name, request in some
            )
            ledger.keep(chain.from_iterable(found), journal)
    missing = tuple(name for name in pending if name not in results)
    return BatchReport(ledger.written - written, ledger.failures - failed, missing, tuple(problems))


def custom_id(role: Role, request: Request) -> str:
    """The name of a request in batch files; unique within a build."""
    which = "all" if request.attempt == 0 else str(request.indices[0])
    return f"{role}.{request.attempt}.{which}.{request.scene.name}"


def _pending(ledger: Ledger, settings: RationaleSettings) -> Iterator[Request]:
    """Every request whose turn it is."""
    for attempt in range(settings.max_attempts):
        for batch in ledger.batches(attempt):
            yield from filter(ledger.is_open, batch)


def _lines(job: BatchJob, requests: Iterable[Request]) -> Iterator[str]:
    for request in requests:
        prompt = rationale_prompt(request.scene, job.builder)
        sampling = sampling_of(job.settings, job.role, request)
        body = {**chat_body(prompt, job.model, sampling), **job.extra_body}
        line = {
            "custom_id": custom_id(job.role, request),
            "method": "POST",
            "url": URL,
            "body": {key: value for key, value in body.items() if value is not None},
        }
        yield json.dumps(line, allow_nan=False) + "\n"


def _parts(lines: Iterable[str]) -> Iterator[list[str]]:
    """Lines of one file each.  They are ASCII: a character is a byte."""
    part: list[str] = []
    size = 0
    for line in lines:
        if len(line) > MAX_BYTES:
            raise RunError(f"a request of {len(line):,} bytes does not fit a file: {line[:200]}")
        if part and (len(part) == MAX_REQUESTS or size + len(line) > MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line)
    if part:
        yield part


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number:03d}{path.suffix}")


def _results(
    paths: Sequence[Path], job: BatchJob, pending: Mapping[str, Request], problems: list[str]
) -> dict[str, Any]:
    """The result line of each pending request; of several, a good one, then the first."""
    results: dict[str, Any] = {}
    scenes = {scene.name for scene in job.scenes}
    for path in paths:
        for place, line in _objects(path, problems):
            name = line.get("custom_id")
            if not isinstance(name, str) or not _is_of(name, job.role, scenes):
                problems.append(f"{place}: not a request of this job: {str(name)[:120]!r}")
            elif name not in pending:
                continue  # read before
            elif name not in results:
                results[name] = line
            elif line != results[name]:
                problems.append(f"{place}: another result for {name[:120]!r}")
                if not _is_good(results[name]) and _is_good(line):
                    results[name] = line
    return results


def _objects(path: Path, problems: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise RunError(f"cannot read the batch results {path}: {error}.") from error
    with file:
        for number, raw in enumerate(file, start=1):
            place = f"{path}, line {number}"
            if not raw.strip():
                continue
            try:
                line = parse_json(raw)
            except ValueError as error:
                torn = "" if raw.endswith(b"\n") else " (the file ends here: download it again)"
                problems.append(f"{place}: not JSON{torn}: {error}")
                continue
            if isinstance(line, dict):
                yield place, line
            else:
                problems.append(f"{place}: not an object")


def _is_of(name: str, role: Role, scenes: set[str]) -> bool:
    first, _, rest = name.partition(".")
    return first == role and rest.split(".", 2)[-1] in scenes


def _answer(line: Mapping[str, Any], job: BatchJob, request: Request) -> Generations | str:
    if not _is_good(line):
        return str(masked(f"engine: {_complaint(line)}"))
    sampling = sampling_of(job.settings, job.role, request)
    try:
        return generations_of(line["response"]["body"], sampling, f"scene {request.scene.name!r}")
    except EngineError as error:
        return f"engine: {error}"


def _is_good(line: Mapping[str, Any]) -> bool:
    response = line.get("response")
    return (
        not line.get("error") and isinstance(response, dict) and response.get("status_code") == 200
    )


def _complaint(line: Mapping[str, Any]) -> str:
    """What an error line says, in short."""
    response = line.get("response")
    if isinstance(response, dict):
        return f"status {response.get('status_code')}: {str(response.get('body'))[:300]}"
    return str(line.get("error") or "a result without response and error")[:300]
