"""What other runtimes and precisions would make of the default engine's forward pass on a CPU.

    pip install onnx onnxscript onnxruntime openvino          # optional: their rows need them
    python benchmarks/cpu_options.py
    python benchmarks/cpu_options.py --prompts 8 --only plain packed int8

The same real prompts (sessions on ml-100k, letters readout), one a pass and nothing shared, so that
only the arithmetic differs.  Every option computes the hidden state of the last token; the letters'
rows of the head are applied in float32.  ``x plain`` is tokens per second over those of
transformers as loaded, in the same run; ``max |dp|`` the largest change of a choice probability.
Each option is timed in two rounds, forwards and backwards through the list, and the faster counts.
``docs/engines.md`` says what follows from the table.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from throughput.patterns import build_patterns

from usermirror_gym.engines import DEFAULT_CHECKPOINT, resolve_checkpoint
from usermirror_gym.engines.local.encoding import PromptEncoder
from usermirror_gym.engines.local.head import pack
from usermirror_gym.engines.local.model_loading import load_model, load_tokenizer

State = Callable[[list[int]], torch.Tensor]
"""Tokens to the hidden state of the last one, float32 ``(hidden,)``."""


@dataclass
class Questions:
    """Token sequences, and the letters that each asks for."""

    rows: list[list[int]]
    letters: list[list[int]]


class Body(torch.nn.Module):
    """A model without its head: ``(1, T)`` token ids to the last hidden state."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.body = model.base_model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """``(1, T) -> (1, hidden)``."""
        return self.body(ids, use_cache=False).last_hidden_state[:, -1]


def _load(dtype: torch.dtype = torch.float32) -> Any:
    path = resolve_checkpoint(DEFAULT_CHECKPOINT)
    return load_model(path, dtype, torch.device("cpu")).eval()


def _torch(body: Callable[[torch.Tensor], torch.Tensor]) -> State:
    def state(ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            return body(torch.tensor([ids]))[0].float()

    return state


def plain(folder: Path) -> State:
    """As transformers loads it, float32."""
    return _torch(Body(_load()))


def packed(folder: Path) -> State:
    """The weights laid out once (what the engine does)."""
    model = _load()
    if not pack(model):
        raise RuntimeError("the layers could not be packed")
    return _torch(Body(model))


def bfloat16(folder: Path) -> State:
    """Weights and activations in bfloat16."""
    return _torch(Body(_load(torch.bfloat16)))


def int8(folder: Path) -> State:
    """Dynamic int8 of torch: weights per channel, activations per tensor."""
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    config: Any = {torch.nn.Linear: per_channel_dynamic_qconfig}
    body = Body(quantize_dynamic(_load(), config))
    return _torch(body)


def compiled(folder: Path) -> State:
    """torch.compile with frozen weights; one compilation for all lengths."""
    torch._inductor.config.freezing = True
    with torch.inference_mode():
        return _torch(torch.compile(Body(_load()), dynamic=True))


def _exported(folder: Path) -> Path:
    path = folder / "body.onnx"
    if not path.is_file():
        length = torch.export.Dim("length", min=2, max=4096)
        torch.onnx.export(
            Body(_load()), (torch.ones(1, 64, dtype=torch.long),), str(path), dynamo=True,
            input_names=["ids"], dynamic_shapes={"ids": {1: length}}, verbose=False,
        )  # fmt: skip
    return path


def _onnxruntime(path: Path) -> State:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda ids: torch.from_numpy(session.run(None, {"ids": np.array([ids])})[0][0])


def onnx(folder: Path) -> State:
    """ONNX Runtime, float32."""
    return _onnxruntime(_exported(folder))


def onnx_int8(folder: Path) -> State:
    """ONNX Runtime, dynamic int8: weights per channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    small = folder / "int8.onnx"
    quantize_dynamic(
        _exported(folder), small, weight_type=QuantType.QInt8, per_channel=True,
        op_types_to_quantize=["MatMul"],
    )  # fmt: skip
    return _onnxruntime(small)


