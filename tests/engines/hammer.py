"""Run as a program: reads, checks, computes and writes answers until told to stop."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

import numpy as np

from usermirror_gym.engines.store.answer_store import AnswerStore

QUESTIONS = 3_000


def key(question: int) -> bytes:
    return hashlib.sha256(f"question {question}".encode()).digest()


def answer(question: int) -> bytes:
    """The only right answer; up to a few kilobytes."""
    rng = np.random.default_rng(question)
    return rng.bytes(8 * int(rng.integers(1, 400)))


def main(path: Path, seed: int, seconds: float, max_bytes: int) -> int:
    store = AnswerStore(path, max_bytes=max_bytes)
    rng = np.random.default_rng(seed)
    end = time.monotonic() + seconds
    print("ready", flush=True)
    asked = wrong = 0
    while time.monotonic() < end:
        questions = rng.integers(QUESTIONS, size=64).tolist()
        kept = store.get([key(q) for q in questions])
        asked += len(questions)
        wrong += sum(v is not None and v != answer(q) for q, v in zip(questions, kept, strict=True))
        store.put({key(q): answer(q) for q, v in zip(questions, kept, strict=True) if v is None})
    print(f"{asked} {wrong} {store.damaged} {store._broken}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
