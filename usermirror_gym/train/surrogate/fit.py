"""The student learns: from the teacher's probabilities to the weights of a surrogate."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save

from usermirror_gym.errors import RunError
from usermirror_gym.files import kept_array, write_bytes
from usermirror_gym.foreign import parse_json
from usermirror_gym.simulators import UserSimulator
from usermirror_gym.simulators.surrogate.surrogate import SurrogateSimulator
from usermirror_gym.simulators.surrogate.surrogate_net import NetInputs, SurrogateNet
from usermirror_gym.threads import one_thread
from usermirror_gym.train.surrogate.answers import Answers
from usermirror_gym.train.surrogate.config import FitSettings, NetworkSettings
from usermirror_gym.types import Float32Array, FloatArray

_LAST_RATE = 0.01
_CHUNK = 4096


def fit(
    student: SurrogateSimulator,
    train: Answers,
    validation: Answers,
    settings: FitSettings,
    *,
    seed: int,
    state: Path | None = None,
    progress: Callable[[int], None] = lambda epochs: None,
) -> list[float]:
    """Minimise KL(teacher || student); the student has the weights of the best epoch afterwards.

    Args:
        student: whose network learns.
        train: what it learns from.
        validation: what says which epoch was best.
        settings: of the optimizer.
        seed: of the order of the questions.
        state: file that keeps where the fit is after every epoch; one that is there goes on.
        progress: told how many epochs were done since the last call.

    Returns:
        the divergence on the validation questions, in nats, before training and after each epoch.
    """
    net = student.net.train()
    optimizer = torch.optim.AdamW(
        net.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    questions, targets = student.inputs(train.questions), torch.from_numpy(train.probs)
    now = read_state(state, net, optimizer) or {
        "curve": [divergence(student, validation)], "best": deepcopy(net.state_dict()), "since": 0,
    }  # fmt: skip
    progress(len(now["curve"]) - 1)
    while len(now["curve"]) <= settings.epochs and now["since"] < settings.patience:
        _set_rate(optimizer, settings, len(now["curve"]) - 1)
        rng = np.random.default_rng([seed, len(now["curve"])])
        with one_thread():
            for rows in torch.from_numpy(rng.permutation(len(targets))).split(settings.batch_size):
                optimizer.zero_grad(set_to_none=True)
                _loss(net, questions.part(rows), targets[rows]).mean().backward()
                optimizer.step()
            now["curve"].append(divergence(student, validation))
        better = now["curve"][-1] < min(now["curve"][:-1])
        now["since"] = 0 if better else now["since"] + 1
        if better:
            now["best"] = deepcopy(net.state_dict())
        write_state(
            state, net, optimizer, {"curve": now["curve"], "since": now["since"]}, now["best"]
        )
        progress(1)
    net.load_state_dict(now["best"])
    student.net = net
    return now["curve"]


def divergence(student: SurrogateSimulator, answers: Answers) -> float:
    """Mean KL(teacher || student) in nats."""
    questions, targets = student.inputs(answers.questions), torch.from_numpy(answers.probs)
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(targets), _CHUNK):
            rows = slice(start, start + _CHUNK)
            total += float(_loss(student.net, questions.part(rows), targets[rows]).sum())
    return total / len(targets)


def item_words(
    teacher: UserSimulator, n_items: int, settings: NetworkSettings, *, cache: Path | None = None
) -> Float32Array | None:
    """``(n_items + 1, dim)`` principal components of what the teacher's LLM says of the items.

    Each part of the states weighs alike, and a component the square root of its strength, so that
    small differences are not lost.  ``None`` if the teacher reads no items.

    Args:
        cache: file that keeps them.

    Raises:
        EngineError: an engine that gives no hidden states, or a layer that it does not have;
            the setting ``network.items = none`` does without.
    """
    engine, builder = (getattr(teacher, name, None) for name in ("engine", "builder"))
    if settings.items == "none" or engine is None or builder is None:
        return None

    def read() -> Float32Array:
        parts = getattr(getattr(teacher, "head", None), "parts", settings.parts)
        asked = builder.item_lines(tuple(range(1, n_items + 1)))
        states = engine.item_hidden_states(asked.options, head=asked.answer_prefix, parts=parts)
        return principal(states.astype(np.float64), len(parts), settings.dim)

    return kept_array(cache, read)


def principal(states: FloatArray, parts: int, dim: int) -> Float32Array:
    """See :func:`item_words`; row 0, of padding, is zeros.

    Args:
        states: ``(n, F)``.
        parts: that F is made of, one after another.
        dim: columns of the result; zeros where the states have fewer directions.
    """
    blocks = (states - states.mean(axis=0)).reshape(len(states), parts, -1)
    scale = np.sqrt((blocks**2).sum(axis=2).mean(axis=0))
    level = (blocks / np.maximum(scale, 1e-12)[:, None]).reshape(len(states), -1)
    left, size, right = np.linalg.svd(level, full_matrices=False)
    # A vector and its opposite are the same direction: the same one every time.
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    scores = (left * signs * np.sqrt(size))[:, :dim]
    scores *= np.sqrt(len(scores) / max((scores**2).sum(), 1e-12))
    words = np.zeros((len(states) + 1, dim), np.float32)
    words[1:, : scores.shape[1]] = scores * dim**0.25
    return words


def _loss(net: SurrogateNet, questions: NetInputs, targets: torch.Tensor) -> torch.Tensor:
    """``(B,)`` divergences."""
    logs = net(questions)
    entropy = torch.special.xlogy(targets, targets).sum(dim=1)
    return entropy - torch.where(targets > 0, targets * logs, 0.0).sum(dim=1)


def _set_rate(optimizer: torch.optim.Optimizer, settings: FitSettings, done: int) -> None:
    fall = (1 + math.cos(math.pi * done / settings.epochs)) / 2
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * (_LAST_RATE + (1 - _LAST_RATE) * fall)


def write_state(
    path: Path | None,
    net: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    facts: dict[str, Any],
    best: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Keep where a training is.

    Args:
        path: ``None`` keeps nothing.
        facts: as JSON.
        best: weights that are kept beside those of now.
    """
    if path is None:
        return
    learned = optimizer.state_dict()
    groups = {"net": net.state_dict(), "best": best or {}, **learned["state"]}
    tensors = {
        f"{group}/{name}": value.detach().clone().contiguous()
        for group, values in groups.items() for name, value in values.items()
    }  # fmt: skip
    told = json.dumps({**facts, "groups": learned["param_groups"]})
    write_bytes(path, save(tensors, {"fit": told}))


def read_state(
    path: Path | None, net: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put a training where it was; the facts, and ``best`` if it was kept.  Empty if nothing was.

    Raises:
        RunError: a file that cannot be read.
    """
    if path is None or not path.is_file():
        return {}
    groups: dict[str, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = parse_json(file.metadata()["fit"])
            for key in file.keys():  # noqa: SIM118
                group, _, name = key.partition("/")
                groups.setdefault(group, {})[name] = file.get_tensor(key)
        net.load_state_dict(groups.pop("net"))
        best = groups.pop("best", None)
        state = {int(number): values for number, values in groups.items()}
        optimizer.load_state_dict({"state": state, "param_groups": facts.pop("groups")})
        return facts if best is None else facts | {"best": best}
    except Exception as error:  # safetensors' and torch's own errors, KeyError, TypeError ...
        raise RunError(f"cannot read {path}: {error}. Delete it to fit again.") from error
