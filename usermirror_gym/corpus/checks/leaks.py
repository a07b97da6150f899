"""What the audit checks about scenes, one small pure function per rule.

Each takes tables of one source and returns one :class:`Finding`.  ``scenes`` is a frame with the
columns of :data:`usermirror_gym.scenes.table.SCHEMA` (the words may be absent), whose lists are
already known to fit each other in length; ``interactions`` is that of a
:class:`~usermirror_gym.data.RecDataset`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import chi2, chisquare, ncx2

from usermirror_gym.scenes.scene import UNKNOWN_AGE
from usermirror_gym.types import (
    AVAILABLE_FROM,
    ITEM_ID,
    TIMESTAMP,
    UNDATED,
    USER_ID,
    BoolArray,
    IntArray,
)

ALPHA = 0.001
"""A uniform histogram fails the position checks this often."""
POWER = 0.9
"""Too few lists: the chi-square would notice an unused last place less often than this."""
EVENT = [USER_ID, ITEM_ID, TIMESTAMP]
Verdict = Literal["passed", "failed", "too few"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: its name.
        source: the data set, or ``"all"``.
        verdict: ``"too few"`` if the data cannot show the fault the check is for.
        compared: what was compared, in one sentence with counts.
        scenes: ids of up to three offending scenes.
    """

    check: str
    source: str
    verdict: Verdict
    compared: str
    scenes: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the fault is there."""
        return self.verdict == "failed"


def judge(
    check: str, source: str, scenes: pd.DataFrame, wrong: BoolArray | pd.Series, compared: str
) -> Finding:
    """A finding that fails if any scene is ``wrong``; says how many are, and names three."""
    wrong = np.asarray(wrong, np.bool_)
    if not wrong.any():
        return Finding(check, source, "passed", f"{compared}; none differs")
    examples = tuple(scenes["scene_id"].to_numpy()[wrong][:3].tolist())
    return Finding(check, source, "failed", f"{compared}; {int(wrong.sum())} do not hold", examples)


def filed(source: str, scenes: pd.DataFrame, dataset: str) -> Finding:
    """A scene's data set and split are those of the file it lies in."""
    wrong = (scenes["split"] != scenes["folder"]) | (scenes["dataset"] != dataset)
    compared = f"data set and split of {len(scenes)} scenes with the names of their files"
    return judge("files and scenes", source, scenes, wrong, compared)


# --- Time -------------------------------------------------------------------------------------


def split_times(source: str, scenes: pd.DataFrame, t_validation: int, t0: int) -> Finding:
    """Train before t_validation, validation from there to T0, evaluation from T0 on."""
    times, split = scenes[TIMESTAMP].to_numpy(), scenes["split"].to_numpy()
    inside = np.select(
        [split == "train", split == "validation"],
        [times < t_validation, (times >= t_validation) & (times < t0)],
        times >= t0,
    )
    counts = scenes["split"].value_counts()
    sizes = ", ".join(f"{counts.get(s, 0)} {s}" for s in ("train", "validation", "eval"))
    compared = f"times of {sizes} scenes with t_validation = {t_validation} and T0 = {t0}"
    return judge("split times", source, scenes, ~inside.astype(bool), compared)


def histories(source: str, scenes: pd.DataFrame, interactions: pd.DataFrame) -> Finding:
    """Every history line is an interaction of that user, strictly earlier, oldest first.

    A line of unknown age must be an interaction whose time the log does not tell either.
    """
    lines = past(scenes)
    unknown = lines["age"] == UNKNOWN_AGE
    logged = (lines["age"] > 0) & _among(lines, interactions, EVENT)
    dated = lines[~unknown]
    disordered = dated[(dated["row"].diff() == 0) & (dated["age"].diff() > 0)]
    wrong = ~np.where(unknown, _undated_before(lines, interactions), logged)
    wrong |= lines.index.isin(disordered.index)
    compared = f"{len(lines)} history lines with {len(interactions)} interactions"
    return judge("history is the past", source, scenes, _rows(scenes, lines, wrong), compared)


def events_apart(source: str, scenes: pd.DataFrame) -> Finding:
    """No held-out choice is in a train history, and no choice is in two splits."""
    train = (scenes["split"] == "train").to_numpy()
    held_out = scenes[~train & (scenes[ITEM_ID] > 0)]
    lines = past(scenes)
    seen = _rows(scenes, lines, _among(lines, held_out, EVENT)) & train
    chosen = scenes[scenes[ITEM_ID] > 0]
    shared = chosen.groupby(EVENT)["split"].transform("nunique") > 1
    twice = shared.reindex(scenes.index, fill_value=False).to_numpy()
    compared = f"{len(held_out)} held-out choices with {train.sum()} train scenes and each other"
    return judge("held-out events", source, scenes, seen | twice, compared)


