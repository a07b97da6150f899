from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from usermirror_gym.data import time_cut
from usermirror_gym.envs import SlateEnv, make_world
from usermirror_gym.envs.render import render_ansi
from usermirror_gym.testing.data import tiny_split

HOSTILE = [
    "<script>alert('x')</script>",
    "A [B] film\nwith a second line",
    "[bold red]markup[/bold red]",
    "\x1b[31mred\x1b[0m",
    "x" * 10_000,
    "\u202egnirts desrever",
    "' onmouseover='alert(1)",
]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def hostile_world(scripted):
    data = tiny_split().dataset
    items = data.items.copy()
    items.loc[range(1, len(HOSTILE) + 1), "title"] = HOSTILE
    probs = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625, 0, 0, 0.0])
    simulator = scripted(lambda b: np.tile(probs, (len(b), 1)))
    return make_world(time_cut(replace(data, items=items)), simulator=simulator)


def plain(ansi: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", ansi)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_ansi_shows_hostile_titles_as_plain_text_within_its_width(hostile_world, width):
    env = SlateEnv(hostile_world, slate_size=7, render_mode="ansi")
    env.reset(seed=0)
    env.step(np.arange(1, 8))
    assert env.render() == render_ansi(env.view(), width=80)
    lines = plain(render_ansi(env.view(), width=width)).splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "(bold red)mark" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    for line, share in zip([x for x in lines if "%" in x], ("50.0%", "25.0%"), strict=False):
        assert line.endswith(share)
    assert sum("%" in line for line in lines) == 8  # one line per option: nothing wraps
    assert "█" * 10 in text
    assert "█" * 11 not in text


def test_html_escapes_hostile_titles(hostile_world):
    env = SlateEnv(hostile_world, slate_size=7, render_mode="html")
    env.reset(seed=0)
    env.step(np.arange(1, 8))
    page = env.render()
    parser = Tags()
    parser.feed(page)
    assert set(parser.tags) <= {"style", "div", "h4", "span", "p", "b", "i"}
    assert set(parser.attributes) <= {"class", "style", "title"}
    assert "<script>alert('x')</script>" in parser.text
    assert "width:50.0%" in page
    assert len(page) < 10_000


def test_the_list_the_choice_and_the_score_are_there(world_of, always):
    env = SlateEnv(world_of(always(2)), render_mode="ansi")
    env.reset(seed=0)
    assert "The session begins." in env.render()
    env.step([1, 2, 3, 4, 5])
    *_, info = env.step([11, 12, 13, 14, 15])
    text = plain(env.render())
    chosen = next(line for line in text.splitlines() if line.startswith(">"))
    assert "Film 13 " in chosen
    assert chosen.endswith("100.0%")
    assert f"Chosen: Film 13 (1992), rated {info['rating']:g}. Reward 1.00, return 2.00." in text
    assert "This session: Film 3 (1982)\n" in text
    assert "List 2" in text


def test_leaving_is_said(world_of, always):
    env = SlateEnv(world_of(always(5)), session=1, render_mode="html")
    env.reset(seed=0)
    env.step([1, 2, 3, 4, 5])
    assert "Chosen: none of these. The user leaves." in env.render()


def test_long_histories_show_their_end(world):
    env = SlateEnv(world, render_mode="ansi")
    _, info = env.reset(seed=0)
    history = info["text"]["history"]
    text = " ".join(plain(env.render()).split())
    assert len(history) > 5
    assert f"Watched before: ({len(history) - 5} more) … {history[-5]}; " in text
    assert history[-1] in text
    assert history[0] not in text


def test_without_a_render_mode_there_is_a_warning(world):
    env = SlateEnv(world)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode='ansi' or 'html'"):
        assert env.render() is None


def test_info_tells_the_scene_in_words(world_of, always):
    env = SlateEnv(world_of(always(0)))
    env.reset(seed=0)
    env.step([1, 2, 3, 4, 5])
    *_, info = env.step([6, 7, 7, 8, 9])
    assert info["text"]["slate"][0].startswith("Film 6 (1985), Action")
    assert len(info["text"]["slate"]) == 4
    assert info["text"]["session"] == ["Film 1 (1980)"]
    assert "text" not in SlateEnv(world_of(always(0)), text=False).reset(seed=0)[1]
