"""What comes from somebody else, made harmless before it is used.

People pass checkpoints, agents, run folders and data around.  Whoever reads JSON, YAML or a name
that may be foreign, or shows a foreign text, goes through these functions; SECURITY.md says what
they promise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import markupsafe
import yaml

MAX_DEPTH = 64
"""Levels of lists and mappings within one another."""
MAX_YAML_VALUES = 1_000_000
"""Values of a YAML file, those that stand for others (``*name``) counted where they stand."""
MASK = "***"
"""What stands in place of a secret."""


def parse_json(text: str | bytes) -> Any:
    """The content of a JSON text.

    Raises:
        ValueError: it is no JSON, or nested deeper than :data:`MAX_DEPTH`.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    _check_depth(content)
    return content


def parse_yaml(text: str) -> Any:
    """The content of a YAML text: plain values only, no objects of Python.

    Raises:
        ValueError: it is no YAML, nested deeper than :data:`MAX_DEPTH`, a value is part of itself,
            or values that stand for others make more than :data:`MAX_YAML_VALUES` of them.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _count(node, 0, {}, set())
        return None if node is None else loader.construct_document(node)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except (LookupError, AttributeError, TypeError, ArithmeticError) as error:
        # PyYAML's own, for tags such as !!bool before something that is none.
        raise ValueError(f"a value is not of the kind that its tag says: {error!r}") from error


def _too_deep() -> str:
    return f"lists and mappings are nested deeper than {MAX_DEPTH} levels"


def _check_depth(content: Any) -> None:
    level = [content]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError(_too_deep())


def _count(
    node: yaml.Node | None, depth: int, known: dict[int, tuple[int, int]], above: set[int]
) -> tuple[int, int]:
    """Values and levels of a tree in which nodes may stand at several places."""
    if not isinstance(node, yaml.CollectionNode):
        if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and len(node.value) > 400:
            raise ValueError(f"a number of {len(node.value):,} characters")  # 1:1:1 takes minutes
        return 1, 0
    if id(node) in above:
        raise ValueError(f"a value is part of itself (line {node.start_mark.line + 1})")
    if depth > MAX_DEPTH:
        raise ValueError(_too_deep())
    if id(node) not in known:
        inner = [part for one in node.value for part in (one if isinstance(one, tuple) else (one,))]
        parts = [_count(one, depth + 1, known, above | {id(node)}) for one in inner]
        total, levels = 1 + sum(n for n, _ in parts), 1 + max((d for _, d in parts), default=0)
        if total > MAX_YAML_VALUES:
            raise ValueError(f"it has more than {MAX_YAML_VALUES:,} values")
        known[id(node)] = total, levels
    if depth + known[id(node)][1] > MAX_DEPTH + 1:
        raise ValueError(_too_deep())
    return known[id(node)]


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def file_name(name: str) -> bool:
    """Whether a file or folder beside others can be called so: it is no path, can be printed, and
    is short enough for every file system."""
    printable = bool(name) and name.isprintable() and len(name.encode()) <= 200
    return printable and Path(name).name == name and name[0] not in ".~" and "\\" not in name


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Codes that terminals obey, those that turn the direction of writing, and what is no character;
not tab and newline."""


