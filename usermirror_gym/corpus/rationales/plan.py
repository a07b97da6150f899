"""Which rationales are wanted, which are there, and what is asked next.

The plan is a function of the scenes, the settings and the records alone.  A run that was killed
therefore asks the rest with the same seeds, in the same calls, as if nothing had happened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from usermirror_gym.configs.settings import Positive
from usermirror_gym.corpus.rationales.journal import Journal, records_as
from usermirror_gym.engines.base import Generations, Sampling
from usermirror_gym.errors import ConfigError, RunError, SceneError
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import PromptBuilder
from usermirror_gym.scenes.words.rationale_prompt import (
    STOP,
    prompt_version,
    questions_version,
    rationale_prompt,
    stages,
    tidy,
)

T = TypeVar("T")
Role = Literal["strong", "weak"]
ROLES: tuple[Role, ...] = ("strong", "weak")
_OPERATIONAL = ("batch_size", "prompt_price", "completion_price")
_From0 = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class RationaleSettings:
    """How rationales are sampled.  The defaults are those of Wei et al., *Mirroring Users*, 2026.

    Raises:
        ConfigError: a value that cannot be used.
    """

    n: Positive = 10
    """Rationales per scene."""
    temperature: _From0 = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    max_tokens: Positive = 1024
    """Most tokens of one rationale."""
    seed: int = 0
    max_attempts: Positive = 3
    """How often a rationale is tried before it is given up."""
    require: Literal["stages", "text"] = "stages"
    """``"stages"``: a rationale without the three stages has failed; ``"text"``: any text will do
    (for models too small to keep a form)."""
    batch_size: Positive = 32
    """Rationales between two writes to disk, hence most that a kill costs.  A server wants at
    least its ``concurrency`` times ``n``.  May change when a run is resumed."""
    prompt_price: _From0 | None = None
    """Price of a million prompt tokens, in any currency.  May change, like the next one."""
    completion_price: _From0 | None = None

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            value = getattr(self, name)
            try:
                TypeAdapter(hint).validate_python(value, strict=True)
            except ValidationError as error:
                raise ConfigError(f"{name}: {error.errors()[0]['msg']}, got {value!r}") from error
        if self.temperature == 0 and self.n > 1:
            raise ConfigError(
                f"temperature 0 writes the same text {self.n} times: use n=1, or a temperature "
                "above 0"
            )

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

    def keep(self, rationales: Iterable[Rationale], journal: Journal) -> None:
        """Write what the journal does not have (a kill may have cut a batch in two)."""
        tries = self._tries
        new = [r for r in rationales if tries.get((r.scene_id, r.index), 0) == r.attempt]
        journal.append(map(asdict, new))
        for rationale in new:
            self.take(rationale)

    def is_open(self, request: Request) -> bool:
        """Whether something that was asked for has no record yet."""
        name, attempt = request.scene.name, request.attempt
        return any(self._tries.get((name, i), 0) == attempt for i in request.indices)

    def batches(self, attempt: int) -> Iterator[Sequence[Request]]:
        """What attempt number ``attempt`` asks, in calls of a fixed composition; those of which
        every record is there are left out.

        Attempts are to be asked one after the other.
        """
        size, n = self._settings.batch_size, self._settings.n
        scenes = self._scenes.values()
        if attempt == 0:
            size = max(1, size // n)
            calls = [[Request(scene, tuple(range(n)), 0) for scene in scenes]]
        else:
            calls = [
                [
                    Request(s, (i,), attempt)
                    for s in scenes
                    if self._failed_before((s.name, i), attempt)
                ]
                for i in range(n)
            ]
        for requests in calls:
            for batch in chunks(requests, size):
                if any(map(self.is_open, batch)):
                    yield batch

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


@contextmanager
def open_rationales(
    scenes: Sequence[Scene],
    builder: PromptBuilder,
    model_id: str,
    settings: RationaleSettings,
    role: Role,
    path: Path,
) -> Iterator[tuple[Journal, Ledger]]:
    """Inside the block the journal of these rationales is open, and the ledger knows its records.

    Its header is everything that a text depends on; it is in order when the block ends well.
    """
    ledger = Ledger(scenes, settings)
    header = {
        "journal": "rationales", "model": model_id, "role": role, "prompt": prompt_version(),
        "scenes": len(scenes),
        "questions": questions_version(rationale_prompt(scene, builder) for scene in scenes),
        "settings": {k: v for k, v in asdict(settings).items() if k not in _OPERATIONAL},
    }  # fmt: skip
    with Journal(path, header) as journal:
        for attempt in read_attempts(path):
            ledger.take(attempt)
        yield journal, ledger
        journal.sort(lambda record: (record["scene_id"], record["index"], record["attempt"]))


def read_attempts(path: Path) -> Iterator[Rationale]:
    """Every attempt in a journal of rationales, in the order written.

    Raises:
        RunError: the file is not such a journal.
    """
    return records_as(path, Rationale, "rationale")


def _fault(text: str, settings: RationaleSettings) -> str | None:
    if not text:
        return "empty: no text before the answer line"
    if settings.require == "stages" and stages(text) is None:
        return "unreadable: not the three stages, each once and in order"
    return None


def chunks(things: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """``size`` at a time; the last ones may be fewer."""
    return (things[at : at + size] for at in range(0, len(things), size))
