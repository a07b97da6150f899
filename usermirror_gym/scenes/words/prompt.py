"""Scenes become prompts: two forms, for three readouts.

*Scene form* asks about one list: profile, history, list (the form of the UserMirrorer paper).
*Session form* is a conversation that only grows -- list, choice, list, choice -- so that each step
costs the tokens of its own list, and everything before it is in the engine's KV cache.
What is stable comes first in both.  All wording is this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_uppercase
from typing import Literal, NamedTuple

from usermirror_gym.errors import ConfigError, SceneError
from usermirror_gym.scenes.scene import UNKNOWN_AGE, Scene, Turn
from usermirror_gym.scenes.words.template import DomainText
from usermirror_gym.types import PAD, Message, Prompt

PromptForm = Literal["scene", "session"]
LETTERS = ascii_uppercase
NONE_OF_THESE = "none of these"
ANSWER_PREFIX = "My choice: ["
ON_OFFER, CHOSEN = "On offer:\n", "Chosen: "


class _Line(NamedTuple):
    """One line of the history."""

    item: int
    rating: float = float("nan")
    behaviour: str = ""
    age: int | None = None


@dataclass(frozen=True)
class PromptConfig:
    """How much of a scene the prompt shows."""

    form: PromptForm = "session"
    """``"scene"`` or ``"session"``."""
    history_lines: int = 10
    """Most history lines shown."""
    drop_lines: int = 5
    """When the history is full, so many lines leave at once, so that the start of the prompt --
    and the KV cache behind it -- stays the same for several steps."""
    max_turns: int = 10
    """Session form: after so many turns the session is folded back into the history."""
    outside_option: bool = True
    """Letters, options: whether *none of these* is offered; without it the choice is forced."""

    def __post_init__(self) -> None:
        if self.form not in ("scene", "session"):
            raise ConfigError(f"prompt form must be 'scene' or 'session', got {self.form!r}")
        if not 1 <= self.drop_lines <= self.history_lines:
            raise ConfigError(
                f"drop_lines must be in 1..history_lines ({self.history_lines}), "
                f"got {self.drop_lines}"
            )
        if self.max_turns < 1:
            raise ConfigError(f"max_turns must be at least 1, got {self.max_turns}")


@dataclass(frozen=True)
class PromptBuilder:
    """Renders scenes; the same scene and config always give the same prompt."""

    text: DomainText
    config: PromptConfig = PromptConfig()

    def letters(
        self, scene: Scene, order: tuple[int, ...] | None = None, *, skip: int = 0
    ) -> Prompt:
        """The question whose answer is one letter.

        Args:
            order: how the options (slate positions; ``len(slate)`` is *none of these*) are
                lettered; by default as shown, *none of these* last.
            skip: leave out so many more of the oldest history lines (context budget).

        Raises:
            SceneError: more than 26 options.
        """
        history, turns = self._memory(scene)
        opening = self._opening(history[skip:], scene.user_id)
        messages = [Message("system", self._system())]
        for turn in turns:
            listing = self._listing(turn.slate, (), None, scene.name)
            none, chosen = len(turn.slate), turn.chosen
            letter = LETTERS[none if chosen == PAD else turn.slate.index(chosen)]
            messages.append(Message("user", opening + listing))
            messages.append(Message("assistant", f"{ANSWER_PREFIX}{letter}]"))
            opening = ""
        listing = self._listing(scene.slate, scene.notes, order, scene.name)
        messages.append(Message("user", opening + listing))
        options = tuple(LETTERS[: len(scene.slate) + self.config.outside_option])
        return Prompt(tuple(messages), ANSWER_PREFIX, options, scene.name)

    def likelihood(self, scene: Scene, *, skip: int = 0) -> Prompt:
        """Plain text that ends where the next item of the history would be named."""
        history, turns = self._memory(scene)
        shown = history[skip:] + [_Line(t.chosen) for t in turns if t.chosen != PAD]
        head = self._likelihood_head(self.text.profile(scene.user_id))
        lines = "".join(f"{self.text.title(item)}\n" for item, *_ in shown)
        options = tuple(f"{self.text.title(item)}\n" for item in scene.slate)
        return Prompt((), head + lines, options, scene.name)

    def lines(self, scene: Scene, order: tuple[int, ...] | None = None, *, skip: int = 0) -> Prompt:
        """Plain text, then the list: the prompt's options are its lines, one after another.

        Earlier lists of the session stand between the history and the present list, with what was
        chosen from them.

        Args:
            order: how the items (slate positions) are listed; by default as shown.  *None of
                these* is always the last line.
            skip: leave out so many more of the oldest history lines (context budget).

        Raises:
            SceneError: ``order`` is no permutation of the slate's positions.
        """
        history, turns = self._memory(scene)
        head = self._likelihood_head(self.text.profile(scene.user_id))
        text = head + "".join(f"{self.text.title(line.item)}\n" for line in history[skip:])
        for turn in turns:
            chosen = NONE_OF_THESE if turn.chosen == PAD else self.text.title(turn.chosen)
            text += "".join([ON_OFFER, *self._lines(turn.slate, ()), f"{CHOSEN}{chosen}\n"])
        lines = self._lines(scene.slate, scene.notes)
        if order is not None:
            if sorted(order) != list(range(len(scene.slate))):
                raise SceneError(
                    f"{scene.name}: order {order} must be a permutation of "
                    f"0..{len(scene.slate) - 1}; 'none of these' stays last"
                )
            lines[: len(order)] = [lines[option] for option in order]
        return Prompt((), text + ON_OFFER, tuple(lines), scene.name)

    def unconditional(self, items: tuple[int, ...]) -> Prompt:
        """The same question about nobody: no profile and no history."""
        options = tuple(f"{self.text.title(item)}\n" for item in items)
        return Prompt((), self._likelihood_head(""), options, "items without context")

    def item_lines(self, items: tuple[int, ...]) -> Prompt:
        """Items one by one: each is an option, worded as a list shows it, with its line break."""
        options = tuple(f"{text}\n" for text in self._options(items, ()))
        return Prompt((), self._likelihood_head(""), options, "items one by one")

    def history_lines_shown(self, scene: Scene) -> int:
        """How many history lines the prompt of ``scene`` has (those that ``skip`` can drop)."""
        return len(self._memory(scene)[0])

    def _memory(self, scene: Scene) -> tuple[list[_Line], tuple[Turn, ...]]:
        """History lines, and the turns that stay a conversation."""
        folded = len(scene.turns)
        if self.config.form == "session":
            folded = folded // self.config.max_turns * self.config.max_turns
        behaviours = scene.behaviours or ("",) * len(scene.history)
        ages = (None if age == UNKNOWN_AGE else age for age in scene.ages)
        columns = zip(scene.history, scene.ratings, behaviours, ages, strict=True)
        lines = [_Line(*values) for values in columns]
        before = len(lines)
        lines += [_Line(t.chosen) for t in scene.turns[:folded] if t.chosen != PAD]
        return lines[self._first_line(before, len(lines)) :], scene.turns[folded:]

    def _first_line(self, before: int, total: int) -> int:
        """Index of the oldest line shown: it moves by ``drop_lines`` while the session grows."""
        start = max(before - self.config.history_lines, 0)
        excess = total - start - self.config.history_lines
        blocks = -(-max(excess, 0) // self.config.drop_lines)
        return start + blocks * self.config.drop_lines

    def _system(self) -> str:
        return (
            f"You play a real person who is offered lists of {self.text.noun}s. Choose as that "
            "person would, from what is known about them, and answer with one letter."
        )

    def _opening(self, history: list[_Line], user_id: int) -> str:
        profile = self.text.profile(user_id)
        parts = [f"About me: {profile}"] if profile else []
        if history:
            parts.append(f"{self.text.noun.capitalize()}s I {self.text.past}, latest last:")
            parts += [
                f"- {self.text.past_item(item, rating, behaviour=behaviour, age=age)}"
                for item, rating, behaviour, age in history
            ]
        return "\n".join(parts) + "\n\n" if parts else ""

    def _listing(
        self,
        slate: tuple[int, ...],
        notes: tuple[str, ...],
        order: tuple[int, ...] | None,
        name: str,
    ) -> str:
        count = len(slate) + self.config.outside_option
        if count > len(LETTERS):
            raise SceneError(
                f"{name}: {count} options, but letters reach only to Z ({len(LETTERS)}). Use a "
                "shorter list, forced choice (outside_option=False), or the likelihood readout."
            )
        order = tuple(range(count)) if order is None else order
        texts = [*self._options(slate, notes), NONE_OF_THESE]
        lines = [f"[{LETTERS[letter]}] {texts[option]}" for letter, option in enumerate(order)]
        return f"These {self.text.noun}s are on offer. Which one do I take?\n" + "\n".join(lines)

    def _options(self, slate: tuple[int, ...], notes: tuple[str, ...]) -> list[str]:
        options = [self.text.option(item) for item in slate]
        pairs = zip(options, notes or ("",) * len(slate), strict=True)
        return [f"{option}; {note}" if note else option for option, note in pairs]

    def _lines(self, slate: tuple[int, ...], notes: tuple[str, ...]) -> list[str]:
        """Each with its line break, on whose token the option head reads."""
        outside = [NONE_OF_THESE] if self.config.outside_option else []
        return [f"{text}\n" for text in [*self._options(slate, notes), *outside]]

    def _likelihood_head(self, profile: str) -> str:
        about = f"{profile} " if profile else ""
        return f"{about}{self.text.noun.capitalize()}s {self.text.past}, in order:\n"
