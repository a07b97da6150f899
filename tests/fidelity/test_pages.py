"""card.json, card.md, card.html: complete, inert against hostile text, and no more than true."""

from __future__ import annotations

import copy
import html as html_module
import importlib.util
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from usermirror_gym.errors import RunError
from usermirror_gym.fidelity.checks import CHECKS, criteria, sentences
from usermirror_gym.fidelity.checks.parts import sorted_choosers
from usermirror_gym.fidelity.checks.scores import Scores
from usermirror_gym.fidelity.checks.slices import rival
from usermirror_gym.fidelity.pages import (
    card_plots,
    read_card,
    render_html,
    render_markdown,
    summary_table,
    write_card,
)
from usermirror_gym.report.text import interval, plus_minus, standing

spec = importlib.util.spec_from_file_location(
    "fidelity_example", Path(__file__).with_name("fidelity_example.py")
)
assert spec is not None
assert spec.loader is not None
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)
block = example.block
HOSTILE = "<img src=x onerror=alert(1)>|`[x](javascript:1)` \ud800$a$"
Card = dict[str, Any]


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.references: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.fixture
def card() -> Card:
    made = example.example_card()
    made["verdict"] = sentences(made)
    return made


def said(card: Card, start: str) -> str:
    """The one sentence of the verdict that begins so."""
    (sentence,) = [s for s in sentences(card) if s.startswith(start)]
    return sentence


def versus(card: Card, name: str, accuracy: dict, loss: dict) -> Card:
    """The card with other differences to one chooser."""
    card = copy.deepcopy(card)
    (pair,) = [p for p in card["paired"] if p["against"] == name]
    pair |= {"accuracy": accuracy, "log_loss": loss}
    return card


def test_all_three_forms_are_written_and_the_numbers_read_back(card: Card, tmp_path: Path) -> None:
    html, markdown, data = write_card(card, tmp_path / "new")
    assert read_card(tmp_path / "new") == read_card(data) == json.loads(data.read_text())
    assert read_card(data)["choosers"][0]["overall"]["forced"]["accuracy"]["mean"] == 0.472
    for path in (html, markdown):
        text = html_module.unescape(path.read_text("utf-8"))
        for chooser in card["choosers"]:
            assert chooser["name"] in text
        for sentence in card["verdict"]:
            assert sentence.split(" [")[0].split(": ")[0] in text
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "card.html", "card.json", "card.md",
    ]  # fmt: skip


def test_the_page_holds_every_plot_and_table_and_nothing_from_outside(card: Card) -> None:
    text = render_html(card)
    page = Page(text)
    assert page.tags.count("svg") == len(card_plots(card)) == 5
    assert page.tags.count("table") == 7
    assert "script" not in page.tags
    assert page.handlers == []
    assert all(r.startswith(("data:", "#")) for r in page.references)
    # Ids of several plots on one page must not meet.
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_hostile_names_stay_text(card: Card, tmp_path: Path) -> None:
    card["choosers"][0]["name"] = card["simulator"]["name"] = HOSTILE
    card["simulator"]["options"] = {HOSTILE: HOSTILE}
    card["scenes"]["source"] = HOSTILE
    card["probes"][0]["name"] = card["outside"]["ladder"][0]["lists"] = HOSTILE
    for chooser in card["choosers"]:
        chooser["slices"]["user"][0]["value"] = HOSTILE
    card["verdict"] = [*sentences(card), HOSTILE]
    html, markdown, _ = write_card(card, tmp_path)
    page = Page(html.read_text("utf-8"))
    assert "img" not in page.tags
    assert page.handlers == []
    text = markdown.read_text("utf-8")
    assert "<img" not in text
    assert "[x](" not in text
    assert "`" not in text.replace("\\`", "")
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if line[:1] == "|"}
    assert widths <= {3, 4, 5, 6, 7, 10}


PARTS = ("history", "outside", "order", "probes", "paired", "calibration", "slices", "positions")


def without(card: Card, part: str) -> Card:
    """The card of which a part could not be computed."""
    for owner in [card] if part in card else card["choosers"]:
        owner[part] = type(owner[part])() if isinstance(owner[part], list) else None
    return card


@pytest.mark.parametrize("part", PARTS)
def test_a_card_without_a_part_is_shown_without_it(card: Card, part: str) -> None:
    whole = render_markdown(card)
    without(card, part)
    card |= {"bars": criteria(card), "verdict": sentences(card)}
    assert len(render_markdown(card)) < len(whole)