def for_terminal(text: object) -> str:
    """A text whose control characters are spelled out (``\\x1b``) and no terminal obeys."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def for_html(text: object) -> str:
    """A text whose markup is shown and no browser obeys; what is known to be HTML stays."""
    known = hasattr(text, "__html__")
    return str(markupsafe.escape(text if known else for_terminal(text)))


_KEY = r"(?:api|access|private|secret|auth|signing|client)[_-]?(?:key|secret)(?:[_-]?id)?"
_TOKEN = r"(?:auth|access|api|bearer|refresh|hub|hf|session)[_-]?token(?:[_-]?value)?"
_WORDS = r"secret|password|passwd|passphrase|pwd|bearer|credentials?|cookie|jwt"
_SECRET_NAME = re.compile(
    rf"(?:^|[_\W])(?:{_KEY}|{_TOKEN}|{_WORDS}|auth(?:orization)?(?:[_-]?(?:header|value))?)s?$"
    r"|^(?:key|token)$",
    re.IGNORECASE,
)
"""Not ``sort_key``, ``eos_token`` or ``max_tokens``."""
_PLACE = re.compile(
    r"^(?:dataset|data_folder|agents?|simulator|eval_simulator|checkpoint|teacher|folder|recipe|"
    r"scenes|sources?|base|adapter|head|models?|label|name)$"
)
"""What names files and models is read back, and stays but for logins and queries of addresses."""
_HOST_NAME = re.compile(r"(url|address|host|endpoint|proxy)s?$", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_IN_TEXT = re.compile(
    rf"""((?:{_KEY}|{_TOKEN}|\btoken|secret|password|passwd|passphrase|pwd|\b[A-Z]+_KEY)["']?"""
    r"""\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s,;'"{}()\[\]]+)""",
    re.IGNORECASE,
)
"""A secret that is named in a text: a line of a command, of a file, of an error."""
_HEADER = re.compile(
    r"""((?:authorization|cookie)["']?\s*[=:,]\s*["']?)[^\r\n"']+""", re.IGNORECASE
)
_SECRET_VALUE = re.compile(
    r"\b(?:[Bb]earer|Basic|Token|ApiKey)\s+(?=\S*[\d=+/_-])\S{8,}"
    r"|\bsk-(?=[\w-]*\d)[\w-]{20,}|\bgsk_\w{20,}|\bhf_[A-Za-z0-9]{30,}|\bgh[pousr]_\w{30,}"
    r"|\bgithub_pat_\w{20,}|\bxox[abprs]-[\w-]{10,}|\bAIza[\w-]{30,}|\bAKIA[A-Z0-9]{16}"
    r"|\bnvapi-[\w-]{20,}|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+"
)
# Lengths are bounded: a text is anybody's, and must not take long.
_LOGIN = re.compile(
    r"(?<=://)(?:[^\s/?#@]{0,300}|[^\s/:@,]{1,300}:(?!\d{1,5}[/,\s])[^\s@]{0,300})@"
    r"(?:[^\s?#@,]{0,300}@)*"
)
"""What stands before the host of an address; passwords may hold what must not stand in one."""
_QUERY = re.compile(
    r"(\b[a-z][a-z0-9+.-]{0,30}://[^\s?#'\"<>]{0,500})\?[^\s'\"<>,]+", re.IGNORECASE
)


def masked(value: Any, name: str = "") -> Any:
    """Settings as they may be written down: without passwords in addresses, keys and tokens.

    A secret is what is called one (``api_key``, ``token``, ``Authorization`` ...), what looks like
    one (``Bearer ...``, ``sk-...``), and the user, password and query of an address.  Secrets
    become ``***``; all else stays.

    Args:
        value: plain types.
        name: what the value is called.
    """
    secret = bool(_SECRET_NAME.search(_CAMEL.sub("_", name)))
    if isinstance(value, Mapping):
        return {key: masked(inner, name if secret else str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        pair = len(value) == 2 and isinstance(value[0], str) and _SECRET_NAME.search(value[0])
        if pair:  # of a header, say
            return type(value)((value[0], MASK))
        return type(value)(masked(inner, name) for inner in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return MASK if secret else value
    if not isinstance(value, str) or not value:
        return value
    if secret:
        return MASK
    if "@" in value and "://" not in value and _HOST_NAME.search(name):
        return f"{MASK}@{value.rpartition('@')[2]}"
    value = _QUERY.sub(rf"\1?{MASK}", _LOGIN.sub(f"{MASK}@", value))
    if _PLACE.search(name):
        return value
    value = _HEADER.sub(rf"\1{MASK}", value)
    return _SECRET_VALUE.sub(MASK, _IN_TEXT.sub(rf"\1{MASK}", value))
