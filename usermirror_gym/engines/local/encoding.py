"""Prompt -> token ids.

Pieces of the chat template keep their special tokens; everything that comes from data (message
contents, the answer prefix, the options) is encoded as plain text, even where it spells a special
token.  Each piece is encoded on its own, so a prompt that grows at its end keeps its old ids as a
prefix wherever the tokenizer allows it, which is what the KV cache lives on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, Protocol

from usermirror_gym.engines.local.chat_template import ChatTemplate, Data, Piece
from usermirror_gym.errors import EngineError
from usermirror_gym.types import FloatArray, Prompt

if TYPE_CHECKING:
    from usermirror_gym.engines.local.head import OptionHead

_MARKUP = frozenset("<>[]{}|\uff5c")
_ANCHOR = "\n"


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """One question in tokens.

    Attributes:
        name: the prompt's name.
        prefix: ids of everything before the options; never empty.
        options: ids of each option.
    """

    name: str
    prefix: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]

    @property
    def longest(self) -> int:
        """Tokens of the question with its longest option."""
        return len(self.prefix) + max(map(len, self.options), default=0)

    @property
    def whole(self) -> int:
        """Tokens of the question with all its options one after another."""
        return len(self.prefix) + sum(map(len, self.options))


Length = Callable[[EncodedPrompt], int]
longest: Length = attrgetter("longest")
whole: Length = attrgetter("whole")


class PromptEncoder:
    """Turns prompts into ids for one tokenizer.

    Args:
        tokenizer: a transformers tokenizer; without a chat template the contents of the messages
            are joined by blank lines.
        cache_size: how many encoded pieces of text are kept.
    """

    def __init__(self, tokenizer: Any, *, cache_size: int = 16_384) -> None:
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer)
        self._markup = _markup_tokens(tokenizer)
        self._anchor = self._anchor_ids()
        self._plain_cached = lru_cache(cache_size)(self._plain)
        self._marked_up_cached = lru_cache(1024)(self._marked_up)

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Ids of the question.

        Raises:
            EngineError: the chat template refuses the messages, or there is nothing to encode.
        """
        if prompt.messages:
            pieces = [*self._template.render(prompt), Data(prompt.answer_prefix)]
        else:
            pieces = [Data(prompt.answer_prefix, starts_text=True)]
        prefix = tuple(i for piece in pieces for i in self._piece_ids(piece))
        if not prompt.messages or not self._template.exists:
            prefix = self._bos() + prefix
        if not prefix:
            prefix = self._start_of_text(prompt)
        options = tuple(self._plain_cached(option, True) for option in prompt.options)
        return EncodedPrompt(prompt.name, prefix, options)

    def encode_all(
        self,
        prompts: Sequence[Prompt],
        limit: int,
        *,
        options: Literal["any", "letters", "texts"] = "any",
        room: int = 0,
        length: Length = longest,
    ) -> list[EncodedPrompt]:
        """Ids of questions that a model can answer.

        Args:
            limit: most tokens of a question with ``room`` tokens behind it.
            options: ``letters`` have one token each, ``texts`` one or more.
            length: tokens of a question.

        Raises:
            EngineError: a question is too long, or its options are others; names the prompt.
        """
        questions = [self.encode(prompt) for prompt in prompts]
        for question in questions:
            if (tokens := length(question) + room) > limit:
                raise EngineError(
                    f"prompt {question.name!r} has {tokens} tokens, the model takes {limit}: "
                    "shorten its history or its list."
                )
        if options != "any":
            for prompt, question in zip(prompts, questions, strict=True):
                self._check_options(prompt, question, letters=options == "letters")
        return questions

    def _check_options(self, prompt: Prompt, question: EncodedPrompt, *, letters: bool) -> None:
        check_options(prompt)
        for k, (text, tokens) in enumerate(zip(prompt.options, question.options, strict=True)):
            if letters and len(tokens) != 1:
                raise EngineError(
                    f"option {text!r} of prompt {prompt.name!r} is {len(tokens)} tokens "
                    f"({self._tokenizer.convert_ids_to_tokens(list(tokens))!r}) and must be one to "
                    "be read as a letter: use single letters A..Z, or ask for text_logprobs."
                )
            if not tokens:
                raise EngineError(
                    f"option {k} of prompt {prompt.name!r} ({text!r}) has no tokens: give every "
                    "option some text."
                )

    def _piece_ids(self, piece: Piece) -> tuple[int, ...]:
        if isinstance(piece, Data):
            return self._plain_cached(piece.text, not piece.starts_text)
        return self._marked_up_cached(piece)

    def _marked_up(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _plain(self, text: str, continues: bool) -> tuple[int, ...]:
        """Ids of text in which no special token is recognised."""
        if not text:
            return ()
        ids = self._raw(text, continues)
        if self._markup.keys().isdisjoint(ids):
            return ids
        ids = self._in_parts(_cut(text, self._markup.values()), continues)
        if self._markup.keys().isdisjoint(ids):
            return ids
        return self._in_parts(list(text), continues)

    def _in_parts(self, parts: Sequence[str], continues: bool) -> tuple[int, ...]:
        ids = [self._raw(part, continues or i > 0) for i, part in enumerate(parts)]
        return tuple(i for part in ids for i in part)

    def _raw(self, text: str, continues: bool) -> tuple[int, ...]:
        anchored = continues and bool(self._anchor)
        ids = self._tokenizer(
            _ANCHOR + text if anchored else text,
            add_special_tokens=False,
            split_special_tokens=True,
        )["input_ids"]
        return tuple(ids[len(self._anchor) :] if anchored else ids)

    def _anchor_ids(self) -> tuple[int, ...]:
        """Ids to cut off where a tokenizer puts a space before every text (SentencePiece): a text
        that continues another one is then encoded behind a line break."""
        alone, anchored, anchor = (self._marked_up(text) for text in ("A", _ANCHOR + "A", _ANCHOR))
        prefixes_space = anchored[: len(anchor)] == anchor and anchored[len(anchor) :] != alone
        return anchor if prefixes_space else ()

    def _bos(self) -> tuple[int, ...]:
        bos = self._tokenizer.bos_token_id
        ids = self._tokenizer("A")["input_ids"]
        return (bos,) if bos is not None and ids[:1] == [bos] else ()

    def _start_of_text(self, prompt: Prompt) -> tuple[int, ...]:
        for token in (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id):
            if token is not None:
                return (token,)
        raise EngineError(
            f"prompt {prompt.name!r} is empty and the tokenizer has no start-of-text token: "
            "give it a message or an answer prefix."
        )


def check_options(prompt: Prompt) -> None:
    """Whether there are any.

    Raises:
        EngineError: there are none; names the prompt.
    """
    if not prompt.options:
        raise EngineError(f"prompt {prompt.name!r} has no options: give it at least one.")


def _markup_tokens(tokenizer: Any) -> dict[int, str]:
    """Tokens that text from data must not produce, with their spelling: special ones, and added
    ones that look like markup (runs of spaces, say, do not)."""
    return {
        index: token.content
        for index, token in tokenizer.added_tokens_decoder.items()
        if token.special or (len(token.content) > 1 and _MARKUP.intersection(token.content))
    }


def _cut(text: str, spellings: Iterable[str]) -> list[str]:
    """The text cut after the first character of every markup token it spells."""
    parts = [text]
    for spelling in sorted((s for s in spellings if len(s) > 1), key=len, reverse=True):
        inside = f"(?<={re.escape(spelling[0])})(?={re.escape(spelling[1:])})"
        parts = [piece for part in parts for piece in re.split(inside, part)]
    return [part for part in parts if part]


@dataclass(frozen=True)
class Answer:
    """Raw answer to one question.

    Attributes:
        values: ``(K,)`` float64: letter logits, summed log-probabilities of texts, or scores of
            lines.
        computed: tokens that this question cost.
    """

    values: FloatArray
    computed: int


class Scorer(Protocol):
    """Scores the options of encoded questions, in order."""

    def letters(self, questions: Sequence[EncodedPrompt]) -> list[Answer]:
        """Logits of the options' single tokens behind each prefix."""
        ...

    def texts(self, questions: Sequence[EncodedPrompt]) -> list[Answer]:
        """Summed log-probabilities of the options' tokens behind each prefix."""
        ...

    def lines(self, questions: Sequence[EncodedPrompt], head: OptionHead) -> list[Answer]:
        """What the head reads at the last token of each option, the options standing one after
        another behind each prefix."""
        ...