def logged_choices(source: str, scenes: pd.DataFrame, interactions: pd.DataFrame) -> Finding:
    """The choice of a sampled list is an interaction of that user at that moment."""
    sampled = is_sampled(scenes)
    wrong = sampled & ~_among(scenes, interactions, EVENT).to_numpy()
    return judge(
        "choices are logged", source, scenes, wrong,
        f"{sampled.sum()} choices with {len(interactions)} interactions",
    )  # fmt: skip


def seen_users(source: str, scenes: pd.DataFrame, interactions: pd.DataFrame, t0: int) -> Finding:
    """``seen_user`` says whether the user did anything before T0."""
    early = interactions.loc[interactions[TIMESTAMP] < t0, USER_ID].unique()
    wrong = scenes[USER_ID].isin(early) != scenes["seen_user"]
    return judge(
        "seen users", source, scenes, wrong,
        f"marks of {len(scenes)} scenes with {len(early)} users who have a past at T0",
    )  # fmt: skip


# --- Lists ------------------------------------------------------------------------------------


def targets(source: str, scenes: pd.DataFrame) -> Finding:
    """The target points at the choice, or behind the list if there was none or it was removed."""
    options, size = shown(scenes), scenes["slate"].map(len)
    at_target = pd.Series(0, index=range(len(scenes)))
    chosen = options[options["is_target"]]
    at_target[chosen["row"].to_numpy()] = chosen[ITEM_ID].to_numpy()
    none = (scenes["kind"] == "removed") | (scenes[ITEM_ID] == 0)
    wrong = np.where(
        none, scenes["target"] != size, at_target.to_numpy() != scenes[ITEM_ID].to_numpy()
    )
    return judge("targets", source, scenes, wrong, f"targets of {len(scenes)} scenes with lists")


def distractors(source: str, scenes: pd.DataFrame, interactions: pd.DataFrame) -> Finding:
    """Company in sampled lists is neither the choice nor anything the user ever touched."""
    options = shown(scenes)
    company = options[~options["is_target"] & is_sampled(scenes)[options["row"]]]
    known = _among(company, interactions, [USER_ID, ITEM_ID])
    wrong = known | (company[ITEM_ID] == company["choice"])
    compared = f"{len(company)} distractors with all items their users ever touched"
    return judge("distractors", source, scenes, _rows(scenes, company, wrong), compared)


def repeated_choices(source: str, scenes: pd.DataFrame) -> Finding:
    """In sampled lists, whose company is always new to the user, the choice must be so too."""
    lines = past(scenes)
    again = (lines[ITEM_ID] == lines["choice"]) & is_sampled(scenes)[lines["row"]]
    compared = f"choices of {is_sampled(scenes).sum()} sampled lists with their histories"
    return judge("choice not in history", source, scenes, _rows(scenes, lines, again), compared)


def slates(source: str, scenes: pd.DataFrame) -> Finding:
    """No list shows an item twice."""
    options = shown(scenes)
    wrong = _rows(scenes, options, options.duplicated(["row", ITEM_ID]))
    return judge("lists without repeats", source, scenes, wrong, f"{len(options)} options")


def availability(source: str, scenes: pd.DataFrame, items: pd.DataFrame) -> Finding:
    """No sampled list shows an item before it was published."""
    if AVAILABLE_FROM not in items:
        return Finding("published", source, "passed", "the items have no publication times")
    options = shown(scenes)
    options = options[is_sampled(scenes)[options["row"]]]
    since = options[ITEM_ID].map(items[AVAILABLE_FROM])
    wrong = (since > options["now"]).fillna(False)
    compared = f"{len(options)} options with publication times, {int(since.notna().sum())} known"
    return judge("published", source, scenes, _rows(scenes, options, wrong), compared)


def duplicates(scenes: pd.DataFrame) -> Finding:
    """No id occurs twice in the build; no event, and no list of one moment, twice in a split."""
    owner = ["dataset", "split", USER_ID, TIMESTAMP]
    sets = scenes["slate"].map(lambda slate: tuple(sorted(slate)))
    wrong = scenes.duplicated("scene_id") | scenes.assign(slate=sets).duplicated([*owner, "slate"])
    wrong |= is_sampled(scenes) & scenes.duplicated([*owner, ITEM_ID])
    compared = f"ids, events and lists of {len(scenes)} scenes with each other"
    return judge("no scene twice", "all", scenes, wrong, compared)


# --- Positions --------------------------------------------------------------------------------


def positions(source: str, split: str, scenes: pd.DataFrame) -> Finding:
    """Chi-square of the choices' positions, one histogram per K, statistics and df summed."""
    target, size = _choices(scenes)
    statistic, df, counts = uniform_positions(size, target, least=5)  # the usual bound
    shift = sum(n / (k - 1) for k, n in counts.items())  # if the last place were never used
    name = f"positions, {split}"
    if not df or ncx2.sf(chi2.isf(ALPHA, df), df, shift) < POWER:
        return Finding(name, source, "too few", f"{len(target)} choices cannot show a bias")
    p = float(chi2.sf(statistic, df))
    compared = f"{len(target)} choices with a uniform histogram: chi2({df}) = {statistic:.1f}, "
    return Finding(name, source, "failed" if p < ALPHA else "passed", f"{compared}p = {p:.2g}")


