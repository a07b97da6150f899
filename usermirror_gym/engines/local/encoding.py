"""Prompt -> token ids.

Pieces of the chat template keep their special tokens; everything that comes from data (message
contents, the answer prefix, the options) is encoded as plain text, even where it spells a special
token.  Each piece is encoded on its own, so a prompt that grows at its end keeps its old ids as a
prefix wherever the tokenizer allows it, which is what the KV cache lives on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

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
        pieces = self._pieces(prompt)
        prefix = tuple(i for piece in pieces for i in self._piece_ids(piece))
        if not prompt.messages or not self._template.exists:
            prefix = self._bos() + prefix
        if not prefix:
            prefix = self._start_of_text(prompt)
        options = tuple(self._plain_cached(option, True) for option in prompt.options)
        return EncodedPrompt(prompt.name, prefix, options)

    def describe(self, ids: Sequence[int]) -> str:
        """The tokens in a form for error messages."""
        return repr(self._tokenizer.convert_ids_to_tokens(list(ids)))

    def _pieces(self, prompt: Prompt) -> list[Piece]:
        if not prompt.messages:
            return [Data(prompt.answer_prefix, starts_text=True)]
        pieces = self._template.render(prompt)
        return [*pieces, Data(prompt.answer_prefix)]

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
        if self._markup.isdisjoint(ids):
            return ids
        ids = self._in_parts(_cut(text, self._markup.values()), continues)
        if self._markup.isdisjoint(ids):
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
        alone, anchored, anchor = (
            tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])
            for text in ("A", _ANCHOR + "A", _ANCHOR)
        )
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


class _Markup(dict[int, str]):
    """Ids of the tokens that text from data must not produce, with their spelling."""

    def isdisjoint(self, ids: Sequence[int]) -> bool:
        return self.keys().isdisjoint(ids)


def _markup_tokens(tokenizer: Any) -> _Markup:
    """Special tokens, and added ones that look like markup (runs of spaces, say, do not)."""
    return _Markup(
        (index, token.content)
        for index, token in tokenizer.added_tokens_decoder.items()
        if token.special or (len(token.content) > 1 and _MARKUP.intersection(token.content))
    )


def _cut(text: str, spellings: Iterable[str]) -> list[str]:
    """The text cut after the first character of every markup token it spells."""
    parts = [text]
    for spelling in sorted((s for s in spellings if len(s) > 1), key=len, reverse=True):
        parts = [piece for part in parts for piece in _cut_one(part, spelling)]
    return [part for part in parts if part]


def _cut_one(text: str, spelling: str) -> list[str]:
    first, *rest = text.split(spelling)
    out = [first]
    for chunk in rest:
        out[-1] += spelling[0]
        out.append(spelling[1:] + chunk)
    return out


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