def test_a_card_of_hardly_anything_is_a_page(card: Card) -> None:
    for part in PARTS:
        without(card, part)
    card["bars"] = criteria(card)
    card["base"] = None
    card["choosers"] = card["choosers"][:1]
    card["choosers"][0]["overall"]["outside"] = None
    card["verdict"] = sentences(card)
    page = Page(render_html(card))
    assert page.tags.count("svg") == 1
    assert page.tags.count("table") == 2
    assert len(card["verdict"]) == 1


def test_a_card_without_any_interval_claims_nothing(card: Card) -> None:
    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            value = {k: strip(v) for k, v in value.items()}
            if {"mean", "low", "high"} <= value.keys():
                return {"mean": value["mean"], "low": None, "high": None}
        return [strip(v) for v in value] if isinstance(value, list) else value

    bare = strip(card)
    claimed = " ".join(sentences(bare))
    for claim in ("beats", "loses", "raises", "falls", "reads the history ("):
        assert claim not in claimed
    assert "does not differ beyond chance from" in claimed
    bare["verdict"] = sentences(bare)
    assert "▲" not in render_markdown(bare).replace("▲ the simulator", "")


def test_who_is_beaten_and_who_is_not(card: Card) -> None:
    controls = said(card, "Against the controls")
    assert "beats uniform, position, popularity and list only in accuracy and log-loss" in controls
    assert "nearest comes list only (+11.0 [+9.5, +12.5] points, -0.189" in controls
    classic = said(card, "Against the classic baselines")
    assert "beats Pop, BPR, SASRec, logit and trees" in classic
    assert "does not differ beyond chance from ItemKNN (+0.7 [-0.8, +2.2] points" in classic
    assert "EASE (-0.9" in classic
    assert "loses to stack (-4.9" in said(card, "Against the upper reference")


@pytest.mark.parametrize(
    ("accuracy", "loss", "words"),
    [
        (0.03, 0.0, "beats EASE ({}) in accuracy only (log-loss does not differ beyond chance)"),
        (0.0, -0.04, "beats EASE ({}) in log-loss only (accuracy does not differ beyond chance)"),
        (0.0, 0.04, "loses to EASE ({}) in log-loss only (accuracy does not differ beyond chance)"),
        (0.03, 0.04, "has the better accuracy but the worse log-loss than EASE ({})"),
        (-0.03, -0.04, "has the better log-loss but the worse accuracy than EASE ({})"),
        (-0.03, 0.04, "loses to EASE ({}) in accuracy and log-loss"),
        (0.0, 0.0, "does not differ beyond chance from ItemKNN"),
    ],
)
def test_each_outcome_has_its_words(card: Card, accuracy: float, loss: float, words: str) -> None:
    card = versus(card, "EASE", block(accuracy, 0.01), block(loss, 0.01))
    numbers = f"{interval(block(accuracy, 0.01), '.1f', scale=100, sign=True)} points, "
    numbers += f"{interval(block(loss, 0.01), '.3f', sign=True)} nats"
    assert words.format(numbers) in said(card, "Against the classic baselines")


@pytest.mark.parametrize(
    ("accuracy", "loss", "words"),
    [
        (0.13, -0.2, "It reads the history (own minus another user's history of any length:"),
        (0.0, -0.2, "It reads the history by its log-loss, not shown by its accuracy"),
        (0.13, 0.0, "It reads the history by its accuracy, not shown by its log-loss"),
        (0.0, 0.0, "It is not shown to read the history"),
        (-0.1, 0.2, "Another user's history serves it better"),
        (-0.1, 0.0, "Another user's history serves it better"),
    ],
)
def test_what_is_said_of_the_history(card: Card, accuracy: float, loss: float, words: str) -> None:
    card["history"] = {"accuracy": block(accuracy, 0.02), "log_loss": block(loss, 0.02)}
    assert said(card, words[:12]).startswith(words)


def test_how_long_the_swapped_histories_are_is_said(card: Card) -> None:
    card["scenes"]["swapped_as_long"] = 1.0
    assert said(card, "It reads").startswith(
        "It reads the history (own minus another user's history of the same length: +13.1"
    )
    card["scenes"]["swapped_as_long"] = 0.97
    assert "history of the same length (for 97.0% of the lists): +13.1" in said(card, "It reads")
    assert "swapped histories as long as the own: 97.0%" in render_markdown(card)


def test_a_history_that_helps_one_score_and_harms_the_other_is_said_as_such(card: Card) -> None:
    card["history"] = {"accuracy": block(0.1), "log_loss": block(0.2)}
    assert "gives it the better accuracy and the worse log-loss (" in said(card, "It reads")


