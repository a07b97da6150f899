"""A chat template as a list of pieces: its own markup, and the places where data goes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from usermirror_gym.engines.local.template_process import SECONDS, Unbounded, render
from usermirror_gym.errors import EngineError
from usermirror_gym.types import Message, Prompt

_OPEN, _CLOSE = "\ue0fd", "\ue0fe"
_SETTINGS = {"enable_thinking": False, "date_string": "26 Jul 2024"}
"""What templates are told, so that no thinking block is opened and no date changes the tokens."""


@dataclass(frozen=True, slots=True)
class Data:
    """Text from data, to be encoded without recognising markup."""

    text: str
    starts_text: bool = False


Piece = str | Data


class ChatTemplate:
    """Renders messages with a tokenizer's own chat template, contents left out.

    The template is rendered once per sequence of roles, with a mark in place of each content.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.exists = bool(getattr(tokenizer, "chat_template", None))
        self._skeleton_cached = lru_cache(1024)(self._skeleton)
        self._folds_system = self.exists and not self._keeps("system", "user")
        self._strips = self.exists and not self._keeps_spaces()

    def render(self, prompt: Prompt) -> list[Piece]:
        """Pieces up to and including the opened assistant turn.

        Raises:
            EngineError: the template refuses this sequence of roles, or does not end.
        """
        if not self.exists:
            return _plain_dialogue(prompt.messages)
        messages = _fold_system(prompt.messages) if self._folds_system else prompt.messages
        try:
            skeleton = self._skeleton_cached(tuple((m.role, bool(m.content)) for m in messages))
        except EngineError:
            raise
        except Exception as error:  # of the template, or of a tokenizer without one
            roles = ", ".join(m.role for m in messages)
            raise EngineError(
                f"the chat template of the model refuses prompt {prompt.name!r} "
                f"(roles: {roles}): {error}"
            ) from error
        return [self._fill(part, messages) for part in skeleton]

    def _fill(self, part: str | int, messages: tuple[Message, ...]) -> Piece:
        if isinstance(part, str):
            return part
        content = messages[part].content
        return Data(content.strip() if self._strips else content)

    def _skeleton(self, roles: tuple[tuple[str, bool], ...]) -> tuple[str | int, ...]:
        """Markup as text, contents as indices of messages."""
        marks = [f"{_OPEN}{i}{_CLOSE}" if filled else "" for i, (_, filled) in enumerate(roles)]
        text = self._apply([(role, mark) for (role, _), mark in zip(roles, marks, strict=True)])
        parts: list[str | int] = []
        for chunk in text.split(_OPEN):
            mark, closed, rest = chunk.partition(_CLOSE)
            if closed:
                parts.append(int(mark))
            parts.append(rest if closed else mark)
        missing = {i for i, (_, filled) in enumerate(roles) if filled} - set(parts)
        if missing:
            raise ValueError(f"it leaves out the contents of message {sorted(missing)}")
        return tuple(part for part in parts if part != "")

    def _apply(self, messages: list[tuple[str, str]]) -> str:
        from transformers import PreTrainedTokenizerBase

        chat = [{"role": role, "content": content} for role, content in messages]
        settings = {"add_generation_prompt": True, **_SETTINGS}
        own = type(self._tokenizer).apply_chat_template
        if own is not PreTrainedTokenizerBase.apply_chat_template:  # one that is no program
            return self._tokenizer.apply_chat_template(chat, tokenize=False, **settings)
        template = self._tokenizer.get_chat_template()
        settings |= {"conversations": [chat], "chat_template": template}
        try:
            return render(self._tokenizer.special_tokens_map | settings)
        except Unbounded:
            raise EngineError(
                f"the chat template of the model ({template[:80]!r} ...) does not end within "
                f"{SECONDS:g} s and reasonable memory: its files are foreign or damaged. Use "
                "another checkpoint, or put an honest template into its chat_template.jinja."
            ) from None

    def _keeps(self, *roles: str) -> bool:
        try:
            self._skeleton_cached(tuple((role, True) for role in roles))
        except EngineError:
            raise
        except Exception:
            return False
        return True

    def _keeps_spaces(self) -> bool:
        try:
            return f"  {_OPEN}  " in self._apply([("user", f"  {_OPEN}  ")])
        except EngineError:
            raise
        except Exception:
            return True


def _fold_system(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The system text put in front of the first user message."""
    system = [m.content for m in messages if m.role == "system"]
    rest = [m for m in messages if m.role != "system"]
    if not system:
        return messages
    if not rest or rest[0].role != "user":
        return (Message("user", "\n\n".join(system)), *rest)
    first = replace(rest[0], content="\n\n".join([*system, rest[0].content]))
    return (first, *rest[1:])


def _plain_dialogue(messages: tuple[Message, ...]) -> list[Piece]:
    """Contents joined by blank lines, for models without a chat template."""
    texts = [text for message in messages for text in (message.content, "\n\n")]
    return [Data(text, starts_text=i == 0) for i, text in enumerate(texts)]
