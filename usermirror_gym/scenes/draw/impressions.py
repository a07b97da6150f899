"""Scenes from lists that were really shown: passed through as they are."""

from __future__ import annotations

from collections import Counter

import numpy as np

from usermirror_gym.data.dataset import Impressions
from usermirror_gym.errors import ConfigError
from usermirror_gym.scenes.draw.build import (
    LINES_STREAM,
    PRIORITY_STREAM,
    ScenePlan,
    Window,
    as_range,
    inside,
)
from usermirror_gym.scenes.draw.columns import SceneColumns, Timeline
from usermirror_gym.scenes.draw.exposure import LOG, ORIGINS
from usermirror_gym.scenes.draw.rankers import Rankers
from usermirror_gym.scenes.randomness import integers, keys, uniforms
from usermirror_gym.scenes.scene import padded
from usermirror_gym.types import PAD, IntArray


def draw_impressions(rankers: Rankers, plan: ScenePlan, window: Window) -> SceneColumns:
    """Scenes of ``plan.count`` shown lists of the window whose length is in ``plan.slate_size``.

    A list without a click is a scene whose right answer is *none of these*.  A list with m clicks
    becomes m scenes, each with one of the clicked items and all that were not clicked.  What the
    plan says of samplers, balance and removed items is for sampled lists, and not used here.

    Raises:
        ConfigError: the log has no impressions, or none that can be used; says why.
    """
    shown = rankers.split.dataset.impressions
    if shown is None:
        raise ConfigError(f"{rankers.split.dataset.name!r} has no impressions")
    dropped: Counter[str] = Counter()
    rows = _usable(shown, rankers.timeline, plan, window, dropped)
    if not len(rows):
        raise ConfigError(
            f"no list of {rankers.split.dataset.name!r} can be used: "
            f"{dict(dropped) or 'none was shown in this time'}. Ask for no scenes here, or set "
            "'impressions: false' for lists around the logged choices"
        )
    own = keys(plan.seed, shown.user_ids[rows], shown.timestamps[rows], rows)
    rows = rows[np.argsort(uniforms(own, PRIORITY_STREAM)[:, 0], kind="stable")][: plan.count]
    slates, clicked, lists = _one_click_each(shown, rows, plan.count)
    origin = np.where(slates != PAD, ORIGINS.index(LOG), -1)
    targets = np.where(
        clicked == PAD, (slates != PAD).sum(axis=1), (slates == clicked[:, None]).argmax(axis=1)
    )
    users, times = shown.user_ids[lists], shown.timestamps[lists]
    line = rankers.timeline
    past = line.earlier_than(users, times)
    own = keys(plan.seed, users, times, lists)
    lines = np.minimum(integers(own, LINES_STREAM, *as_range(plan.history)), past)
    return SceneColumns(
        dataset=rankers.split.dataset.name,
        user_ids=users,
        timestamps=times,
        first_lines=line.offsets[users] + past - lines,
        lines=lines,
        slates=slates,
        origins=origin,
        targets=targets,
        items=clicked,
        removed=np.zeros(len(users), np.bool_),
        names=shown.names[lists],
        timeline=line,
        dropped=dropped,
    )


def _usable(
    shown: Impressions, line: Timeline, plan: ScenePlan, window: Window, dropped: Counter[str]
) -> IntArray:
    """Rows of the impressions inside the window, with enough history and a fitting length."""
    timely = inside(shown.timestamps, window)
    sizes = np.diff(shown.offsets)
    clicks = np.add.reduceat(shown.clicked.astype(np.int64), shown.offsets[:-1])
    low, high = as_range(plan.slate_size)
    # What is left of a list once all clicked items but one are taken out.
    left = sizes - np.maximum(clicks - 1, 0)
    fits = (left >= low) & (left <= high)
    past = line.earlier_than(shown.user_ids, shown.timestamps)
    known = past >= plan.min_history
    reasons = {
        "shown list shorter or longer than wanted": timely & ~fits,
        "shown list of a user with too little history": timely & fits & ~known,
    }
    dropped.update({reason: int(rows.sum()) for reason, rows in reasons.items() if rows.any()})
    return np.flatnonzero(timely & fits & known)


def _one_click_each(
    shown: Impressions, rows: IntArray, count: int
) -> tuple[IntArray, IntArray, IntArray]:
    """The first ``count`` lists ``(B, K)``, the clicked item of each (0: none), and the impression
    each comes from."""
    lists, clicked, origin = [], [], []
    for row in rows.tolist():
        items, clicks = shown.row(row)
        for choice in items[clicks].tolist() or [PAD]:
            lists.append(items[~clicks | (items == choice)])
            clicked.append(choice)
            origin.append(row)
    lists, clicked, origin = lists[:count], clicked[:count], origin[:count]
    return padded(lists, np.int64), np.array(clicked, np.int64), np.array(origin, np.int64)
