"""report.html: self-contained, inert against hostile text, and complete."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from usermirror_gym.benchmark import report as report_module
from usermirror_gym.benchmark.metrics import METRICS
from usermirror_gym.benchmark.plots import all_plots, click_curves
from usermirror_gym.benchmark.report import fidelity_panel, headline, is_best, write_report
from usermirror_gym.benchmark.summary import summarise
from usermirror_gym.benchmark.viewer import viewer_data
from usermirror_gym.data import TimeSplit
from usermirror_gym.report.plots import place_labels

QUALITY = {"Random": 0.15, "Pop": 0.45, "EASE": 0.75}
OFFLINE = {name: {"ndcg@10": value / 2} for name, value in QUALITY.items()}
HOSTILE_AGENT = "<b>$x_1$</b></script><script>document.title='pwned'</script>"


class Page(HTMLParser):
    """What a browser would make of a page: tags, event handlers, references, script bodies."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.references: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        outside = ("src", "href", "xlink:href", "action")
        self.references += [value or "" for name, value in attrs if name in outside]
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        if tag in self._inside:
            while self._inside.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        inside = self._inside[-1] if self._inside else ""
        if inside == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif inside != "style":
            self.text += data


@pytest.fixture
def make_report(make_log, fidelity, tmp_path) -> Callable[..., str]:
    def make(split: TimeSplit, quality: dict[str, float] = QUALITY, **more) -> str:
        log = make_log(split, quality, **{k: v for k, v in more.items() if k != "max_episodes"})
        offline = OFFLINE | {HOSTILE_AGENT: {"ndcg@10": 0.2}}
        results = summarise(log, split, offline, config={"note": HOSTILE_AGENT}, fidelity=fidelity)
        limit = {k: v for k, v in more.items() if k == "max_episodes"}
        return write_report(results, log, split, tmp_path / "r.html", **limit).read_text("utf-8")

    return make


def episode_json(text: str) -> dict:
    (body,) = [b for a, b in Page(text).scripts if a.get("type") == "application/json"]
    return json.loads(body)


def test_page_needs_nothing_from_outside(make_report, split) -> None:
    text = make_report(split)
    assert all(r.startswith(("#", "data:,")) for r in Page(text).references)
    assert not re.search(r"(src|href)\s*=\s*[\"']?https?:", text)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "default-src 'none'" in text


def test_fidelity_comes_before_the_ranking(make_report, split, fidelity) -> None:
    text = make_report(split)
    assert text.index(fidelity["verdict"]) < text.index('id="main-table"')
    words = " ".join(Page(text).text.split())
    assert "Own history minus another user’s: +14.0 points" in words
    assert "51.0%" in words


def test_paired_gap_is_shown_with_its_interval(fidelity) -> None:
    paired = {"mean": 0.14, "low": 0.05, "high": 0.23}
    blocks = fidelity_panel(fidelity | {"gaps": {"uniform": paired}})
    assert blocks[0]["gap"] == paired
    # Without the check's own interval the difference stands alone.
    assert blocks[1]["gap"] == {"mean": pytest.approx(0.12), "low": None, "high": None}


def test_what_became_of_servers_and_answers_is_said(make_log, split, tmp_path) -> None:
    log = make_log(split, QUALITY, episodes=3)
    well = {"answered": 90, "failed": 0, "down": False, "last_error": None}
    dead = {"answered": 30, "failed": 5, "down": True, "last_error": "<cut>"}
    engine = {"replicas": {"a:1": well, "b:2": dead}, "answers": {"hit_rate": 0.25}}

    def page(report: dict) -> str:
        results = summarise(log, split, timing={"engine": report})
        return write_report(results, log, split, tmp_path / "r.html").read_text("utf-8")

    text = page(engine)
    assert "The server b:2 failed 5 times (&lt;cut&gt;) and answered 30 questions" in text
    assert "The server a:1" not in text
    assert "25.0% of the model&#39;s answers came from the answer store" in text
    assert "estimates from sampled answers" in page({"replicas": {}, "unreadable_samples": 3})
    assert 'class="note wrap"' not in page({"replicas": {"a:1": well}})


def test_missing_fidelity_is_said_loudly(make_log, split, tmp_path) -> None:
    log = make_log(split, QUALITY, episodes=3)
    path = write_report(summarise(log, split), log, split, tmp_path / "deep" / "r.html")
    assert "The fidelity check was not run" in path.read_text("utf-8")


def test_hostile_titles_and_names_are_inert(make_report, hostile_split) -> None:
    harmless = Page(make_report(hostile_split))
    quality = QUALITY | {HOSTILE_AGENT: 0.6}
    page = Page(make_report(hostile_split, quality, rationale="</script><i>"))
    assert len(page.scripts) == 2
    assert page.handlers == []
    assert set(page.tags) == set(harmless.tags)
    assert "i" in page.tags  # of the fidelity panel; the rationale adds none
    assert page.tags.count("i") == harmless.tags.count("i")
    assert HOSTILE_AGENT in page.text


