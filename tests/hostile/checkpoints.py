"""Folders of simulators and of weights: settings, code, pickles, templates, adapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.conftest import build_split
from tests.hostile.case import Case, Place
from usermirror_gym.simulators import make_simulator


def says(text: str) -> Callable[[Place], object]:
    """A simulator.yaml with these lines; MARKER stands for the path of the marker."""

    def write(place: Place) -> None:
        text_here = text.replace("MARKER", str(place.marker))
        (place.folder / "simulator.yaml").write_text(f"format: 1\n{text_here}")

    return write


def made(place: Place, **options: Any) -> Any:
    return make_simulator(str(place.folder), build_split(), **options)


def refused_setting(lines: str, name: str, **options: Any) -> Case:
    return Case(
        f"simulator.yaml: {lines}"[:70],
        says(lines if "checkpoint" in lines else f"checkpoint: a/b\n{lines}"),
        lambda place: made(place, **options),
        rf"simulator\.yaml sets {name} = .*--set",
    )


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefg", "bcdefgh", strict=True)
)

SETTINGS = [
    refused_setting("checkpoint: openai:gpt-4o", "checkpoint"),
    refused_setting("checkpoint: /etc", "checkpoint"),
    refused_setting("checkpoint: ~/secret", "checkpoint"),
    refused_setting("checkpoint: ../other", "checkpoint"),
    refused_setting("checkpoint: a/..", "checkpoint"),
    refused_setting("checkpoint: mine.gguf", "checkpoint"),
    refused_setting("checkpoint: ''", "checkpoint"),
    refused_setting("checkpoint: openai:m\nreadout: surrogate", "checkpoint", readout="letters"),
    refused_setting("answers: MARKER", "answers"),
    refused_setting("answers: default", "answers"),
    refused_setting("engine: {kind: server}", r"engine\.kind"),
    refused_setting("engine: {base_url: 'http://127.0.0.1:9/v1'}", r"engine\.base_url"),
    refused_setting("engine: {key_variable: HOME}", r"engine\.key_variable"),
    refused_setting("engine: {extra_body: {user: me}}", r"engine\.extra_body"),
    refused_setting("engine: {tokenizer: /etc}", r"engine\.tokenizer"),
    refused_setting("engine: {adapter: /etc}", r"engine\.adapter"),
    refused_setting("engine: {head: /etc}", r"engine\.head"),
    refused_setting("engine: {options: {trust_remote_code: true}}", r"engine\.options"),
    refused_setting("engine: {dtype: [float32]}", r"engine\.dtype"),
    refused_setting("engine: [1]", "engine"),
    Case("simulator.yaml: adapter", says("checkpoint: a/b\nadapter: /etc\n"), made, "follows from"),
    Case("simulator.yaml: head", says("checkpoint: a/b\nhead: /etc\n"), made, "follows from"),
    Case("simulator.yaml: a bomb", says(BOMB), made, "cannot read .* values"),
    Case(
        "simulator.yaml: an object",
        says("checkpoint: !!python/object/apply:os.mkdir ['MARKER']\n"),
        made,
        "cannot read",
    ),
    Case(
        "simulator.yaml: what may be said",
        says("checkpoint: a/b\nengine: {kind: transformers, dtype: bfloat16, device: cpu}\n"),
        made,
        gives=lambda _, found: found.engine.model_id == "a/b/bfloat16",
    ),
    Case(
        "simulator.yaml: the caller's word counts",
        says("checkpoint: /foreign\nengine: {kind: server}\n"),
        lambda place: made(place, checkpoint="a/b", engine={"dtype": "float16"}),
        gives=lambda _, found: found.engine.model_id == "a/b/float16",
    ),
]

CASES: list[Case] = [*SETTINGS]
