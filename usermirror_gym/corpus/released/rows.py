"""The schema of the released data sets: what a row must be, and what may be left out of it.

Columns vary between the release and the files that its authors' notebook completes; what is not
used here is not looked at.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from usermirror_gym.errors import DataError
from usermirror_gym.types import Message, Prompt

RELEASED_ANSWER_PREFIX = "Behavior: ["
"""What the released checkpoints say before their letter."""
_ANSWER = re.compile(re.escape(RELEASED_ANSWER_PREFIX) + r"([A-Z])\]")
_SIDES = ("messages_chosen", "messages_rejected")


class _Form(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _RawMessage(_Form):
    role: Literal["system", "user", "assistant"]
    content: str | None


class _Row(_Form):
    dataset: str
    item_id: str | int | None = None
    impression_list: list[str | int] | None = None
    item_pos: int | str | None = None
    choice_cnt: int | None = None


class _TrainRow(_Row):
    messages_chosen: list[_RawMessage] = Field(min_length=1)
    messages_rejected: list[_RawMessage] = Field(min_length=1)


class _Text(_Form):
    profile: str | None
    history: str | None
    action_list: list[str | None] | None


class _EvalRow(_Row):
    text: _Text | None
    user_id: str | int | None = None
    item_pos: int | str


_AnyForm = TypeVar("_AnyForm", bound=_Form)


@dataclass(frozen=True)
class PreferencePair:
    """One row of the train set.

    Attributes:
        name: where it was read.
        prompt: system and user's message.
        chosen, rejected: what the assistant says: a rationale and a letter.
        target, other: the options (positions) that the two end in; ``target`` is the true one.
    """

    name: str
    dataset: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    target: int
    other: int


@dataclass(frozen=True)
class EvalScene:
    """One row of the eval set: its texts, the position of the true option, and whose choice it is
    (empty where the file does not say)."""

    name: str
    dataset: str
    profile: str
    history: str
    actions: tuple[str, ...]
    target: int
    user: str = ""


def read_pair(place: str, raw: dict[str, Any]) -> tuple[PreferencePair, bool]:
    """A row of the train set, and whether it has its text.

    Raises:
        DataError: names the place, the column and what is wrong.
    """
    row = _checked(_TrainRow, place, raw)
    (prompt, chosen, target), (other_prompt, rejected, other) = (
        _side(place, side, getattr(row, side)) for side in _SIDES
    )
    if prompt != other_prompt:
        raise _wrong(place, _SIDES[1], f"its prompt is not that of {_SIDES[0]}")
    if target == other:
        raise _wrong(place, _SIDES[1], f"it chooses [{LETTERS[other]}] as well")
    _check_list(place, row, None, dict(zip(_SIDES, (target, other), strict=True)))
    if row.item_pos is not None and _position(place, row.item_pos) != target:
        raise _wrong(
            place, "item_pos", f"{row.item_pos!r}, but {_SIDES[0]} chooses [{LETTERS[target]}]"
        )
    complete = any(m.role == "user" and m.content for m in prompt)
    if complete:
        _check_prompt(place, prompt, (target, other))
    messages = tuple(Message(m.role, m.content or "") for m in prompt)
    return PreferencePair(place, row.dataset, messages, chosen, rejected, target, other), complete


def read_scene(place: str, raw: dict[str, Any]) -> tuple[EvalScene, bool]:
    """A row of the eval set, and whether it has its text; raises as :func:`read_pair`."""
    row = _checked(_EvalRow, place, raw)
    target = _position(place, row.item_pos)
    text = row.text or _Text(profile=None, history=None, action_list=None)
    actions = [action or "" for action in text.action_list or ()]
    complete = any(actions)
    _check_list(place, row, len(actions) if complete else None, {"item_pos": target})
    if complete and not all(actions):
        raise _wrong(place, "text.action_list", f"option {actions.index('')} has no text")
    profile, history = text.profile or "", text.history or ""
    user = "" if row.user_id is None else str(row.user_id)
    return EvalScene(place, row.dataset, profile, history, tuple(actions), target, user), complete


def _side(
    place: str, column: str, messages: list[_RawMessage]
) -> tuple[list[_RawMessage], str, int]:
    """Prompt, answer, and the option that the answer ends in."""
    *prompt, answer = messages
    if answer.role != "assistant" or not answer.content:
        raise _wrong(place, column, "the last message must be the assistant's, with content")
    letters = _ANSWER.findall(answer.content)
    if not letters:
        raise _wrong(
            place,
            column,
            f"its last message has no {RELEASED_ANSWER_PREFIX}letter], but ends "
            f"{answer.content[-40:]!r}",
        )
    return prompt, answer.content, LETTERS.index(letters[-1])


def _checked(form: type[_AnyForm], place: str, raw: dict[str, Any]) -> _AnyForm:
    try:
        return form.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        column = ".".join(str(part) for part in first["loc"])
        have = f"; the row has {', '.join(raw)}" if first["type"] == "missing" else ""
        shown = "" if first["type"] == "missing" else f", got {str(first['input'])[:60]!r}"
        raise _wrong(place, column, f"{first['msg']}{shown}{have}") from error


def _check_list(place: str, row: _Row, shown: int | None, positions: dict[str, int]) -> None:
    """Whether all that is said of the length of the list agrees, and the positions are within."""
    sizes = {
        "text.action_list": shown,
        "choice_cnt": row.choice_cnt,
        "impression_list": None if row.impression_list is None else len(row.impression_list),
    }
    known = {column: size for column, size in sizes.items() if size is not None}
    if len(set(known.values())) > 1:
        said = ", ".join(f"{column} {size}" for column, size in known.items())
        raise _wrong(place, next(iter(known)), f"lengths of the list disagree: {said}")
    size = next(iter(known.values()), len(LETTERS))
    if not 2 <= size <= len(LETTERS):
        raise _wrong(place, next(iter(known)), f"{size} options; lists have 2 to {len(LETTERS)}")
    for column, position in positions.items():
        if position >= size:
            raise _wrong(place, column, f"position {position} in a list of {size} (from 0)")
    target = next(iter(positions.values()))
    if row.impression_list is not None and row.item_id is not None:
        listed = row.impression_list[target]
        if str(listed) != str(row.item_id):
            raise _wrong(
                place, "impression_list", f"{listed!r} at position {target}, but item_id is "
                f"{row.item_id!r}",
            )  # fmt: skip


def _check_prompt(place: str, prompt: list[_RawMessage], options: tuple[int, int]) -> None:
    """Whether both letters open a line of the list."""
    user = next(m.content or "" for m in reversed(prompt) if m.role == "user")
    for option in options:
        if not re.search(rf"^\[{LETTERS[option]}\]", user, re.MULTILINE):
            raise _wrong(
                place, "messages_chosen", f"[{LETTERS[option]}] is chosen, but no line of the "
                "user's message opens with it",
            )  # fmt: skip


def _position(place: str, value: int | str) -> int:
    """Positions are counted from 0, or are letters."""
    if isinstance(value, str):
        if len(value) != 1 or value not in LETTERS:
            raise _wrong(place, "item_pos", f"{value!r} is neither a number nor a letter A - Z")
        return LETTERS.index(value)
    if value < 0:
        raise _wrong(place, "item_pos", f"{value} is negative; positions are counted from 0")
    return value


def _wrong(place: str, column: str, what: str) -> DataError:
    return DataError(f"{place}, column {column!r}: {what}")


LETTERS = ascii_uppercase
Gaps = tuple[int, int, int]
"""Line breaks after profile, history and list."""


@dataclass(frozen=True)
class PromptFrame:
    """System text, the headings of the user's message, and the line breaks between its parts.

    Use ``dataclasses.replace(frame, system=...)`` to ask with another system text.
    """

    system: str
    headings: tuple[str, str, str]
    """Above the profile, the history and the list."""
    gaps: dict[str, Gaps]
    """By data set; the key "" holds the most frequent ones."""

    @classmethod
    def of(cls, prompts: Iterable[tuple[str, str, str]]) -> PromptFrame:
        """Learn from train prompts.

        Args:
            prompts: data set, system text and user's message of each.

        Raises:
            DataError: the prompts do not share one system text and three headings.
        """
        prompts = list(prompts)
        systems = Counter(system for _, system, _ in prompts)
        if len(systems) != 1:
            raise DataError(
                f"{len(prompts)} train prompts have {len(systems)} different system texts; one is "
                "needed. Give the train set with its texts, or make a PromptFrame by hand."
            )
        headings = _headings([user for _, _, user in prompts])
        counts: dict[str, Counter[Gaps]] = defaultdict(Counter)
        for dataset, _, user in prompts:
            gaps = _gaps(user, headings)
            counts[dataset][gaps] += 1
            counts[""][gaps] += 1
        usual = {dataset: count.most_common(1)[0][0] for dataset, count in counts.items()}
        return cls(next(iter(systems)), headings, usual)

    def user_message(
        self, profile: str, history: str, actions: Sequence[str], dataset: str = ""
    ) -> str:
        """The user's message about one list, its options lettered from A on.

        Args:
            dataset: whose line breaks to use; those of most prompts if it is not known.
        """
        listing = "\n".join(f"[{a}] {text}" for a, text in zip(LETTERS, actions, strict=False))
        parts = zip(
            self.headings,
            (profile, history, listing),
            self.gaps.get(dataset, self.gaps[""]),
            strict=True,
        )
        return "".join(f"{head}\n{text.rstrip(chr(10))}{chr(10) * n}" for head, text, n in parts)

    def prompt(self, scene: EvalScene) -> Prompt:
        """The question about a list, answered by the letter behind "Behavior: ["."""
        user = self.user_message(scene.profile, scene.history, scene.actions, scene.dataset)
        messages = (Message("system", self.system), Message("user", user))
        letters = tuple(LETTERS[: len(scene.actions)])
        return Prompt(messages, RELEASED_ANSWER_PREFIX, letters, scene.name)


def _headings(users: list[str]) -> tuple[str, str, str]:
    """The lines with a leading ``#`` that all messages have."""
    first = [line for line in users[0].split("\n") if line.startswith("#")]
    common = set(first).intersection(*(set(user.split("\n")) for user in users))
    found = tuple(dict.fromkeys(line for line in first if line in common))
    if len(found) != 3 or not all(user.startswith(found[0] + "\n") for user in users):
        raise DataError(
            f"the train prompts share the headings {list(found)}; three are needed, the first of "
            "them on the first line (profile, history, list)"
        )
    return found


def _gaps(user: str, headings: tuple[str, str, str]) -> Gaps:
    """The line breaks at the end of each part of a message."""
    second = user.find(f"\n{headings[1]}\n")
    third = user.rfind(f"\n{headings[2]}\n")
    if not 0 <= second < third:
        raise DataError(f"a train prompt has the headings {list(headings)} in another order")
    ends = (user[: second + 1], user[: third + 1], user)
    starts = (len(headings[0]) + 1, second + len(headings[1]) + 2, third + len(headings[2]) + 2)
    parts = (text[start:] for text, start in zip(ends, starts, strict=True))
    profile, history, listing = (len(part) - len(part.rstrip("\n")) for part in parts)
    return profile, history, listing