def uniform_positions(
    sizes: IntArray, targets: IntArray, *, least: float = 0
) -> tuple[float, int, dict[int, int]]:
    """Pearson's statistic of positions against uniform ones, summed over the list lengths K.

    Args:
        sizes, targets: ``(N,)`` K and the position; those behind the list do not count.
        least: lengths with fewer than so many lists a place are left out.

    Returns:
        The statistic, its degrees of freedom (K - 1 each), and lists by length.
    """
    statistic, counts = 0.0, {}
    for k in np.unique(sizes[sizes > 1]).tolist():
        observed = np.bincount(targets[(sizes == k) & (targets < k)], minlength=k)
        if (n := int(observed.sum())) and n >= least * k:
            statistic += float(chisquare(observed).statistic)
            counts[k] = n
    return statistic, sum(counts) - len(counts), counts


def last_place(source: str, split: str, scenes: pd.DataFrame) -> Finding:
    """The choice is sometimes the last of its list."""
    target, size = _choices(scenes)
    last = int((target == size - 1).sum())
    chance = float(np.prod(1 - 1 / size)) if len(size) else 1.0
    compared = f"{last} of {len(target)} choices are last, {(1 / size).sum():.1f} expected"
    verdict: Verdict = "passed" if last else "failed" if chance < ALPHA else "too few"
    return Finding(f"last place, {split}", source, verdict, compared)


def _choices(scenes: pd.DataFrame) -> tuple[IntArray, IntArray]:
    """Position of the choice and K, of the lists that were sampled around one."""
    lists = scenes[scenes["kind"] == "choice"]
    return lists["target"].to_numpy(np.int64), lists["slate"].map(len).to_numpy(np.int64)


def is_sampled(scenes: pd.DataFrame) -> BoolArray:
    """Which scenes show a list that was sampled around a logged choice."""
    return scenes["kind"].isin(["choice", "removed"]).to_numpy()


def past(scenes: pd.DataFrame) -> pd.DataFrame:
    """One row per history line: ``row`` (place in ``scenes``), user, item, time and age."""
    lines = _flat(scenes, {"history": ITEM_ID, "ages": "age"})
    return lines.assign(**{TIMESTAMP: lines["now"] - lines["age"]})


def shown(scenes: pd.DataFrame) -> pd.DataFrame:
    """One row per option: ``row`` (place in ``scenes``), user, item, ``is_target``."""
    options = _flat(scenes, {"slate": ITEM_ID})
    target = scenes["target"].to_numpy()[options["row"]]
    return options.assign(is_target=options["place"].to_numpy() == target)


def _undated_before(lines: pd.DataFrame, interactions: pd.DataFrame) -> BoolArray:
    """Which lines are interactions of unknown time that come before the scene in the log."""
    if UNDATED not in interactions:
        return np.zeros(len(lines), np.bool_)
    undated = interactions[interactions[UNDATED].astype("boolean").fillna(False).astype(bool)]
    first = undated.groupby([USER_ID, ITEM_ID])[TIMESTAMP].min().rename("first")
    found = lines[[USER_ID, ITEM_ID, "now"]].join(first, on=[USER_ID, ITEM_ID])
    return (found["first"] < found["now"]).to_numpy()


def _flat(scenes: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    owner = {USER_ID: USER_ID, TIMESTAMP: "now", ITEM_ID: "choice"}
    flat = scenes.reset_index(drop=True)[[*owner]].rename(columns=owner)
    flat = flat.assign(**{new: scenes[old].to_numpy() for old, new in columns.items()})
    flat = flat[scenes[next(iter(columns))].map(len).to_numpy() > 0]
    flat = flat.explode(list(columns.values())).reset_index(names="row").astype(np.int64)
    return flat.assign(place=flat.groupby("row").cumcount())


def _rows(scenes: pd.DataFrame, flat: pd.DataFrame, wrong: pd.Series | BoolArray) -> BoolArray:
    """Which scenes have a wrong line or option."""
    mask = np.zeros(len(scenes), np.bool_)
    mask[flat["row"].to_numpy()[np.asarray(wrong, np.bool_)]] = True
    return mask


def _among(rows: pd.DataFrame, known: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Which rows agree with a row of ``known`` in all the columns."""
    columns = list(columns)
    unique = known[columns].drop_duplicates()
    both = rows[columns].merge(unique, how="left", on=columns, indicator=True)["_merge"] == "both"
    return pd.Series(both.to_numpy(), index=rows.index)
