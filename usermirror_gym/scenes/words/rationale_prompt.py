"""The question for a decision process, and how its answer is read.

The stages follow the model of Engel, Kollat and Blackwell (*Consumer Behavior*, Holt, Rinehart and
Winston, 1968): something stirs the consumer, what they know is brought to mind, the alternatives
are evaluated, and a choice follows.  The rules of evaluation are those of the literature on choice
strategies (Payne, Bettman and Johnson, *The Adaptive Decision Maker*, Cambridge, 1993).  Wei et
al., *Mirroring Users*, ACL 2026, use the stages for a simulated user.  All wording is our own.

The model that writes a rationale, the model that reads the letters after it, and the model that is
trained on it see the same messages.  What the assistant says is

    Stimulus: ...
    Knowledge: ...
    Evaluation: ...
    My choice: [B]

where writing stops before the last line, and reading begins behind its bracket.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace
from unicodedata import category

from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import ANSWER_PREFIX, PromptBuilder
from usermirror_gym.types import Message, Prompt

STAGES = ("stimulus", "knowledge", "evaluation")

STIMULUS_FACTORS = {
    "need": "a want or a gap that calls for something",
    "mood": "how I feel at this moment",
    "routine": "what I usually do next",
    "occasion": "time, season, company, the device at hand",
    "curiosity": "an appetite for something I have not tried",
    "people": "friends, reviews, what everybody talks about",
    "display": "a line of the list that catches the eye",
}
"""What may stir the person, with a gloss."""

KNOWLEDGE_FACTORS = {
    "maker": "whether I know the author, artist, brand, studio or publisher",
    "kind": "how well I know the genre, category or series",
    "experience": "what pleased or disappointed me before",
    "facts": "price, age, length, ratings, features that the line states",
    "reputation": "what I have heard from others",
    "doubt": "what I cannot tell from the list",
}
"""What the person may know about the options."""

EVALUATION_STYLES = {
    "weighing": "strong points make up for weak ones, the best sum wins",
    "first things first": "the one point that matters most decides, the next only breaks ties",
    "cut-offs": "whatever misses a requirement is struck out",
    "good enough": "the first option that will do is taken",
    "gut feeling": "one option simply appeals",
    "safe side": "the familiar option avoids regret",
    "walking away": "nothing on the list is worth it",
}
"""How the person may come to a decision."""

_HEADING = re.compile(
    r"^[^\w\n]*(?:\d+[.)][^\w\n]*)?(stimulus|knowledge|evaluation)[ \t*_`]*:[ \t*_`]*",
    re.IGNORECASE | re.MULTILINE,
)
_ANSWER_WORDS = ANSWER_PREFIX.partition(":")[0] + ":"
_DECORATION = "*_`#>-"
_REQUEST = (
    "Tell me in my own voice how I decide, one short paragraph under each of the headings "
    f"Stimulus:, Knowledge: and Evaluation:. Then close with the line {_ANSWER_WORDS} [letter]"
)

STOP = (_ANSWER_WORDS,)
"""Where writing stops: at the start of :data:`ANSWER_PREFIX`, so
that an answer line in any other shape ends the rationale too."""


def rationale_prompt(scene: Scene, builder: PromptBuilder, *, skip: int = 0) -> Prompt:
    """The scene's question as a request for a decision process; no answer is begun.

    The instructions come first and are the same for every scene of a domain, so that an engine
    computes them once.

    Args:
        skip: leave out so many more of the oldest history lines (context budget).

    Raises:
        SceneError: more than 26 options.
    """
    question = builder.letters(scene, skip=skip)
    _, *turns, last = question.messages
    ending = f"{last.content}\n\n{_REQUEST}"
    system = Message("system", _instructions(builder.text.noun))
    messages = (system, *turns, Message("user", ending))
    return replace(question, messages=messages, answer_prefix="")


def reading_prompt(
    scene: Scene, builder: PromptBuilder, rationale: str = "", *, skip: int = 0
) -> Prompt:
    """The same question with the answer begun: the rationale and the answer line up to the letter.

    Args:
        rationale: the text before the answer line; empty for an answer without reasons.
        skip: as in :func:`rationale_prompt`.
    """
    return replace(
        rationale_prompt(scene, builder, skip=skip),
        answer_prefix=f"{rationale}\n{ANSWER_PREFIX}" if rationale else ANSWER_PREFIX,
    )


def answer(rationale: str, letter: str) -> str:
    """What the assistant says in all, e.g. the ``chosen`` side of a preference pair."""
    return f"{rationale}\n{ANSWER_PREFIX}{letter}]"


def stages(text: str) -> dict[str, str] | None:
    """The three stages of a rationale by name, in order.

    Returns:
        ``None`` unless each heading opens a line exactly once, in order, with some text behind it.
        Markdown around a heading is ignored.
    """
    found = list(_HEADING.finditer(text))
    if tuple(match[1].lower() for match in found) != STAGES:
        return None
    ends = [match.start() for match in found[1:]] + [len(text)]
    parts = [text[match.end() : end].strip() for match, end in zip(found, ends, strict=True)]
    return dict(zip(STAGES, parts, strict=True)) if all(parts) else None


def tidy(text: str) -> str:
    """A generated text as it is kept: without an answer line, control characters and loose ends."""
    plain = text.replace("\r\n", "\n")
    visible = "".join(c for c in plain if c in "\n\t" or category(c) not in ("Cc", "Cs"))
    head = re.split(re.escape(_ANSWER_WORDS), visible, maxsplit=1, flags=re.IGNORECASE)[0]
    lines = [line.rstrip() for line in head.strip().split("\n")]
    while lines and not lines[-1].strip(_DECORATION + " \t"):
        lines.pop()
    return "\n".join(lines)


def prompt_version() -> str:
    """A short digest of the wording: it changes whenever the wording does."""
    return _digest([_instructions("item"), _REQUEST, ANSWER_PREFIX])


def questions_version(prompts: Iterable[Prompt]) -> str:
    """A short digest of given questions, their names included."""
    return _digest(
        text
        for prompt in prompts
        for text in (prompt.name, *(m.content for m in prompt.messages), prompt.answer_prefix)
    )


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _instructions(noun: str) -> str:
    lists = (STIMULUS_FACTORS, KNOWLEDGE_FACTORS, EVALUATION_STYLES)
    asks = (
        "what sets me off right now",
        "what I know of the options and how I came to know it",
        "which way I decide, and how the options compare",
    )
    parts = [
        f"You play a real person in front of a list of {noun}s. From what is known about them, "
        "think the decision through as that person would, as a stream of thought in three "
        "stages. Pick the few factors that truly matter here, name them, and leave out the rest."
    ]
    for stage, ask, factors in zip(STAGES, asks, lists, strict=True):
        glosses = "; ".join(f"{name} ({gloss})" for name, gloss in factors.items())
        parts.append(f"{stage.capitalize()}: {ask}. Draw from: {glosses}.")
    parts.append(
        "Stay with facts that were given; where they are silent, say so. "
        f"The very last line is {_ANSWER_WORDS} and one letter in square brackets."
    )
    return "\n".join(parts)
