"""Training files in the conversational forms of TRL: preference pairs, and two kinds of SFT rows.

    preference   {"prompt": [messages], "chosen": [answer], "rejected": [answer], ...}
    SFT          {"prompt": [messages], "completion": [answer], ...}

An answer is one assistant message: a rationale, then the answer line with its letter.  *Direct*
SFT rows have the answer line alone.  ``datasets.load_dataset("json", data_files=...)`` reads the
files and ``trl.DPOTrainer`` / ``trl.SFTTrainer`` take them as they are; the further columns
(scene_id, dataset ...) are for filtering and are ignored by both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from usermirror_gym.errors import ConfigError, DataError
from usermirror_gym.files import write_jsonl, write_parquet
from usermirror_gym.scenes.words.prompt import ANSWER_PREFIX
from usermirror_gym.scenes.words.rationale_prompt import answer
from usermirror_gym.types import Prompt

Row = dict[str, Any]
Rationales = Mapping[str, Mapping[str, Sequence[str | None]]]
"""Role (``"weak"``, ``"strong"``) -> scene id -> the rationales, ``None`` where one is missing."""

_ABOUT_SCENE = ("scene_id", "dataset", "domain", "kind")
_ABOUT_PAIR = ("list_size", "difficulty", "rejected_by", "chosen_entropy", "rejected_entropy")


def preference_rows(
    scenes: pa.Table,
    selection: pa.Table,
    *,
    prompts: Mapping[str, Prompt],
    rationales: Rationales,
) -> Iterator[Row]:
    """One pair per kept scene, in the order of the selection.

    Args:
        scenes: rows of :data:`usermirror_gym.scenes.table.SCHEMA`, the kept ones at least.
        selection: rows of :data:`usermirror_gym.corpus.selection.select.SCHEMA`.
        prompts: by scene id, the question that the rationales answer; its options are the letters.
        rationales: what :class:`Predictions` were read from.

    Raises:
        DataError: the four do not fit; names the scene.
    """
    for scene, pair in _kept(scenes, selection):
        prompt = _prompt(prompts, scene)
        chosen, rejected = (_side(name, scene, pair, prompt, rationales) for name in _SIDES)
        yield {
            "prompt": _messages(prompt),
            "chosen": chosen,
            "rejected": rejected,
            **{name: scene[name] for name in _ABOUT_SCENE},
            **{name: pair[name] for name in _ABOUT_PAIR},
        }


def sft_rows(
    scenes: pa.Table,
    selection: pa.Table,
    *,
    prompts: Mapping[str, Prompt],
    rationales: Rationales,
) -> Iterator[Row]:
    """The chosen answer of each kept scene; arguments as :func:`preference_rows`."""
    for row in preference_rows(scenes, selection, prompts=prompts, rationales=rationales):
        about = {name: row[name] for name in (*_ABOUT_SCENE, "list_size", "difficulty")}
        yield {"prompt": row["prompt"], "completion": row["chosen"], **about}


def direct_rows(scenes: pa.Table, *, prompts: Mapping[str, Prompt]) -> Iterator[Row]:
    """The right letter, without reasons, for every scene whose choice is known.

    Args:
        scenes: rows of :data:`usermirror_gym.scenes.table.SCHEMA`.
        prompts: by scene id, the question that one letter answers.

    Raises:
        DataError: a scene has no prompt, or its target is not among the prompt's options.
    """
    for scene in scenes.select([*_ABOUT_SCENE, "target", "slate"]).to_pylist():
        if scene["target"] is None:
            continue
        prompt = _prompt(prompts, scene)
        line = f"{ANSWER_PREFIX}{_letter(prompt, scene['target'], scene)}]"
        yield {
            "prompt": _messages(prompt),
            "completion": [{"role": "assistant", "content": line}],
            **{name: scene[name] for name in _ABOUT_SCENE},
            "list_size": len(scene["slate"]),
        }


def write_rows(path: Path, rows: Iterable[Row]) -> Path:
    """Write ``.jsonl`` or ``.parquet``, by the name; the old file or the whole new one, never less.

    Raises:
        ConfigError: another ending.
        DataError: no rows, which no reader could tell the columns of.
    """
    if path.suffix not in (".jsonl", ".parquet"):
        raise ConfigError(f"training files end in .jsonl or .parquet, got {path.name!r}")
    rows = list(rows)
    if not rows:
        raise DataError(f"there is no row to write to {path}: no scene was kept")
    if path.suffix == ".jsonl":
        return write_jsonl(path, rows)
    return write_parquet(path, pa.Table.from_pylist(rows))


_SIDES = ("chosen", "rejected")


def _kept(scenes: pa.Table, selection: pa.Table) -> Iterator[tuple[Row, Row]]:
    """Kept scenes with their rows of the selection."""
    known = {row["scene_id"]: row for row in scenes.select([*_ABOUT_SCENE, "target"]).to_pylist()}
    for pair in selection.filter(selection["kept"]).to_pylist():
        scene = known.get(pair["scene_id"])
        if scene is None:
            raise DataError(
                f"scene {pair['scene_id']!r} was selected, but is not among the {len(known)} "
                "scenes given; give the scenes that the selection was made from"
            )
        if not pair["chosen_option"] == scene["target"] != pair["rejected_option"]:
            raise DataError(
                f"scene {scene['scene_id']!r}: option {scene['target']} is the true one, but the "
                f"selection chose {pair['chosen_option']} and rejected "
                f"{pair['rejected_option']}; it was made from other scenes. Select again."
            )
        yield scene, pair


def _side(side: str, scene: Row, pair: Row, prompt: Prompt, rationales: Rationales) -> list[Row]:
    """The chosen or the rejected answer as messages."""
    role = "strong" if side == "chosen" else pair["rejected_by"]
    texts = rationales.get(role, {}).get(scene["scene_id"], ())
    number = pair[side]
    text = texts[number] if 0 <= number < len(texts) else None
    if not text:
        raise DataError(
            f"scene {scene['scene_id']!r} was selected with {role} rationale {number} (counted "
            f"from 0), which is missing: there are {len(texts)}. Select again."
        )
    if ANSWER_PREFIX in text:
        raise DataError(
            f"scene {scene['scene_id']!r}, {role} rationale {number}: it holds an answer line "
            f"({ANSWER_PREFIX!r}) of its own; end rationales before it"
        )
    letter = _letter(prompt, pair[f"{side}_option"], scene)
    return [{"role": "assistant", "content": answer(_encodable(text), letter)}]


def _letter(prompt: Prompt, option: int, scene: Row) -> str:
    if not 0 <= option < len(prompt.options):
        raise DataError(
            f"scene {scene['scene_id']!r} needs option {option} (counted from 0), but its prompt "
            f"has {len(prompt.options)}; *none of these* needs PromptConfig(outside_option=True)"
        )
    return prompt.options[option]


def _prompt(prompts: Mapping[str, Prompt], scene: Row) -> Prompt:
    if scene["scene_id"] not in prompts:
        raise DataError(f"there is no prompt for scene {scene['scene_id']!r}")
    return prompts[scene["scene_id"]]


def _messages(prompt: Prompt) -> list[Row]:
    return [{"role": m.role, "content": _encodable(m.content)} for m in prompt.messages]


def _encodable(text: str) -> str:
    """Lone surrogates, which no file can hold, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
