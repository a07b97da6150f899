"""Which rationales are wanted, which are there, and what is asked next.

The plan is a function of the scenes, the settings and the records alone.  A run that was killed
therefore asks the rest with the same seeds, in the same calls, as if nothing had happened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from usermirror_gym.corpus.rationales.journal import Record, read_records
from usermirror_gym.engines.base import Generations, Sampling
from usermirror_gym.errors import ConfigError, RunError, SceneError
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.rationale_prompt import STOP, prompt_version, stages, tidy

Role = Literal["strong", "weak"]
ROLES: tuple[Role, ...] = ("strong", "weak")
_OPERATIONAL = ("batch_size", "prompt_price", "completion_price")


@dataclass(frozen=True)
class RationaleSettings:
    """How rationales are sampled.  The defaults are those of Wei et al., *Mirroring Users*, 2026.

    Raises:
        ConfigError: a value that cannot be used.
    """

    n: int = 10
    """Rationales per scene."""
    temperature: float = 1.0
    top_p: float = 0.9
    max_tokens: int = 1024
    """Most tokens of one rationale."""
    seed: int = 0
    max_attempts: int = 3
    """How often a rationale is tried before it is given up."""
    require: Literal["stages", "text"] = "stages"
    """``"stages"``: a rationale without the three stages has failed; ``"text"``: any text will do
    (for models too small to keep a form)."""
    batch_size: int = 32
    """Rationales between two writes to disk, hence most that a kill costs.  A server wants at
    least its ``concurrency`` times ``n``.  May change when a run is resumed."""
    prompt_price: float | None = None
    """Price of a million prompt tokens, in any currency.  May change, like the next one."""
    completion_price: float | None = None

    def __post_init__(self) -> None:
        for name in ("n", "max_tokens", "max_attempts", "batch_size"):
            self._need(name, getattr(self, name), int, "a whole number from 1", 1)
        self._need("seed", self.seed, int, "a whole number")
        self._need("temperature", self.temperature, (int, float), "a number from 0", 0)
        self._need("top_p", self.top_p, (int, float), "a number in (0, 1]")
        for name in ("prompt_price", "completion_price"):
            if getattr(self, name) is not None:
                self._need(name, getattr(self, name), (int, float), "a number from 0, or none", 0)
        if self.temperature == 0 and self.n > 1:
            raise ConfigError(
                f"temperature 0 writes the same text {self.n} times: use n=1, or a temperature "
                "above 0"
            )
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.require not in ("stages", "text"):
            raise ConfigError(f"require must be 'stages' or 'text', got {self.require!r}")

    @staticmethod
    def _need(name: str, value: Any, kind: Any, words: str, least: float = float("-inf")) -> None:
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        if not is_number or not least <= value < float("inf"):
            raise ConfigError(f"{name} must be {words}, got {value!r}")

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        """Price of so many tokens; ``None`` without prices."""
        if self.prompt_price is None or self.completion_price is None:
            return None
        paid = prompt_tokens * self.prompt_price + completion_tokens * self.completion_price
        return paid / 1e6


@dataclass(frozen=True, slots=True)
class Rationale:
    """One attempt at one rationale: a record of the journal.

    Attributes:
        index: number of the rationale within scene and role, from 0.
        attempt: from 0.
        text: what stands before the answer line, tidied; kept for failures too.
        ok: whether it may be used.
        error: why not, beginning with its kind: empty, unreadable, engine or scene.
        prompt_tokens: tokens of the question; 0 where another index of the same call carries them.
        seed: what the engine was called with; it derives the rest from the question and the
            number of the sample.
    """

    scene_id: str
    role: Role
    index: int
    attempt: int
    text: str
    ok: bool
    error: str | None
    prompt_tokens: int
    completion_tokens: int
    seed: int


@dataclass(frozen=True)
class Request:
    """Texts to ask of one scene in one call: all of them at first, later single ones."""

    scene: Scene
    indices: tuple[int, ...]
    attempt: int


class Ledger:
    """What is wanted, compared with what a journal holds.

    Raises:
        SceneError: two scenes of one name.
    """

    def __init__(self, scenes: Sequence[Scene], settings: RationaleSettings) -> None:
        self._settings = settings
        self._scenes = {scene.name: scene for scene in scenes}
        if len(self._scenes) < len(scenes):
            names = [scene.name for scene in scenes]
            twice = next(name for name in names if names.count(name) > 1)
            raise SceneError(f"two scenes are called {twice!r}: scene ids must be unique.")
        self._tries: dict[tuple[str, int], int] = {}
        self._ok: set[tuple[str, int]] = set()
        self.failures = 0
        self.exhausted = 0

    @property
    def wanted(self) -> int:
        """How many rationales there should be."""
        return len(self._scenes) * self._settings.n

    @property
    def written(self) -> int:
        """How many rationales can be used."""
        return len(self._ok)

    def take(self, rationale: Rationale) -> None:
        """Note one record.

        Raises:
            RunError: it is about no scene of this run, or is there already.
        """
        key = rationale.scene_id, rationale.index
        if key[0] not in self._scenes or not 0 <= key[1] < self._settings.n:
            raise RunError(f"rationale {key[1]} of scene {key[0]!r} is not of this run.")
        if rationale.attempt != self._tries.get(key, 0) or key in self._ok:
            raise RunError(
                f"attempt {rationale.attempt} of rationale {key[1]} of scene {key[0]!r} is out of "
                "turn: the journal was edited, or merged with another. Delete it to start anew."
            )
        self._tries[key] = rationale.attempt + 1
        if rationale.ok:
            self._ok.add(key)
            return
        self.failures += 1
        self.exhausted += rationale.attempt + 1 == self._settings.max_attempts

    def lacks(self, rationale: Rationale) -> bool:
        """Whether this attempt of a rationale has no record yet."""
        key = rationale.scene_id, rationale.index
        return self._tries.get(key, 0) == rationale.attempt

    def is_open(self, request: Request) -> bool:
        """Whether something that was asked for has no record yet."""
        name, attempt = request.scene.name, request.attempt
        return any(self._tries.get((name, i), 0) == attempt for i in request.indices)

    def batches(self, attempt: int) -> Iterator[list[Request]]:
        """What attempt number ``attempt`` asks, in calls of a fixed composition; those of which
        every record is there are left out.

        Attempts are to be asked one after the other.
        """
        for batch in self._all_batches(attempt):
            if any(map(self.is_open, batch)):
                yield batch

    def _all_batches(self, attempt: int) -> Iterator[list[Request]]:
        size, n = self._settings.batch_size, self._settings.n
        if attempt == 0:
            every = [Request(scene, tuple(range(n)), 0) for scene in self._scenes.values()]
            yield from _chunks(every, max(1, size // n))
            return
        for index in range(n):
            again = [
                Request(scene, (index,), attempt)
                for scene in self._scenes.values()
                if self._failed_before((scene.name, index), attempt)
            ]
            yield from _chunks(again, size)

    def _failed_before(self, key: tuple[str, int], attempt: int) -> bool:
        tries = self._tries.get(key, 0)
        return tries > attempt or (tries == attempt and key not in self._ok)


def call_seed(settings: RationaleSettings, role: Role, request: Request) -> int:
    """Seed of a call, 31 bits: a hash of seed, role, first index and attempt.  The engine adds the
    question and the number of the sample, so every rationale has a seed of its own."""
    text = f"{settings.seed}:{role}:{request.indices[0]}:{request.attempt}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1


def sampling_of(settings: RationaleSettings, role: Role, request: Request) -> Sampling:
    """How an engine is asked for a request."""
    n, seed = len(request.indices), call_seed(settings, role, request)
    return Sampling(n, settings.temperature, settings.top_p, settings.max_tokens, STOP, seed)


def rationales_of(
    request: Request, answer: Generations | str, settings: RationaleSettings, role: Role
) -> list[Rationale]:
    """Records of what became of a request (of an answer, or why there is none); the first one
    carries the tokens of the question."""
    if isinstance(answer, str):
        answer = Generations((), error=answer)
    seed = call_seed(settings, role, request)
    texts = [tidy(text) for text in answer.texts] or [""] * len(request.indices)
    tokens = answer.completion_tokens or (0,) * len(texts)
    records = []
    for k, (index, text, written) in enumerate(zip(request.indices, texts, tokens, strict=True)):
        error = answer.error or _fault(text, settings)
        asked = answer.prompt_tokens if k == 0 else 0
        records.append(
            Rationale(
                request.scene.name, role, index, request.attempt, text, error is None, error,
                asked, written, seed,
            )
        )  # fmt: skip
    return records


def rationale_header(
    model_id: str, role: Role, settings: RationaleSettings, scenes: int, questions: str
) -> Record:
    """First line of a journal: everything that a text depends on."""
    kept = {k: v for k, v in asdict(settings).items() if k not in _OPERATIONAL}
    return {
        "journal": "rationales", "model": model_id, "role": role, "prompt": prompt_version(),
        "scenes": scenes, "questions": questions, "settings": kept,
    }  # fmt: skip


def read_attempts(path: Path) -> Iterator[Rationale]:
    """Every attempt in a journal of rationales, in the order written.

    Raises:
        RunError: the file is not such a journal.
    """
    return (rationale_from(record, path) for record in read_records(path))


def rationale_from(record: Mapping[str, Any], path: Path) -> Rationale:
    """A record as read back."""
    if record.keys() != {field.name for field in fields(Rationale)}:
        raise RunError(f"{path} has a record that is no rationale: {str(record)[:200]}")
    return Rationale(**record)


def _fault(text: str, settings: RationaleSettings) -> str | None:
    if not text:
        return "empty: no text before the answer line"
    if settings.require == "stages" and stages(text) is None:
        return "unreadable: not the three stages, each once and in order"
    return None


def _chunks(requests: list[Request], size: int) -> Iterator[list[Request]]:
    return (requests[at : at + size] for at in range(0, len(requests), size))