def test_the_ladder_falls_only_where_that_is_shown(card: Card) -> None:
    assert said(card, "Mean probability").endswith("It falls at every step to better lists.")
    steps = card["outside"]["ladder"]
    steps[1]["p_none"] = block(0.305, 0.01)
    assert "It falls from popular to collaborative and from collaborative to true item present, " \
        "is not shown to fall from random to popular." in said(card, "Mean")  # fmt: skip
    steps[1]["fall"] = block(0.005, 0.002)  # the same users: a paired interval knows more
    assert said(card, "Mean probability").endswith("It falls at every step to better lists.")
    steps[3]["p_none"] = block(0.25, 0.01)
    assert "rises from collaborative to true item present" in said(card, "Mean probability")


def test_calibration_is_judged_against_chance(card: Card) -> None:
    calibration = card["choosers"][0]["calibration"]
    calibration["if_calibrated"] = {"mean": 0.02, "high": 0.03}
    assert "0.021 [0.015, 0.027], no more than chance explains (up to 0.030" in said(
        card, "Its likeliest"
    )
    calibration["ece"] = block(0.05, 0.01)
    assert "0.050 [0.040, 0.060], more than chance explains" in said(card, "Its likeliest")


@pytest.mark.parametrize(
    ("auc", "words"), [(0.7, " it tells "), (0.51, "not shown to tell"), (0.4, "is wrong about")]
)
def test_none_of_these_is_judged_against_a_coin(card: Card, auc: float, words: str) -> None:
    card["outside"]["auc"] = block(auc)
    assert words in said(card, "By its probability")


def test_a_simulator_without_any_order_effect_is_said_to_have_none(card: Card) -> None:
    card["order"] |= {"mean_change": block(2e-7, 1e-7), "argmax_flips": block(0.0, None)}
    card["choosers"][0]["positions"] = [block(0.2, None)] * 5
    assert "The order of the list changes nothing." in sentences(card)
    assert "It gives all places of the list the same." in sentences(card)
    titles = [table.title for check in CHECKS for table in check.tables(card) if table]
    assert not any("Averaged" in title for title in titles)


def test_choosers_are_sorted_and_marked_by_the_paired_difference(card: Card) -> None:
    view = Scores().tables(card)[0]
    losses = [c["overall"]["forced"]["log_loss"]["mean"] for c in sorted_choosers(card)]
    assert losses == sorted(losses)
    marks = {row[0].text: (row[4].mark, row[5].mark) for row in view.rows}
    assert marks["stack"] == ("worse", "worse")
    assert marks["EASE"] == ("", "")
    assert marks["Pop"] == ("better", "better")
    assert view.strong is not None
    assert view.rows[view.strong][0].text == "smollm2-ml100k"
    assert (rival(card) or {})["name"] == "EASE"  # the stack is no rival


def test_the_summary_fits_a_terminal(card: Card) -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary_table(card))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 100
    (line,) = [line for line in text.splitlines() if line.startswith(" Pop ")]
    assert re.search(r"33\.1±2\.0 +1\.468±0\.020 +\+14\.1±1\.5 ▲ +-0\.227±0\.015 ▲", line)


def test_markdown_tables_line_up(card: Card) -> None:
    lines = [line for line in render_markdown(card).splitlines() if line.startswith("|")]
    assert lines
    header = next(line for line in lines if line.startswith("| chooser"))
    table = lines[lines.index(header) : lines.index(header) + 2 + len(card["choosers"])]
    assert len({len(line) for line in table}) == 1
    assert "\\[" not in "".join(table)


def test_numbers_by_hand() -> None:
    assert interval(block(0.5123, 0.0211), ".1f", scale=100) == "51.2 [49.1, 53.3]"
    assert interval(block(-0.0001, None), ".3f", sign=True) == "+0.000"
    assert interval({"mean": None, "low": None, "high": None}, ".3f") == "–"
    assert plus_minus(block(0.5123, 0.0211), ".1f", scale=100) == "51.2±2.1"
    assert standing(block(0.02, 0.01)) == "better"
    assert standing(block(0.02, 0.01), lower_is_better=True) == "worse"
    assert standing(block(0.01, 0.01)) == ""  # it touches zero
    assert standing(None) == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "run 'usermirror evaluate' to its end first"),
        ("{", "cannot read"),
        ("[]", "no fidelity card of format 2"),
        ('{"format": 1, "choosers": [], "scenes": {}, "simulator": {}}', r"\(format 1\)"),
    ],
)
def test_what_is_no_card_is_an_error(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "card.json").write_text(content)
    with pytest.raises(RunError, match=message):
        read_card(tmp_path)
