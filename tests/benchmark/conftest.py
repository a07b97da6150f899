"""Hostile titles and synthetic step logs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from usermirror_gym.data import TimeSplit

HOSTILE = (
    "</script><script>document.title='pwned'</script>",
    '<img src=x onerror="document.title=1">',
    "a & b \"quoted\" 'single' \\ \u2028 \u2029",
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd",
    "<!-- <script>",
    "[B] ${x} {{ 7 * 7 }} {% raw %}",
    "日本語のタイトル" + "長" * 400,
    "plain title",
)


def step_row(
    agent: str, episode: int, step: int, slate: list[int], choice: int, **more: Any
) -> dict[str, Any]:
    """One line of a step log; unnamed columns get plausible values."""
    k = len(slate)
    item = slate[choice] if choice < k else 0
    row = {
        "agent": agent, "episode": episode, "seed": 100 + episode, "user_id": episode + 1,
        "step": step, "slate": slate, "probabilities": [1 / (k + 1)] * (k + 1), "choice": choice,
        "item": item, "rating": 4.0 if item else None, "reward": float(choice < k),
        "rewards": {"click": float(choice < k)}, "terminated": False, "truncated": False,
        "rationale": None, "simulator": "stub user", "prompt_tokens": None, "cached_tokens": None,
        "seconds": 0.05,
    }  # fmt: skip
    return row | more


def synthetic_log(
    split: TimeSplit,
    quality: dict[str, float],
    *,
    episodes: int = 12,
    steps: int = 6,
    k: int = 3,
    seed: int = 0,
    rationale: str | None = None,
) -> pd.DataFrame:
    """Agents that earn a click with about the given probability; users leave after 3 misses."""
    rows, n_items = [], split.dataset.n_items
    for agent, level in quality.items():
        for episode in range(episodes):
            taste = np.random.default_rng([seed, episode]).normal(0, 0.05)
            rng = np.random.default_rng([seed, episode, int(level * 1000)])
            misses = 0
            for step in range(steps):
                slate = (1 + rng.choice(n_items, size=k, replace=False)).tolist()
                click = float(np.clip(level + taste + rng.normal(0, 0.08), 0.02, 0.98))
                weights = rng.dirichlet(np.ones(k)) * click
                probabilities = [*weights.tolist(), 1 - click]
                choice = int(rng.choice(k + 1, p=np.array(probabilities)))
                misses = misses + 1 if choice == k else 0
                gone = misses == 3
                rating = int(rng.integers(2, 6)) if choice < k else None
                rows.append(
                    step_row(
                        agent, episode, step, slate, choice, probabilities=probabilities,
                        user_id=1 + episode % split.dataset.n_users, rating=rating,
                        terminated=gone, truncated=step == steps - 1 and not gone,
                        rationale=rationale,
                    )
                )  # fmt: skip
                if gone:
                    break
    return pd.DataFrame(rows)


@pytest.fixture
def hostile_split(make_split: Callable[..., TimeSplit]) -> TimeSplit:
    """The tiny data set with titles that attack the report."""
    return make_split(HOSTILE)


@pytest.fixture
def make_log() -> Callable[..., pd.DataFrame]:
    return synthetic_log


@pytest.fixture
def make_step() -> Callable[..., dict]:
    return step_row


@pytest.fixture
def fidelity() -> dict[str, Any]:
    """The check of the simulator as the runner writes it."""

    def block(mean: float, half: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - half, "high": mean + half}

    rows = [
        {"sampler": sampler, "chooser": chooser, "n": 150, "accuracy": block(accuracy, 0.07),
         "log_loss": block(loss, 0.05)}
        for sampler, chooser, accuracy, loss in (
            ("uniform", "simulator", 0.51, 1.31), ("uniform", "swapped history", 0.37, 1.52),
            ("uniform", "popularity", 0.56, 1.22), ("uniform", "uniform", 0.20, 1.609),
            ("popularity", "simulator", 0.33, 1.55), ("popularity", "swapped history", 0.21, 1.71),
            ("popularity", "popularity", 0.20, 1.66), ("popularity", "uniform", 0.20, 1.609),
        )
    ]  # fmt: skip
    return {
        "scenes": 300, "slate_size": 5, "simulator": "stub user", "rows": rows,
        "verdict": "It reads the history, but popularity predicts uniform lists better.",
    }  # fmt: skip
