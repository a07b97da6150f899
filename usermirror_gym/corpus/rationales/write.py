"""Decision rationales: a model writes, for every scene, n texts of how its user decides.

Every attempt is a record of a journal on disk (:mod:`journal`).  A run may
be killed at any moment and started again; it goes on, and what it leaves in the end is the same
file, byte for byte, that an undisturbed run leaves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from usermirror_gym.corpus.rationales.journal import Journal, Record, read_header
from usermirror_gym.corpus.rationales.plan import (
    Rationale,
    RationaleSettings,
    Request,
    Role,
    open_rationales,
    rationales_of,
    read_attempts,
    sampling_of,
)
from usermirror_gym.engines.base import Engine, Generations, generate_detailed
from usermirror_gym.errors import EngineError, SceneError
from usermirror_gym.foreign import masked
from usermirror_gym.progress import Display
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import PromptBuilder
from usermirror_gym.scenes.words.rationale_prompt import rationale_prompt
from usermirror_gym.simulators.readouts.llm import fit_context
from usermirror_gym.types import Message, Prompt

T = TypeVar("T")
Question = tuple[Scene, Callable[..., Prompt]]
"""A scene, and what makes its prompt; see
:func:`~usermirror_gym.simulators.readouts.llm.fit_context`."""
_PROBE = Prompt((Message("user", "Say yes."),), "", (), "the test question")


@dataclass(frozen=True)
class RationaleSummary:
    """What a journal of rationales holds.

    Attributes:
        wanted: scenes times n.
        written: rationales that can be used.
        failed: rationales given up after the last attempt.
        failures: failed attempts by kind: empty, unreadable, engine, scene.
        cost: of all attempts, failed ones included; ``None`` without prices.
    """

    role: str
    model: str
    wanted: int
    written: int
    failed: int
    failures: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    cost: float | None

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.failures.items()))
        paid = "" if self.cost is None else f", cost {self.cost:,.2f}"
        return (
            f"{self.role} rationales by {self.model}: {self.written:,} of {self.wanted:,} written, "
            f"{self.failed:,} given up (failed attempts: {kinds or 'none'}); "
            f"{self.prompt_tokens:,} + {self.completion_tokens:,} tokens{paid}"
        )


def write_rationales(
    scenes: Sequence[Scene],
    builder: PromptBuilder,
    engine: Engine,
    path: Path,
    settings: RationaleSettings,
    *,
    role: Role,
    display: Display,
) -> RationaleSummary:
    """Write, or go on writing, the rationales of one model.

    Args:
        scenes: with unique names; ``target`` is never read.
        builder: words the question; scene form.
        path: the journal.  It belongs to one model, role, prompt and list of scenes.
        settings: how to sample.
        role: which of the two models of a build this is.
        display: shows progress.

    Returns:
        Counts over the whole journal, earlier runs included.

    Raises:
        RunError: the journal was begun with other settings, scenes or another model.
        SceneError: two scenes of one name.
        EngineError: the engine answers nothing any more.
    """
    last: str | None = None
    begun = open_rationales(scenes, builder, engine.model_id, settings, role, path)
    with (
        begun as (journal, ledger),
        display.phase(f"{role} rationales", ledger.wanted, "rationale") as advance,
    ):
        advance(ledger.written + ledger.exhausted)
        for attempt in range(settings.max_attempts):
            for batch in ledger.batches(attempt):
                before = ledger.written + ledger.exhausted
                records = _asked(batch, engine, builder, settings, role)
                ledger.keep(records, journal)
                advance(ledger.written + ledger.exhausted - before)
                last = next((one.error for one in reversed(records) if one.error), last)
                stop_if_hopeless(engine.model_id, ledger.written, ledger.failures, last)
    summary = summarise(path, settings)
    display.say(str(summary))
    return summary


def read_rationales(path: Path) -> list[Rationale]:
    """The last attempt at every rationale of a journal, by scene and index; look at ``ok``.

    Raises:
        RunError: the file is not such a journal, or is unfinished.
    """
    last = {(r.scene_id, r.index): r for r in read_attempts(path)}
    return [last[key] for key in sorted(last)]


def summarise(path: Path, settings: RationaleSettings) -> RationaleSummary:
    """Counts over a journal; the settings give the prices.

    Raises:
        RunError: the file is not such a journal, or is unfinished.
    """
    header, kinds = read_header(path), Counter[str]()
    asked = answered = written = failed = 0
    for one in read_attempts(path):
        asked += one.prompt_tokens
        answered += one.completion_tokens
        written += one.ok
        failed += not one.ok and one.attempt + 1 == settings.max_attempts
        if one.error is not None:
            kinds[one.error.partition(":")[0]] += 1
    wanted = header["scenes"] * header["settings"]["n"]
    return RationaleSummary(
        header["role"], header["model"], wanted, written, failed, dict(kinds), asked, answered,
        settings.cost(asked, answered),
    )  # fmt: skip


def _asked(
    batch: Sequence[Request],
    engine: Engine,
    builder: PromptBuilder,
    settings: RationaleSettings,
    role: Role,
) -> list[Rationale]:
    """What an engine answers to requests that share a seed."""
    sampling = sampling_of(settings, role, batch[0])

    def probe() -> None:
        (answer,) = generate_detailed(engine, [_PROBE], replace(sampling, n=1))
        if answer.error is not None:
            raise EngineError(answer.error)

    def ask(prompts: list[Prompt]) -> list[Generations | str]:
        answers = generate_detailed(engine, prompts, sampling)
        stop_if_dead(engine.model_id, [answer.error for answer in answers], probe)
        return [a if a.error is None else masked(f"engine: {a.error}") for a in answers]

    questions = [(r.scene, partial(rationale_prompt, r.scene, builder)) for r in batch]
    found = ask_fitting(engine, builder, questions, ask, room=settings.max_tokens)
    pairs = zip(batch, found, strict=True)
    return [one for request, a in pairs for one in rationales_of(request, a, settings, role)]


def ask_fitting(
    engine: Engine,
    builder: PromptBuilder,
    questions: Iterable[Question],
    ask: Callable[[list[Prompt]], Sequence[T | str]],
    *,
    room: int = 0,
) -> list[T | str]:
    """The answer to each question that fits the engine's context; a text says why there is none.

    The answers depend on this call alone, to the last bit, where the engine knows how (see
    ``TransformersEngine.forget``).

    Args:
        ask: answers some prompts, at least one.
        room: tokens that an answer may take.
    """
    fitted: list[Prompt | str] = []
    for scene, build in questions:
        try:
            fitted.append(fit_context(engine, builder, scene, build, room=room))
        except SceneError as error:
            fitted.append(f"scene: {error}")
    if forget := getattr(engine, "forget", None):
        forget()
    prompts = [question for question in fitted if isinstance(question, Prompt)]
    answers = iter(ask(prompts) if prompts else ())
    return [next(answers) if isinstance(question, Prompt) else question for question in fitted]


def answer_missing(
    journal: Journal,
    names: Sequence[str],
    batches: Iterable[Mapping[tuple[Any, ...], Question]],
    engine: Engine,
    builder: PromptBuilder,
    ask: Callable[[list[Prompt]], Sequence[Record | str]],
    blank: Record,
) -> Iterator[list[Record]]:
    """Ask the questions that the journal has no record of; the new records of each call.

    A batch that a kill has cut in two is asked again as a whole: the rest must not depend on what
    was asked before it.

    Args:
        names: fields of a record that say which question it answers.
        batches: questions by the values of those fields.
        ask: see :func:`ask_fitting`; an answer is the record's other fields.
        blank: the other fields, in order, of a question without an answer; ``error`` says why.
    """
    done = {tuple(record[name] for name in names) for record in journal.records()}
    for batch in batches:
        if done.issuperset(batch):
            continue
        answers = ask_fitting(engine, builder, batch.values(), ask)
        new = [
            dict(zip(names, key, strict=True))
            | blank
            | ({"error": answer} if isinstance(answer, str) else answer)
            for key, answer in zip(batch, answers, strict=True)
            if key not in done
        ]
        journal.append(new)
        yield new


ENOUGH = 64
"""After so many failures without a single success nothing better is to be expected."""


def stop_if_dead(model_id: str, errors: Sequence[str | None], probe: Callable[[], object]) -> None:
    """After a call in which every prompt failed: is it the prompts, or the engine?

    Args:
        errors: what became of each prompt of the call; ``None`` is a success.
        probe: asks the engine a harmless question, and raises EngineError if it fails.

    Raises:
        EngineError: the harmless question fails too.
    """
    if not errors or None in errors:
        return
    try:
        probe()
    except EngineError as error:
        raise EngineError(
            f"{model_id} answers nothing at the moment: {errors[0]}. What was written before is "
            "kept; the same command goes on from there."
        ) from error


def stop_if_hopeless(model_id: str, succeeded: int, failed: int, last: str | None) -> None:
    """Compare successes and failures since the run was begun.

    Raises:
        EngineError: no success, and too many failures to hope for one.
    """
    if succeeded == 0 and failed >= ENOUGH:
        raise EngineError(
            f"none of {failed} answers of {model_id} could be used; the last failure: {last}. "
            "Look into the journal, then change the settings (more max_tokens, require='text') or "
            "the model."
        )