def test_hostile_text_arrives_unchanged_in_the_viewer(make_report, hostile_split) -> None:
    text = make_report(hostile_split, rationale="because </script> \u2028 & <b>")
    data = episode_json(text)
    titles = hostile_split.dataset.titles
    shown = {int(k): v[0] for k, v in data["items"].items()}
    for item, title in shown.items():
        assert title == titles[item] or (len(title) == 160 and titles[item].startswith(title[:-1]))
    assert data["log"]["EASE"]["0"][0]["why"] == "because </script> \u2028 & <b>"


def test_viewer_holds_the_steps_as_logged(make_log, split) -> None:
    log = make_log(split, QUALITY, episodes=2)
    data = viewer_data(log, split)
    first = log[(log["agent"] == "EASE") & (log["episode"] == 1)]
    steps = data["log"]["EASE"]["1"]
    assert [s["slate"] for s in steps] == first["slate"].tolist()
    assert [s["choice"] for s in steps] == first["choice"].tolist()
    assert steps[0]["p"] == pytest.approx(first["probabilities"].iloc[0], abs=1e-4)
    assert steps[-1]["end"] == ("left" if first["terminated"].iloc[-1] else "horizon")
    user = data["users"]["2"]
    assert user["history"] == [[1, 4.0], [2, 4.0]]  # before the cut only
    assert ["gender", "F"] in user["profile"]


def test_large_runs_embed_a_bounded_number_of_episodes(make_report, split) -> None:
    text = make_report(split, episodes=12, max_episodes=5)
    data = episode_json(text)
    assert [len(data["log"][a]) for a in data["agents"]] == [5, 5, 5]
    assert "The first 5 of 12 episodes per agent are embedded" in Page(text).text


def test_best_is_only_claimed_where_the_paired_interval_allows(make_log, split) -> None:
    close = summarise(make_log(split, {"Pop": 0.5, "EASE": 0.501}), split)["agents"]
    apart = summarise(make_log(split, QUALITY, episodes=30), split)["agents"]
    for agents, expected in ((close, []), (apart, ["EASE"])):
        best = [a["name"] for a in agents if is_best(a, METRICS["expected_click"], agents, "Pop")]
        assert best == expected
    worse = summarise(make_log(split, {"Pop": 0.7, "Random": 0.1}, episodes=30), split)["agents"]
    assert is_best(worse[0], METRICS["expected_click"], worse, "Pop")
    assert not any(is_best(a, METRICS["novelty"], apart, "Pop") for a in apart)


def test_headline_names_who_is_above_and_below(make_log, split) -> None:
    text = headline(summarise(make_log(split, QUALITY, episodes=30), split))
    assert text == "Expected click against Pop: above it EASE; below it Random."


def test_one_agent_one_episode_one_step_still_renders(make_report, split) -> None:
    text = make_report(split, {"EASE": 0.5}, episodes=1, steps=1)
    assert "1 recommender, one simulated user" in Page(text).text
    assert "Only EASE was run" in Page(text).text


def test_failed_write_keeps_the_old_report(make_log, split, tmp_path, monkeypatch) -> None:
    log = make_log(split, QUALITY, episodes=2)
    path = tmp_path / "report.html"
    path.write_text("old")

    def broken(*_: object) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(report_module.Path, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_report(summarise(log, split), log, split, path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_plots_have_text_ids_of_their_own_and_theme_colours(make_log, split) -> None:
    log = make_log(split, QUALITY)
    plots = all_plots(summarise(log, split, OFFLINE), log)
    assert [p.title for p in plots][1] == "Does offline accuracy predict the sessions?"
    ids = [i for p in plots for i in re.findall(r'\bid="([^"]+)"', p.svg)]
    assert len(ids) == len(set(ids))
    for plot in plots:
        assert set(re.findall(r"#[0-9a-f]{6}\b", plot.svg)) <= {"#000000", "#ffffff"}
        assert ">EASE</text>" in plot.svg
        assert "EASE" in plot.alt
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', plot.svg))
        assert used <= set(ids)


def test_plots_are_the_same_every_time(make_log, split) -> None:
    log = make_log(split, QUALITY, episodes=3)
    results = summarise(log, split, OFFLINE)
    assert all_plots(results, log) == all_plots(results, log)


def test_users_who_left_count_as_no_click(make_step) -> None:
    rows = [make_step("A", 0, 0, [1, 2], 0), make_step("A", 0, 1, [1, 2], 0),
            make_step("A", 1, 0, [1, 2], 2, terminated=True)]  # fmt: skip
    assert click_curves(pd.DataFrame(rows)).loc["A"].tolist() == [0.5, 0.5]


def test_labels_of_crowded_points_do_not_overlap() -> None:
    axes = Figure(figsize=(5.7, 4), dpi=72).subplots()
    x = [0.50, 0.50, 0.505, 0.51, 0.51, 0.515, 0.9, 0.0]
    y = [0.50, 0.505, 0.50, 0.51, 0.50, 0.505, 0.9, 0.0]
    axes.scatter(x, y)
    boxes = place_labels(axes, x, y, [f"Model{i}" for i in range(8)])
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            apart = a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]
            assert apart
