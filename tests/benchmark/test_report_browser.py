"""The report in a real browser: the viewer runs, and hostile text stays text."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from usermirror_gym.benchmark.report import write_report
from usermirror_gym.benchmark.summary import summarise

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=3000", "--window-size=1400,1000",
)  # fmt: skip
QUALITY = {"Pop": 0.45, "EASE": 0.75}


def dom(path: Path, profile: Path) -> str:
    """The page after its scripts have run."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def drive(path: Path, script: str) -> Path:
    """A copy of the report that runs ``script`` at its end (its security policy taken out)."""
    text = re.sub(r"<meta http-equiv=[^>]*>", "", path.read_text("utf-8"))
    copy = path.with_name("driven.html")
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    return copy


@pytest.fixture
def report(make_log, hostile_split, fidelity, tmp_path) -> Path:
    log = make_log(hostile_split, QUALITY, rationale="I </script><b>like</b> it")
    results = summarise(log, hostile_split, fidelity=fidelity)
    return write_report(results, log, hostile_split, tmp_path / "report.html")


def lane(page: str, number: int) -> str:
    """The text of one lane of the viewer."""
    body = page[page.index('id="lanes"') :].split('class="lane"')[number + 1]
    return html.unescape(re.sub(r"<[^>]+>", "", body.split("</section>")[0]))


def test_viewer_shows_the_first_step_and_hostile_titles_as_text(report, make_log, hostile_split,
                                                                tmp_path) -> None:  # fmt: skip
    page = dom(report, tmp_path / "profile")
    title = re.search(r"<title>(.*?)</title>", page)
    assert title is not None
    assert title[1].startswith("Interactive benchmark")
    assert "<img" not in page
    # The best agent stands beside the baseline; every option of its first slate is there.
    log = make_log(hostile_split, QUALITY)
    for number, agent in enumerate(("EASE", "Pop")):
        text = lane(page, number)
        first = log[(log["agent"] == agent) & (log["episode"] == 0)].iloc[0]
        for item in first["slate"]:
            assert hostile_split.dataset.titles[item][:100] in text
        assert "None of these" in text
        assert "I </script><b>like</b> it" in text
        assert text.count("✓ chosen") == 1
        assert f"{100 * first['probabilities'][-1]:.1f}%" in text


def test_arrow_keys_move_and_sum_up_the_reward(report, make_log, hostile_split, tmp_path) -> None:
    keys = """
      const press = () => document.body.dispatchEvent(
        new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
      press(); press();"""
    page = dom(drive(report, keys), tmp_path / "profile")
    log = make_log(hostile_split, QUALITY)
    steps = log[(log["agent"] == "EASE") & (log["episode"] == 0)]
    assert re.search(r'<output[^>]*id="where"[^>]*>step 3 of ', page)
    total = int(steps["reward"].iloc[:3].sum())
    assert f"Return so far{total}" in lane(page, 0)


def test_choosing_another_agent_and_episode_changes_the_lane(report, make_log, hostile_split,
                                                             tmp_path) -> None:  # fmt: skip
    script = """
      const set = (id, value) => { const e = document.getElementById(id); e.value = value;
        e.dispatchEvent(new Event('change')); };
      set('agent', 'Pop'); set('other', ''); set('episode', '3');"""
    page = dom(drive(report, script), tmp_path / "profile")
    log = make_log(hostile_split, QUALITY)
    first = log[(log["agent"] == "Pop") & (log["episode"] == 3)].iloc[0]
    assert page[page.index('id="lanes"') :].count('class="lane"') == 1
    assert all(hostile_split.dataset.titles[i][:100] in lane(page, 0) for i in first["slate"])
    assert f"<h3>User {first['user_id']}</h3>" in page


def test_clicking_a_header_sorts_the_table(report, tmp_path) -> None:
    def order(page: str) -> list[str]:
        return re.findall(r'<th scope="row" data-v="([^"]+)"', page)

    assert order(dom(report, tmp_path / "profile")) == ["EASE", "Pop"]
    click = "document.querySelectorAll('#main-table thead button')[2].click();"
    page = dom(drive(report, click), tmp_path / "profile")
    assert order(page) == ["Pop", "EASE"]
    assert 'aria-sort="ascending"' in page
