"""Folders of simulators and of weights: settings, code, pickles, templates, adapters."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch

from tests.conftest import build_split
from tests.engines.conftest import CHATML, build_model, build_tokenizer
from tests.hostile.case import Case, Place
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.engines.local import template_process
from usermirror_gym.engines.local.encoding import PromptEncoder
from usermirror_gym.engines.local.model_loading import load_tokenizer
from usermirror_gym.simulators import make_simulator
from usermirror_gym.types import Message, Prompt


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
    Case("simulator.yaml: a bomb", says(BOMB), made, "cannot read .* values"),
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


@cache
def _tiny() -> Path:
    folder = Path(mkdtemp())
    build_model("llama").save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def weights(change: Callable[[Place], object]) -> Callable[[Place], None]:
    """A checkpoint that is honest but for the change."""

    def write(place: Place) -> None:
        shutil.copytree(_tiny(), place.folder, dirs_exist_ok=True)
        change(place)

    return write


def says_too(name: str, **values: Any) -> Callable[[Place], None]:
    """A JSON file with further values; MARKER stands for the path of the marker."""

    def change(place: Place) -> None:
        path = place.folder / name
        content = json.loads(path.read_text()) if path.is_file() else {}
        text = json.dumps(content | values).replace("MARKER", str(place.marker))
        path.write_text(text)

    return change


def with_code(name: str, **values: Any) -> Callable[[Place], None]:
    def change(place: Place) -> None:
        (place.folder / "evil.py").write_text(place.code)
        says_too(name, **values)(place)

    return change


def pickled_weights(place: Place) -> None:
    (place.folder / "model.safetensors").unlink()
    torch.save(build_model("llama").state_dict(), place.folder / "pytorch_model.bin")


def index_of_pickles(place: Place) -> None:
    (place.folder / "model.safetensors").rename(place.folder / "pytorch_model.bin")
    names = {"model.embed_tokens.weight": "pytorch_model.bin"}
    index = {"metadata": {}, "weight_map": names}
    (place.folder / "model.safetensors.index.json").write_text(json.dumps(index))


def loaded(place: Place) -> None:
    load_engine(place.folder, "transformers", device="cpu").load()  # type: ignore[attr-defined]


WEIGHTS = [
    Case(
        "config.json: auto_map",
        weights(
            with_code(
                "config.json", model_type="evil", auto_map={"AutoConfig": "evil.E",
                "AutoModelForCausalLM": "evil.M"},
            )
        ),
        loaded,
        "brings code of its own .*not run here",
    ),
    Case(
        "tokenizer_config.json: auto_map",
        weights(
            with_code(
                "tokenizer_config.json", tokenizer_class="EvilTokenizer",
                auto_map={"AutoTokenizer": ["evil.E", "evil.F"]},
            )
        ),
        lambda place: load_tokenizer(place.folder),
        "brings code of its own .*not run here",
    ),
    Case("weights: a pickle", weights(pickled_weights), loaded, "safetensors weights"),
    Case("weights: an index of pickles", weights(index_of_pickles), loaded, "names the weights"),
    Case(
        "config.json: an adapter's pickle as weights",
        weights(says_too("config.json", transformers_weights="adapter_model.bin")),
        loaded,
        "names the weights",
    ),
    Case(
        "config.json: kernels of the hub",
        weights(says_too("config.json", attn_implementation="nobody/kernel")),
        loaded,
        "names a program",
    ),
    Case(
        "weights: an adapter beside them names others",
        weights(says_too("adapter_config.json", base_model_name_or_path="MARKER")),
        loaded,
        "an adapter lies beside",
    ),
]  # fmt: skip


def adapter(**values: Any) -> Callable[[Place], None]:
    """An adapter that is honest but for some values."""

    def write(place: Place) -> None:
        import peft

        settings = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
        peft.get_peft_model(build_model("llama"), settings).save_pretrained(
            place.folder, save_embedding_layers=False
        )
        says_too("adapter_config.json", **values)(place)

    return write


def adapted(place: Place) -> bool:
    begin = time.perf_counter()
    load_engine(_tiny(), "transformers", device="cpu", adapter=place.folder).load()  # type: ignore[attr-defined]
    return time.perf_counter() - begin < 20


ADAPTERS = [
    Case(
        f"adapter: {values}"[:60],
        adapter(**values),
        adapted,
        "and only plain LoRA|not tell the rank",
    )
    for values in (
        {"megatron_config": {"a": 1}, "megatron_core": "evil"},
        {"peft_type": "PROMPT_TUNING", "tokenizer_kwargs": {"trust_remote_code": True}},
        {"peft_type": "XLORA", "adapters": {"0": "nobody/adapter"}},
        {"target_modules": r"([\w.]+)+!"},
        {"rank_pattern": {r"([\w.]+)+!": 2}},
        {"layers_pattern": r"(\w+)+!"},
        {"init_lora_weights": "pissa"},
        {"r": 10**9},
    )
] + [
    Case(
        "adapter: its base is not followed",
        adapter(base_model_name_or_path="MARKER", auto_mapping={"parent_library": "evil"}),
        adapted,
        gives=lambda _, quick: quick,
    )
]


def template(text: str) -> Callable[[Place], None]:
    return weights(lambda place: (place.folder / "chat_template.jinja").write_text(text))


def rendered(place: Place) -> tuple[str, bool]:
    """The text of a question, and whether it came soon."""
    begin = time.perf_counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(template_process, "SECONDS", 1.0)
        try:
            tokenizer = load_tokenizer(place.folder)
            question = PromptEncoder(tokenizer).encode(
                Prompt((Message("user", "hi"),), "", (), "p")
            )
        finally:
            assert time.perf_counter() - begin < 20
    return tokenizer.decode(question.prefix), True


LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}BODY{% endfor %}{% endfor %}"
TEMPLATES = [
    Case(f"chat template: {name}", template(text), rendered, "chat template of the model")
    for name, text in {
        "a large range": "{% for i in range(10**9) %}x{% endfor %}",
        "loops that write": LOOP.replace("BODY", "x"),
        "loops that write nothing": LOOP.replace("BODY", ""),
        "a long text": "{{ 'x' * 10**10 }}",
        "a large number": "{{ 10**10**9 }}",
        "doubled": "{% set n = namespace(x='xx') %}{% for i in range(60) %}"
        "{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
        "a wide field": "{{ '%9999999999d' % 1 }}",
    }.items()
] + [
    Case(
        "chat template: an honest one after all those",
        template(CHATML),
        rendered,
        gives=lambda _, found: (
            found[0] == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        ),
    )
]

CASES: list[Case] = [*SETTINGS, *WEIGHTS, *ADAPTERS, *TEMPLATES]
