"""The data card of a build: what is in it, how it was made, how far it can be trusted.

``card.md`` reads well in a terminal and on GitHub, with histograms drawn in characters;
``card.html`` is one self-contained page with the same content and plots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from usermirror_gym.corpus.card.facts import CardFacts, card_facts
from usermirror_gym.corpus.checks.shortcuts import LIMIT, MIXED, REAL, SAMPLED, is_shortcut
from usermirror_gym.files import write_text
from usermirror_gym.report.page import render
from usermirror_gym.report.tables import Rows
from usermirror_gym.report.text import cell, flatten

__all__ = ["CardFacts", "card_facts", "write_card"]

SUSPICIOUS = 0.001
"""Positions with a smaller p are pointed out."""


def write_card(folder: Path, facts: CardFacts) -> tuple[Path, Path]:
    """Write ``card.md`` and ``card.html``; each old file stays until the new one is whole."""
    verdicts = Counter(cell(row.get("verdict")) for row in facts.leaks)
    # On all lists, which a reader must see, and on single mixes of samplers.
    wide = [row for row in facts.shortcuts if row.get("lists") in (SAMPLED, MIXED, REAL)]
    view = {
        **vars(facts),
        "title": cell(facts.title),
        "key_figures": key_figures(facts),
        "attention": attention(facts),
        "verdicts": ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()),
        "shortcut_tables": [wide, [row for row in facts.shortcuts if row not in wide]],
        "settings": [
            (cell(name).capitalize(), flatten(values))
            for name, values in _groups(facts.manifest).items()
            if values
        ],
    }
    markdown = write_text(Path(folder) / "card.md", render("corpus_card.md", view))
    return markdown, write_text(Path(folder) / "card.html", render("corpus_card.html", view))


def key_figures(facts: CardFacts) -> list[tuple[str, str]]:
    """The line of large numbers at the top."""
    splits: Counter[str] = Counter()
    for row in facts.scenes:
        splits[row["split"]] += row["scenes"]
    figures: list[tuple[str, Any]] = [("scenes", sum(splits.values()))]
    figures += [(f"{split} scenes", count) for split, count in splits.items()]
    figures.append(("data sets", len({row["data set"] for row in facts.scenes})))
    if facts.selection:
        figures.append(("preference pairs", sum(row["kept"] for row in facts.selection)))
    return [(label, cell(value)) for label, value in figures]


def attention(facts: CardFacts) -> list[str]:
    """What a reader should know before using the data; also what was not checked."""
    notes = []
    pairs = facts.selection
    if pairs and not any(row["kept"] for row in pairs):
        count = sum(row["scenes"] for row in pairs)
        notes.append(
            f"No preference pair came of the {cell(count)} scenes with rationales; the reasons are "
            "counted below."
        )
    failed = [row for row in facts.leaks if row.get("verdict") == "failed"]
    if failed:
        names = ", ".join(f"{row.get('check')} ({row.get('source')})" for row in failed)
        notes.append(f"The leakage audit failed: {names}.")
    if not facts.leaks:
        notes.append("The leakage audit was not run on this build.")
    notes += _shortcut_notes([row for row in facts.shortcuts if is_shortcut(row)])
    if not facts.shortcuts:
        notes.append("The shortcut audit was not run on this build.")
    if facts.position_test and facts.position_test["p"] < SUSPICIOUS:
        p = facts.position_test["p"]
        notes.append(f"The true option does not stand at uniform positions (p = {p:.2g}).")
    return [cell(note) for note in notes]


def _groups(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The manifest by headings; single values share one."""
    single = {k: v for k, v in manifest.items() if not isinstance(v, Mapping)}
    groups = {k: v for k, v in manifest.items() if isinstance(v, Mapping)}
    return ({"build": single} if single else {}) | groups


def _shortcut_notes(rows: Rows) -> list[str]:
    """One sentence for the shortcuts of each source."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        lists = f"on {row.get('lists', 'the lists')} (chance {row['chance']:.1%})"
        of_source = found.setdefault(str(row.get("source", "")), {})
        of_source.setdefault(lists, []).append(f"“{row.get('name')}” {row['accuracy']:.1%}")
    points = f"{100 * LIMIT:g} points"
    return [
        f"More than {points} above chance without reading the history"
        + (f" in {source}: " if source else ": ")
        + "; ".join(f"{lists} {', '.join(names)}" for lists, names in kinds.items())
        + "."
        for source, kinds in found.items()
    ]
