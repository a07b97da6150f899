"""The data card: right numbers, hostile names that stay text, and parts that may be absent."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usermirror_gym.corpus.card.card import CardFacts, attention, card_facts, write_card
from usermirror_gym.corpus.card.facts import position_test
from usermirror_gym.corpus.selection.assessment import assess
from usermirror_gym.corpus.selection.select import select
from usermirror_gym.errors import DataError
from usermirror_gym.measures.uncertainty import Predictions
from usermirror_gym.report.histogram import Histogram, round_edges
from usermirror_gym.report.tables import escape, markdown_table
from usermirror_gym.report.text import cell, flatten
from usermirror_gym.scenes.table import SCHEMA

HOSTILE = (
    "</style><script>alert(1)</script>|\n\n# x `y` [a](javascript:b) $z$ \x1b[2J \u202eabc &lt;"
)


def scene(number: int, split: str = "train", size: int = 4, target: int = 0, **more) -> dict:
    """A row of the scenes table; options are items 1..size, company is drawn uniformly."""
    kind = more.get("kind", "choice")
    logged = kind == "impression"
    row = {
        "scene_id": f"{split}-{number}", "dataset": "films", "domain": "movie", "split": split,
        "kind": kind, "user_id": number % 7 + 1, "seen_user": split != "eval", "timestamp": number,
        "history": [1, 2], "ratings": [4.0, float("nan")], "ages": [9, 5], "behaviours": ["", ""],
        "slate": list(range(1, size + 1)),
        "samplers": ["log" if logged or at == target else "uniform" for at in range(size)],
        "notes": [""] * size, "target": target, "item_id": target + 1, "profile": "A person.",
        "history_texts": ["Film 1", "Film 2"], "options": ["Film"] * size,
    }  # fmt: skip
    return row | more


def table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


@pytest.fixture(scope="module")
def train() -> pa.Table:
    return table([scene(i, size=2 + i % 5, target=(i // 5) % (2 + i % 5)) for i in range(300)])


@pytest.fixture(scope="module")
def selection(train) -> pa.Table:
    rng = np.random.default_rng(0)
    ids = train["scene_id"].to_pylist()
    sizes = [len(slate) for slate in train["slate"].to_pylist()]
    weak, strong = (
        Predictions.of(role, ids, [rng.dirichlet([alpha] * k, 6).tolist() for k in sizes])
        for role, alpha in (("weak", 1.0), ("strong", 0.3))
    )
    return select(assess(train, weak, strong), size=100).table


class Page(HTMLParser):
    """Tags, event handlers, addresses and visible text, as a browser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.addresses += [v or "" for name, v in attrs if name in ("href", "src", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def written(tmp_path: Path, facts: CardFacts) -> tuple[str, Page, str]:
    markdown, html = write_card(tmp_path / "build", facts)
    text = html.read_text("utf-8")
    return markdown.read_text("utf-8"), Page(text), text


# --- Numbers -----------------------------------------------------------------------------------


def test_counts_by_data_set_split_kind_and_user() -> None:
    facts = card_facts(
        {
            "train": table([scene(0), scene(7), scene(1, kind="removed", target=4, item_id=5)]),
            "eval": table([scene(2, "eval"), scene(3, "eval", kind="impression", seen_user=True)]),
        },
        title="t",
    )
    assert facts.scenes == [
        {"domain": "movie", "data set": "films", "split": "train", "scenes": 3, "choice": 2,
         "removed": 1, "impression": 0, "users": 2, "seen users": 2, "scenes of seen users": 1.0},
        {"domain": "movie", "data set": "films", "split": "eval", "scenes": 2, "choice": 1,
         "removed": 0, "impression": 1, "users": 2, "seen users": 1, "scenes of seen users": 0.5},
    ]  # fmt: skip


def test_lengths_are_those_of_histories_lists_and_words() -> None:
    facts = card_facts({"train": table([scene(0, size=3)])}, title="t")
    assert facts.histories is not None
    assert facts.histories.series == {"train": (1,)}
    assert facts.histories.bins == ("2",)
    assert facts.list_sizes is not None
    assert facts.list_sizes.bins == ("3",)
    # "A person." + "Film 1" + "Film 2" + 3 * "Film"
    assert facts.characters is not None
    assert facts.characters.bins == ("33",)


def test_company_is_counted_by_sampler_without_the_true_option() -> None:
    rows = [
        scene(0, samplers=["log", "uniform", "uniform", "popularity"]),
        scene(1, kind="removed", target=4, samplers=["uniform", "popularity", "social", "social"]),
    ]
    found = card_facts({"train": table(rows)}, title="t").samplers
    assert [(r["sampler"], r["options"]) for r in found] == [
        ("uniform", 3), ("popularity", 2), ("social", 2)
    ]  # fmt: skip
    assert sum(r["share"] for r in found) == pytest.approx(1)


def test_positions_are_compared_with_what_each_list_length_expects() -> None:
    rows = [scene(0, size=2, target=1), scene(1, size=4, target=3), scene(2, size=4, target=0),
            scene(3, kind="removed", target=4), scene(4, kind="impression", target=2)]  # fmt: skip
    facts = card_facts({"train": table(rows)}, title="t")
    assert facts.positions is not None
    assert facts.positions.series == {"true option": (1, 1, 0, 1), "if uniform": (1, 1, 0.5, 0.5)}
    assert facts.positions.bins == ("A", "B", "C", "D")
    assert facts.logged_positions is not None
    assert facts.logged_positions.series["true option"] == (0, 0, 1, 0)
    assert facts.position_test is not None
    assert facts.position_test["lists"] == 3


def test_chi_square_by_hand() -> None:
    # K = 2: 30 and 10 of 40, chi-square 10; K = 3: 10, 10, 10, chi-square 0.
    sizes = [2] * 40 + [3] * 30
    targets = [0] * 30 + [1] * 10 + [0, 1, 2] * 10
    found = position_test(sizes, targets)
    assert found == {"lists": 70, "chi_square": 10, "df": 3, "p": pytest.approx(0.018566, abs=1e-6)}
    assert position_test([1, 3], [0, 3]) is None


def test_a_true_option_that_is_never_last_is_pointed_out() -> None:
    rng = np.random.default_rng(0)
    fair = [scene(i, target=int(rng.integers(4))) for i in range(400)]
    skewed = [scene(i, target=int(rng.integers(3))) for i in range(400)]
    noted = [
        any(
            "uniform positions" in note for note in attention(card_facts({"t": table(r)}, title=""))
        )
        for r in (fair, skewed)
    ]
    assert noted == [False, True]


def test_popularity_is_a_percentile_among_the_items_of_the_data_set() -> None:
    # Items 1..4 have 0, 5, 5, 90 interactions: percentiles 12.5, 50, 50, 87.5.
    popularity = {"films": np.array([0, 0, 5, 5, 90])}
    rows = [scene(0, target=3), scene(1, kind="removed", target=4)]
    found = card_facts({"train": table(rows)}, title="t", popularity=popularity).popularity
    assert found is not None
    at = {n: np.repeat(found.edges[:-1], found.series[n]).tolist() for n in found.series}
    assert at["true items"] == [85]
    assert at["company"] == [10, 50, 50]
    with pytest.raises(DataError, match=r"'films' show items up to number 4.*2 items"):
        card_facts({"t": table(rows)}, title="t", popularity={"films": np.array([0, 1, 2])})


def test_what_was_not_selected_joins_what_the_build_dropped(train, selection) -> None:
    facts = card_facts(
        {"train": train}, title="t", selection=selection,
        dropped={"reading": {"bad time": 2, "twice": 9}},
    )  # fmt: skip
    assert facts.dropped[:2] == [
        {"stage": "reading", "reason": "twice", "count": 9},
        {"stage": "reading", "reason": "bad time", "count": 2},
    ]
    assert {r["stage"] for r in facts.dropped[2:]} == {"selection"}
    assert sum(r["count"] for r in facts.dropped[2:]) == 300 - facts.selection[0]["kept"]
    assert facts.selection[0]["kept"] == sum(facts.selection[0][f"K={k}"] for k in range(2, 7))


def test_uncertainty_charts_count_every_scene_with_rationales(train, selection) -> None:
    charts = card_facts({"train": train}, title="t", selection=selection).uncertainty
    assert [c.title.split()[0] for c in charts] == ["Total", "Epistemic", "Aleatoric", "Difficulty"]
    assert all(sum(counts) == 300 for c in charts[:3] for counts in c.series.values())
    assert sum(charts[3].series["kept"]) == 100
    assert sum(charts[3].series["not kept"]) == 200


def test_facts_are_plain_values(train, selection) -> None:
    facts = card_facts({"train": train}, title="t", selection=selection)
    assert json.loads(json.dumps(asdict(facts), allow_nan=False))["title"] == "t"


# --- Both files --------------------------------------------------------------------------------


def test_both_files_say_the_same(train, selection, tmp_path) -> None:
    facts = card_facts(
        {"train": train, "eval": table([scene(i, "eval") for i in range(9)])},
        title="weekend build",
        selection=selection,
        usage=[{"role": "strong", "model": "big", "failures": {"empty": 3}, "cost": None}],
        shortcuts=[{"name": "position", "lists": "mixed", "n": 9, "accuracy": 0.31, "low": 0.29,
                    "high": 0.33, "chance": 0.2, "reads_history": False}],
        leaks=[{"check": "times", "source": "films", "verdict": "passed", "compared": "all"}],
        sources=[{"name": "films", "title": "Films", "homepage": "https://example.org/f",
                  "terms": "Research only.", "citation": "Someone, 2020."}],
        manifest={"config": {"k": [2, 6], "deep": {"er": True}}, "seeds": {"scenes": 20261122}},
    )  # fmt: skip
    markdown, page, _ = written(tmp_path, facts)
    for word in ("weekend build", "309", "31.0%", "empty: 3", "Someone, 2020.", "20261122",
                 "deep.er", "More than 5 points", "Difficulty of scenes",
                 "below the cut"):  # fmt: skip
        assert word in markdown, word
        assert word in page.text, word
    assert "was not run" not in markdown
    assert page.tags.count("svg") == markdown.count("```text")
    assert "https://example.org/f" in page.addresses


def test_audits_that_were_not_run_or_failed_are_said_first(train, tmp_path) -> None:
    markdown, page, _ = written(tmp_path, card_facts({"train": train}, title="t"))
    for text in (markdown, page.text):
        assert text.index("leakage audit was not run") < text.index("What is in it")
        assert text.index("shortcut audit was not run") < text.index("What is in it")
    failed = [{"check": "times", "source": "films", "verdict": "failed", "compared": "x"}]
    markdown, _, _ = written(tmp_path, card_facts({"train": train}, title="t", leaks=failed))
    assert "- The leakage audit failed: times (films)." in markdown


def test_references_and_unclear_shortcuts_are_not_called_shortcuts() -> None:
    row = {"name": "n", "lists": "l", "accuracy": 0.4, "chance": 0.2, "low": 0.3, "high": 0.5}
    cases = [row, row | {"reads_history": True}, row | {"low": 0.1}, row | {"accuracy": 0.24}]
    noted = [any("above chance" in n for n in attention(CardFacts("t", shortcuts=[c])))
             for c in cases]  # fmt: skip
    assert noted == [True, False, False, False]
    other = row | {"name": "m, too"}
    several = attention(CardFacts("t", shortcuts=[row | {"source": "films"}, row, other]))
    assert several[-2].endswith("history in films: on l (chance 20.0%) “n” 40.0%.")
    assert several[-1].endswith("history: on l (chance 20.0%) “n” 40.0%, “m, too” 40.0%.")


def test_long_tables_are_folded(train, tmp_path) -> None:
    leaks = [{"check": f"c{i}", "source": "s", "verdict": "passed", "compared": "x"}
             for i in range(41)]  # fmt: skip
    for number, folded in ((40, False), (41, True)):
        facts = card_facts({"train": train}, title="t", leaks=leaks[:number])
        _, page, _ = written(tmp_path, facts)
        assert (f"{number} rows" in page.text) == folded
        assert f"{number} passed" in page.text
        assert f"c{number - 1}" in page.text


def test_shortcuts_on_all_lists_stay_open_beside_many_mixes(train, tmp_path) -> None:
    row = {"name": "position", "accuracy": 0.2, "chance": 0.2}
    rows = [row | {"lists": "mixed lists"}]
    rows += [row | {"lists": f"mix {i}"} for i in range(41)]
    facts = card_facts({"train": train}, title="t", shortcuts=rows)
    markdown, page, _ = written(tmp_path, facts)
    assert page.text.index("mixed lists") < page.text.index("41 rows") < page.text.index("mix 0")
    assert all(f"mix {i} " in markdown for i in range(41))


def test_single_values_of_the_manifest_share_a_heading(train, tmp_path) -> None:
    manifest = {"format": 1, "name": "n", "config": {"k": 2}}
    facts = card_facts({"train": train}, title="t", manifest=manifest)
    markdown, _, _ = written(tmp_path, facts)
    assert "## Build\n\n- format: 1\n- name: n\n\n## Config\n\n- k: 2\n" in markdown


@pytest.mark.parametrize("scenes", [{}, {"train": []}, {"train": [scene(0)]}])
def test_hardly_anything_still_makes_a_card(scenes, tmp_path) -> None:
    facts = card_facts({s: table(rows) for s, rows in scenes.items()}, title="")
    markdown, page, _ = written(tmp_path, facts)
    count = sum(map(len, scenes.values()))
    assert f"- **{count}** scenes" in markdown
    assert "Rationales" not in markdown + page.text
    assert page.tags.count("svg") == (4 if count else 0)


def test_scenes_without_any_list_or_rationale(tmp_path) -> None:
    one = table([scene(0, size=1)])
    weak, strong = (Predictions.of(role, ["train-0"], [[]]) for role in ("weak", "strong"))
    chosen = select(assess(one, weak, strong), size=1).table
    facts = card_facts({"train": one}, title="t", selection=chosen)
    assert facts.uncertainty == ()
    assert facts.samplers == []
    markdown, _, _ = written(tmp_path, facts)
    assert "no rationale by the strong model" in markdown


def test_a_table_of_another_form_is_refused() -> None:
    with pytest.raises(DataError, match=r"eval scenes lack .*'slate'"):
        card_facts({"eval": table([scene(0)]).drop_columns(["slate"])}, title="t")


def test_same_facts_same_bytes_and_no_leftovers(train, selection, tmp_path) -> None:
    facts = card_facts({"train": train}, title="t", selection=selection)
    first = [path.read_bytes() for path in write_card(tmp_path, facts)]
    again = [path.read_bytes() for path in write_card(tmp_path, facts)]
    assert first == again
    assert sorted(p.name for p in tmp_path.iterdir()) == ["card.html", "card.md"]


# --- Hostile text ------------------------------------------------------------------------------


@pytest.fixture
def hostile_card(tmp_path) -> tuple[str, Page, str]:
    rows = [scene(i, dataset=HOSTILE, domain=HOSTILE, samplers=[HOSTILE] * 4) for i in range(3)]
    facts = card_facts(
        {"train": table(rows)},
        title=HOSTILE + "\ud800",
        dropped={HOSTILE: {HOSTILE: 1}},
        usage=[{"role": HOSTILE, "model": HOSTILE, HOSTILE: {HOSTILE: HOSTILE}}],
        shortcuts=[{"name": HOSTILE, "lists": HOSTILE, "accuracy": 0.9, "chance": 0.1}],
        leaks=[{"check": HOSTILE, "source": HOSTILE, "verdict": "failed\" onclick=x",
                "compared": HOSTILE}, {"check": HOSTILE, "source": "s", "verdict": "failed"}],
        sources=[{"name": HOSTILE, "title": HOSTILE, "homepage": "javascript:alert(1)",
                  "terms": HOSTILE, "citation": HOSTILE}],
        manifest={HOSTILE: {HOSTILE: [HOSTILE]}, "plain": HOSTILE},
    )  # fmt: skip
    return written(tmp_path, facts)


def test_hostile_names_stay_text_in_html(hostile_card) -> None:
    _, page, text = hostile_card
    assert "script" not in page.tags
    assert page.handlers == []
    assert all(a.startswith(("#", "data:,")) for a in page.addresses)
    assert page.tags.count("style") == text.count("</style>") == 1
    assert "default-src 'none'" in text
    assert page.text.count("<script>alert(1)</script>") >= 15
    assert not set("\x1b\u202e\ud800") & set(text)


def test_hostile_names_stay_text_in_markdown(hostile_card) -> None:
    markdown, _, _ = hostile_card
    assert "<" not in markdown
    assert "$" not in markdown
    assert not set("\x1b\u202e\ud800\r\t") & set(markdown)
    # No heading but ours, no link, and every table keeps its number of columns.
    headings = [line for line in markdown.splitlines() if line.startswith("#")]
    assert sum(line.startswith("# ") for line in headings) == 1
    assert "](" not in markdown.replace("\\](", "")
    lines = markdown.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("| -"):
            head = lines[number - 1]
            bars = [row.replace("\\|", "").count("|") for row in (head, lines[number + 1])]
            assert bars[0] == bars[1] == line.count("|")


@given(st.text(max_size=40))
def test_any_text_is_one_safe_line_in_markdown(text: str) -> None:
    out = str(escape(cell(text)))
    assert len(out.splitlines()) <= 1
    assert not set("<>$") & set(out)
    bare = out.replace("\\\\", "").replace("\\|", "").replace("\\`", "").replace("\\*", "")
    assert not set("|`*") & set(bare)


# --- Text --------------------------------------------------------------------------------------


def test_values_as_text() -> None:
    values = [None, float("nan"), True, 1234567, 0.123456, {"a": 1}, {}, ["x", 2], (), "a\n b", ""]
    assert [cell(v) for v in values] == [
        "–", "–", "yes", "1,234,567", "0.1235", "a: 1", "–", "x, 2", "–", "a b", "–"
    ]  # fmt: skip


def test_settings_keep_their_numbers_as_they_are() -> None:
    nested = {
        "seed": 20261122, "scenes": {"k": [2, 12], "none": None, "empty": {}}, "on": False,
        "sources": [{"name": "a", "n": 1}, {}],
    }  # fmt: skip
    assert flatten(nested) == [
        ("seed", "20261122"), ("scenes.k", "2, 12"), ("scenes.none", "–"), ("scenes.empty", "–"),
        ("on", "no"), ("sources.0.name", "a"), ("sources.0.n", "1"), ("sources.1", "–"),
    ]  # fmt: skip


def test_tables_line_up_with_wide_letters_and_missing_values() -> None:
    text = markdown_table([{"name": "日本", "n_of": 3}, {"name": "a", "n_of": None, "late": "x"}])
    assert text.splitlines() == [
        "| name | n of | late |",
        "| ---- | ---: | ---- |",
        "| 日本 |    3 | –    |",
        "| a    |    – | x    |",
    ]


def test_histogram_in_characters() -> None:
    found = Histogram.of("t", "lines", {"a": np.array([2, 2, 3]), "b": np.array([3])})
    assert found is not None
    assert found.text() == (
        "lines  a                             b\n"
        "    2   66.7% █████████████▍           0.0%\n"
        "    3   33.3% ██████▋                100.0% ████████████████████"
    )
    assert found.spoken == "a most often 2 lines (67%); b most often 3 lines (100%)"


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30),
    st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), max_size=30),
)
def test_every_value_is_in_a_bin(a: list[float], b: list[float]) -> None:
    found = Histogram.of("t", "u", {"a": np.array(a), "b": np.array(b)})
    assert found is not None
    assert sum(found.series["a"]) == len(a)
    assert sum(found.series.get("b", ())) == np.isfinite(b).sum()
    assert len(found.bins) <= 20
    assert len(set(found.bins)) == len(found.bins)


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=30))
def test_every_whole_number_is_in_a_bin(a: list[int]) -> None:
    found = Histogram.of("t", "u", {"a": np.array(a)})
    assert found is not None
    assert sum(found.series["a"]) == len(a)


def test_edges_are_round_numbers() -> None:
    assert round_edges(0.03, 2.3).tolist() == pytest.approx(np.arange(0, 2.5, 0.2).tolist())
    assert 0.6 in round_edges(0.03, 2.3).tolist()
    assert round_edges(130, 1090)[[0, 1, -1]].tolist() == [100, 200, 1100]
    assert Histogram.of("t", "u", {"a": np.array([]), "b": np.array([np.nan])}) is None


def test_importing_the_card_does_not_load_matplotlib(tmp_path) -> None:
    code = (
        "import usermirror_gym.corpus.card.card, usermirror_gym.corpus.selection.select, sys; "
        "print([m for m in ('matplotlib', 'torch', 'transformers', 'datasets', 'trl') "
        "if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert out.stdout.strip() == "[]"
