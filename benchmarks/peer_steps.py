"""Steps a second of other slate environments; run by rl_throughput.py in an environment of its own.

pip install recsim_no_tf==0.2.3 sardine-rec==1.0.8 six 'torch==2.13.0'
python benchmarks/peer_steps.py --seconds 3

RecSim: interest evolution, 100 candidates that are drawn anew at every step, slates of 5, one user;
it has no vector form.  SARDINE: SlateTopK-Bored, slates of 10 out of
1,000 items, one user, and 64 in Gymnasium's SyncVectorEnv.  Random slates.  Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

RECSIM, SARDINE = "RecSim, interest evolution", "SARDINE, SlateTopK-Bored-v0"


def rate(step: Callable[[int], int], seconds: float) -> float:
    """User-steps a second; ``step`` says how many it made."""
    for number in range(20):
        step(number)
    done, number, begin = 0, 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        done += step(number)
        number += 1
    return done / (time.perf_counter() - begin)


def recsim(candidates: int = 100, slate: int = 5) -> Callable[[int], int]:
    """One user."""
    from recsim.environments import interest_evolution

    env = interest_evolution.create_environment(
        {"num_candidates": candidates, "slate_size": slate, "resample_documents": True, "seed": 0}
    )
    rng = np.random.default_rng(0)
    slates = np.stack([rng.choice(candidates, slate, replace=False) for _ in range(64)])
    env.reset()

    def step(number: int) -> int:
        if env.step(slates[number % 64])[2]:
            env.reset()
        return 1

    return step


def sardine(users: int) -> Callable[[int], int]:
    """``users`` users."""
    import gymnasium as gym
    import sardine  # noqa: F401 registers

    env: Any = gym.make_vec("sardine/SlateTopK-Bored-v0", num_envs=users, vectorization_mode="sync")
    rng = np.random.default_rng(0)
    slates = np.stack([
        np.stack([rng.choice(1000, 10, replace=False) for _ in range(users)]) for _ in range(64)
    ])  # fmt: skip
    env.reset(seed=0)

    def step(number: int) -> int:
        env.step(slates[number % 64])
        return users

    return step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    np.bool8 = np.bool_  # type: ignore[attr-defined]  # gym 0.26 asks for a name numpy 2 dropped
    rows = [
        {"what": f"{RECSIM}, 1 user", "per_second": rate(recsim(), args.seconds)},
        *({"what": f"{SARDINE}, {n} user{'s' * (n > 1)}",
           "per_second": rate(sardine(n), args.seconds)} for n in (1, 64)),
    ]  # fmt: skip
    versions = {name: version(name) for name in ("recsim-no-tf", "sardine-rec", "numpy")}
    print(json.dumps({"rows": rows, "versions": versions}))


if __name__ == "__main__":
    main()
