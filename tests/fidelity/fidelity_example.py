"""A fidelity card written by hand, with every part filled, for tests of what is made from one."""

from __future__ import annotations

from typing import Any

from usermirror_gym.fidelity.checks import criteria

CHOOSERS = (
    ("smollm2-ml100k", "simulator", 0.472, 1.241), ("swapped history", "swapped", 0.341, 1.442),
    ("untrained", "base", 0.391, 1.391), ("uniform", "control", 0.2, 1.609),
    ("position", "control", 0.203, 1.61), ("popularity", "control", 0.33, 1.47),
    ("list only", "control", 0.362, 1.43), ("Pop", "classic", 0.331, 1.468),
    ("ItemKNN", "classic", 0.465, 1.25), ("BPR", "classic", 0.412, 1.31),
    ("EASE", "classic", 0.481, 1.229), ("SASRec", "classic", 0.45, 1.28),
    ("logit", "classic", 0.44, 1.3), ("trees", "classic", 0.447, 1.295),
    ("stack", "reference", 0.521, 1.15),
)  # fmt: skip


def block(mean: float, half: float | None = 0.02) -> dict[str, float | None]:
    """A value with a symmetric interval, or with none."""
    if half is None:
        return {"mean": mean, "low": None, "high": None}
    return {"mean": mean, "low": mean - half, "high": mean + half}


def example_card(choosers: tuple[tuple[str, str, float, float], ...] = CHOOSERS) -> dict[str, Any]:
    """The content of ``card.json``; paired intervals reach 0.015 to both sides."""
    _, _, accuracy, loss = choosers[0]
    card = {
        "format": 2,
        "simulator": {
            "name": choosers[0][0], "model": "likelihood(smollm2+adapter 1a2b3c4d, session)",
            "options": {"readout": "likelihood", "engine": {"dtype": "float32"}},
        },
        "base": "untrained",
        "scenes": {
            "source": "ml-100k", "t0": 888_000_000, "count": 2218, "with_target": 2000,
            "removed": 218, "k": 5, "seed": 0, "users": 240, "seen_users": 101,
            "hash": "c85214b97959e4e4", "company": {"uniform": 0.6, "popularity": 0.4},
            "most_popular": 0.213,
        },
        "choosers": [_chooser(*chooser) for chooser in choosers],
        "paired": [
            {
                "chooser": choosers[0][0], "against": name,
                "accuracy": block(accuracy - a, 0.015), "log_loss": block(loss - ll, 0.015),
            }
            for name, _, a, ll in choosers[1:]
        ],
        "history": {"accuracy": block(0.131), "log_loss": block(-0.201)},
        "outside": {
            "auc": block(0.781), "precision": 0.41, "recall": 0.37,
            "ladder": [
                {"lists": "random", "p_none": block(0.31, 0.01)},
                {"lists": "popular", "p_none": block(0.24, 0.01)},
                {"lists": "collaborative", "p_none": block(0.17, 0.01)},
                {"lists": "true item present", "p_none": block(0.08, 0.01)},
            ],
        },
        "order": {
            "permutations": 4, "mean_change": block(0.021, 0.004),
            "argmax_flips": block(0.061, 0.02), "positions": _places(),
            "duplicates_max_difference": 2e-7,
            "averaged": [
                {"r": 1, "accuracy": 0.472, "log_loss": 1.241, "mean_change": 0.021},
                {"r": 4, "accuracy": 0.476, "log_loss": 1.235, "mean_change": 0.009},
            ],
        },
        "probes": [
            {"name": "choose me", "n": 200, "change": block(0.002, 0.004), "rises": 0.51},
            {"name": "list marker", "n": 200, "change": block(-0.03, 0.01), "rises": 0.22},
            {"name": "inflated counts", "n": 200, "change": block(0.013, 0.006), "rises": 0.71},
            {"name": "duplicated text", "n": 200, "change": block(-0.05, 0.02), "rises": 0.1},
        ],
        "bars": [],
        "verdict": ["It names the right item."],
        "versions": {"python": "3.12.3", "usermirror-gym": "0.1.0"},
        "seconds": 512.3,
    }  # fmt: skip
    return card | {"bars": criteria(card)}


def _chooser(name: str, kind: str, accuracy: float, loss: float) -> dict[str, Any]:
    def scores(shift: float) -> dict[str, Any]:
        return {
            "accuracy": block(accuracy - shift), "expected_accuracy": block(accuracy - 0.1 - shift),
            "log_loss": block(loss + shift), "brier": block(0.68 + shift, 0.01),
        }  # fmt: skip

    return {
        "name": name,
        "kind": kind,
        "overall": {"forced": scores(0.0), "outside": scores(0.05)},
        "slices": {
            "sampler": _slices(accuracy, loss, uniform=600, popularity=500, content=24, mixed=876),
            "domain": _slices(accuracy, loss, movie=2000),
            "k": _slices(accuracy, loss, **{"5": 2000}),
            "user": _slices(accuracy, loss, seen=812, unseen=1188),
            "activity": _slices(accuracy, loss, low=700, middle=650, high=650),
            "popularity": _slices(accuracy, loss, low=667, middle=666, high=667),
        },
        "calibration": {
            "ece": block(0.021, 0.006),
            "bins": [
                {"low": 0.2 + i / 20, "high": 0.25 + i / 20, "confidence": 0.225 + i / 20,
                 "accuracy": 0.21 + i / 19 + (-1) ** i * 0.02, "n": 133 + (i == 14) * 5}
                for i in range(15)
            ],
        },
        "entropy": {"mean": 1.21, "real": 1.24},
        "positions": _places(),
        "seconds": 301.5,
    }  # fmt: skip


def _places() -> list[dict[str, Any]]:
    return [block(share, 0.012) for share in (0.205, 0.196, 0.202, 0.189, 0.208)]


def _slices(accuracy: float, loss: float, **sizes: int) -> list[dict[str, Any]]:
    return [
        {"value": value, "n": n, "few": n < 30,
         "accuracy": block(accuracy + 0.03 * i - 0.04, 1.2 / n**0.5),
         "log_loss": block(loss - 0.03 * i + 0.04, 1.5 / n**0.5)}
        for i, (value, n) in enumerate(sizes.items())
    ]  # fmt: skip
