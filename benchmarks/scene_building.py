"""How fast scenes are built, against a straightforward pandas version of the same job.

    python benchmarks/scene_building.py --dataset ml-1m --folder path/to/ml-1m

Collaborative, popularity and uniform samplers, lists of 2 to 12, text rendered.  Both versions draw
the same random numbers, and their outputs are compared row by row.  What is fitted once per data
set (singular vectors, texts of all items) is timed apart: both versions use it.  One core.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from usermirror_gym.data import load_dataset, time_cut
from usermirror_gym.scenes.draw.build import ScenePlan, draw_scenes, eligible
from usermirror_gym.scenes.draw.rankers import Rankers
from usermirror_gym.scenes.draw.samplers import Strata
from usermirror_gym.scenes.randomness import keys, uniforms
from usermirror_gym.scenes.words.render import scene_table
from usermirror_gym.scenes.words.template import domain_text

SAMPLERS = ("uniform", "popularity", "collaborative")
PLAN: dict[str, Any] = {
    "slate_size": (2, 12), "history": (2, 10), "removed": 0.1, "balance": "popularity",
    "samplers": dict.fromkeys(SAMPLERS, 1.0),
}  # fmt: skip


class RowByRow:
    """The reference: one scene at a time, with the pandas operations that come to mind first."""

    def __init__(self, rankers: Rankers, text: Any, seed: int) -> None:
        self.events = rankers.split.dataset.interactions
        self.catalog = pd.Index(rankers.split.dataset.items.index)
        self.popularity = pd.Series(rankers.popularity)
        self.filter, self.text, self.seed = rankers.collaborative, text, seed
        line = rankers.timeline
        usable = eligible(line, 3, (None, rankers.split.t0))
        strata = Strata.balanced(rankers.popularity, line.items[usable])
        self.stratum = pd.Series(strata.of_item)
        self.shares = strata.cumulative

    def build(self, event: pd.Series) -> pd.Series:
        user, item, now = int(event["user_id"]), int(event["item_id"]), int(event["timestamp"])
        self.key = keys(self.seed, *(np.array([x]) for x in (user, item, now)))
        own = self.events[self.events["user_id"] == user]
        past = own[own["timestamp"] < now]
        removed = self.u(9) < PLAN["removed"]
        size = self.whole(10, *PLAN["slate_size"])
        lines = past.tail(min(self.whole(11, *PLAN["history"]), len(past)))
        allowed = self.catalog.difference(own["item_id"])
        company = self.company(past, allowed, size if removed else size - 1)
        slate = [*company] if removed else [item, *company]
        ranks = [self.u(12, place) for place in range(len(company) + 1)][
            len(company) + 1 - len(slate) :
        ]
        slate = pd.Series(slate, index=ranks).sort_index()
        return pd.Series(
            {
                "history": lines["item_id"].tolist(),
                "slate": slate.tolist(),
                "target": len(slate) if removed else slate.tolist().index(item),
                "profile": self.text.profile(user),
                "history_texts": [
                    self.text.past_item(
                        int(row["item_id"]), row["rating"], age=now - int(row["timestamp"])
                    )
                    for _, row in lines.iterrows()
                ],
                "options": slate.map(self.text.option).tolist(),
            }
        )

    def u(self, stream: int, index: int = 0) -> float:
        return float(uniforms(self.key, stream, first=index)[0, 0])

    def whole(self, stream: int, low: int, high: int) -> int:
        return low + int(self.u(stream) * (high - low + 1))

    def company(self, past: pd.DataFrame, allowed: pd.Index, n: int) -> list[int]:
        samplers = sorted(min(int(self.u(0, place) * 3), 2) for place in range(n))
        shown: list[int] = []
        for place, sampler in enumerate(samplers):
            left = allowed.difference(shown)
            stratum = int(np.searchsorted(self.shares, self.u(1, place) * self.shares[-1], "right"))
            inside = self.stratum.index[self.stratum == stratum]
            if SAMPLERS[sampler] == "collaborative":
                pick = self.recommend(past, left.intersection(inside))
            else:
                pick = self.draw(place, left, inside, weighted=SAMPLERS[sampler] == "popularity")
            if pick is None:
                pick = left[int(self.u(2, place) * len(left))] if len(left) else None
            if pick is not None:
                shown.append(int(pick))
        return shown

    def recommend(self, past: pd.DataFrame, left: pd.Index) -> int | None:
        row = np.zeros(len(self.popularity))
        row[past["item_id"].unique()] = 1
        root = np.sqrt(self.filter.degrees)
        row = np.divide(row, root, out=np.zeros_like(root), where=root > 0)
        scores = pd.Series((row @ self.filter.factors) @ self.filter.factors.T * root)[left]
        scores = scores.astype(np.float32)
        best = scores.sort_values(ascending=False, kind="stable")
        return int(best.index[0]) if len(best) and best.iloc[0] > 0 else None

    def draw(self, place: int, left: pd.Index, inside: pd.Index, weighted: bool) -> int | None:
        weights = (
            self.popularity[inside].astype(float) if weighted else pd.Series(1.0, index=inside)
        )
        if weights.sum() == 0:
            weights[:] = 1.0
        running = weights.cumsum()
        for attempt in range(64):
            value = self.u(16 + place, attempt) * running.iloc[-1]
            pick = inside[int(np.searchsorted(running.to_numpy(), value, side="right"))]
            if pick in left:
                return int(pick)
        return None


def timed(run: Any, repeats: int = 1) -> tuple[float, Any]:
    """Shortest wall time of the repeats, and the last result."""
    best, result = float("inf"), None
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        best = min(best, time.perf_counter() - start)
    return best, result


def main() -> None:
    """Print both costs per scene, their ratio, and whether the outputs agree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--folder", default=None, help="raw files of the data set, if it needs any")
    parser.add_argument("--scenes", type=int, default=10_000)
    parser.add_argument("--reference", type=int, default=100, help="scenes of the pandas version")
    args = parser.parse_args()
    split = time_cut(load_dataset(args.dataset, args.folder))
    rankers, text = Rankers(split, seed=0), domain_text(split.dataset)
    fit, _ = timed(lambda: (rankers.collaborative, rankers.timeline, text.option(1)))

    def build(count: int) -> pd.DataFrame:
        columns = draw_scenes(rankers, ScenePlan(count=count, **PLAN), (None, split.t0))
        return scene_table(columns, rankers, text, "train").to_pandas()

    build(100)
    table = Table("scenes", "seconds", "ms a scene", "ratio")
    sizes = [args.scenes // 8, args.scenes // 4, args.scenes // 2, args.scenes]
    for size in sizes:
        seconds, ours = timed(lambda size=size: build(size), repeats=3)
        each = seconds / len(ours)
        table.add_row(f"{len(ours):,}", f"{seconds:.2f}", f"{1000 * each:.3f}", "")
    reference = RowByRow(rankers, text, 0)
    head = ours.head(args.reference)
    slow, rows = timed(lambda: head.apply(reference.build, axis=1))
    table.add_row(
        f"{len(head):,} pandas apply", f"{slow:.2f}", f"{1000 * slow / len(head):.1f}",
        f"{slow / len(head) / each:.0f}x",
    )  # fmt: skip
    console = Console()
    console.print(f"{args.dataset}: fitted once in {fit:.2f} s")
    console.print(table)
    different = [c for c in rows if not all(map(same, rows[c], head[c]))]
    console.print(
        f"Outputs of {len(head)} scenes: {'DIFFER in ' + str(different) if different else 'equal'}."
    )


def same(a: Any, b: Any) -> bool:
    """Equal values; lists are compared item by item."""
    return list(a) == list(b) if isinstance(a, list) else a == b


if __name__ == "__main__":
    main()