def _openvino(folder: Path, precision: str) -> State:
    import openvino

    core = openvino.Core()
    model = core.read_model(_exported(folder))
    settings = {
        "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }  # fmt: skip
    run = core.compile_model(model, "CPU", settings)
    return lambda ids: torch.from_numpy(run([np.array([ids])])[0][0].astype(np.float32))


def openvino_f32(folder: Path) -> State:
    """OpenVINO, float32."""
    return _openvino(folder, "f32")


def openvino_bf16(folder: Path) -> State:
    """OpenVINO, bfloat16."""
    return _openvino(folder, "bf16")


OPTIONS = {
    f.__name__: f
    for f in (plain, packed, compiled, onnx, openvino_f32, bfloat16, openvino_bf16, int8, onnx_int8)
}


def real_questions(count: int) -> Questions:
    """Letters questions of different users."""
    (pattern,) = build_patterns(["unrelated"], count, 5, 0)
    encoder = PromptEncoder(load_tokenizer(resolve_checkpoint(DEFAULT_CHECKPOINT)))
    found = [encoder.encode(q.letters) for q in pattern.questions]
    return Questions([list(q.prefix) for q in found], [[o[0] for o in q.options] for q in found])


def ask(state: State, questions: Questions, head: torch.Tensor) -> tuple[float, np.ndarray]:
    """(seconds, probabilities)."""
    begin = time.perf_counter()
    found = [
        (head[at] @ state(ids)).double().softmax(0).numpy()
        for ids, at in zip(questions.rows, questions.letters, strict=True)
    ]
    return time.perf_counter() - begin, np.array(found)


def measure(names: list[str], questions: Questions) -> list[dict[str, Any]]:
    """One row an option."""
    head = _load().get_output_embeddings().weight.detach().float()
    states: dict[str, State] = {}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            try:
                states[name] = OPTIONS[name](Path(folder))
                ask(states[name], Questions(questions.rows[:3], questions.letters[:3]), head)
            except Exception as error:  # an option that cannot run here is a row, not the end
                failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                states.pop(name, None)
        order = [*states, *reversed(states)]
        rounds: dict[str, list[tuple[float, np.ndarray]]] = {name: [] for name in states}
        for name in order:
            rounds[name].append(ask(states[name], questions, head))
    return [_row(n, rounds.get(n), failed.get(n), rounds["plain"], questions) for n in names]


def _row(
    name: str, own: Any, failure: str | None, plain: Any, questions: Questions
) -> dict[str, Any]:
    what = str(OPTIONS[name].__doc__)
    if own is None:
        return {"option": name, "what": what, "failed": failure}
    seconds, base = min(s for s, _ in own), min(s for s, _ in plain)
    return {
        "option": name, "what": what, "tokens_per_second": sum(map(len, questions.rows)) / seconds,
        "ratio_to_plain": base / seconds, "max_dp": float(np.abs(own[0][1] - plain[0][1]).max()),
        "mean_dp": float(np.abs(own[0][1] - plain[0][1]).mean()),
        "top_1_agreement": float((own[0][1].argmax(1) == plain[0][1].argmax(1)).mean()),
    }  # fmt: skip


def show(rows: list[dict[str, Any]]) -> Table:
    """The rows as a table."""
    table = Table("option", "tokens/s", "x plain", "max |dp|", "mean |dp|", "same first choice", "")
    for row in rows:
        if "failed" in row:
            table.add_row(row["option"], "-", "-", "-", "-", "-", f"failed: {row['failed']}")
            continue
        table.add_row(
            row["option"], f"{row['tokens_per_second']:,.0f}", f"{row['ratio_to_plain']:.2f}",
            f"{row['max_dp']:.1e}", f"{row['mean_dp']:.1e}", f"{row['top_1_agreement']:.0%}",
            row["what"],
        )  # fmt: skip
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--only", nargs="+", choices=OPTIONS, default=list(OPTIONS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    names = list(dict.fromkeys(["plain", *args.only]))
    rows = measure(names, real_questions(args.prompts))
    Console(width=150).print(show(rows))
    if args.json:
        packages = ("torch", "transformers", "onnxruntime", "openvino")
        machine: dict[str, Any] = {p: _version(p) for p in packages}
        machine |= {"processor": platform.processor(), "threads": torch.get_num_threads()}
        args.json.write_text(json.dumps({"machine": machine, "results": rows}, indent=2) + "\n")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None


if __name__ == "__main__":
    main()
