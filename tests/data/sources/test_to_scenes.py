"""From raw files to scenes, for every source: what a person reads in the end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from usermirror_gym.data import SOURCES, RecDataset, time_cut
from usermirror_gym.data.raw.reading import ReadLog
from usermirror_gym.data.sources.base import Limits
from usermirror_gym.data.sources.goodreads import Goodreads
from usermirror_gym.scenes import PromptBuilder, Rankers, ScenePlan, domain_text, draw_scenes
from usermirror_gym.scenes.draw.columns import SceneColumns
from usermirror_gym.scenes.draw.impressions import draw_impressions
from usermirror_gym.scenes.table import scenes_of
from usermirror_gym.scenes.words.render import distinct_options, scene_table
from usermirror_gym.types import AVAILABLE_FROM

UGLY = re.compile(
    r"\bnan\b|\bNone\b|<NA>|\bNaT\b|\bnull\b|\bUNKNOWN\b"  # words of programs
    r"|\[|\]|\{|\}|\\[nrtux]|&#?\w+;|<br"  # marks of programs
    r"|  |\n|^\s|\s$|\( |\(\)|\"\"| [,;:.)]"  # gaps
    r"|[,;:] ?[,;:.]|[,;:(]$|^[,;:.)]"  # separators with nothing behind or before them
)
"""What no text shows that was made of tidy values."""

BROKEN = re.compile(r"<NA>|\bNaT\b|\bnan\b|\['|&amp;|  |\n|^\s|\s$|, ,|; ;|[,;]$")
"""What not even people's own titles and reviews excuse."""

# Of each source: an option, a history line and a profile that must be read, to the letter.
READS = {
    "ml-100k": (
        "The Quiet Lantern (1969), Adventure",
        "Paper Staircase (Le Café) (1998), rated 4 of 5",
        "A woman, 23 years old.",
    ),
    "ml-1m": (
        "The Quiet Lantern (1942), Comedy",
        "Paper Staircase (Le Café) (1998), rated 4 of 5",
        "A man, 17 years old, occupation student.",
    ),
    "mind": (
        "Quiet Lantern reopens, section food and drink",
        "Paper Signal reopens, section Middle East, 12 hours ago",
        "",
    ),
    "steam": (
        "Quiet Lantern (2015), Indie, by Two Owls; tags: Puzzle & 2D; features: Single-player; "
        "3 reviews; $5.00",
        'Copper Harbour; 1204.5 hours played; my review: "Fun, and long."',
        "Owns 1 game.",
    ),
    "goodreads": (
        "Quiet Lantern, Vol. 2, by Ida Moor; Gull Press, 1991, 40 pages; mean rating 3.90 of 5, "
        "1 rating",
        "Quiet Harbour, Vol. 1",
        "",
    ),
    "lastfm": (
        "Quiet Signal; tags: café, folk; 1 friend listened to it",
        'Copper Signal; I tagged it "folk, café, rainy day", played 29 times',
        "",
    ),
    "kuairec": (
        "Copper Lantern; Pets / Cats 7, 9 s; 343 plays, 7 likes, 1 comment, 0 shares",
        "Pets / Cats 9; watched 135% of it (12 s)",
        "2 friends, follows 5 accounts, 35 followers, highly active.",
    ),
    "mobilerec": (
        "Quiet Lantern, Weather, by Shoreline; $1.50; mean rating 4.1 of 5, 1,001 reviews",
        'Quiet Harbour; rated 1 of 5; my review: "Works, mostly"',
        "",
    ),
    **dict.fromkeys(
        ("amazon-beauty", "amazon-fashion", "amazon-grocery", "amazon-office"),
        (
            "Quiet Lantern hat, 1 cm; Clothing; $4.50; mean rating 4.1 of 5, 1 rating",
            'Quiet Harbour hat, 0 cm; rated 1 of 5; my review: "Warm & soft"',
            "",
        ),
    ),
}


def built(data: RecDataset, **plan: Any) -> Iterator[tuple[SceneColumns, pa.Table]]:
    """Scenes before the cut and after it."""
    split = time_cut(data)
    rankers, text = Rankers(split), domain_text(data)
    settings = {"count": 500, "slate_size": (2, 6), "history": (2, 10), "min_history": 2, **plan}
    draw = draw_impressions if data.impressions else draw_scenes
    for name, window in (("train", (None, split.t0)), ("eval", (split.t0, None))):
        columns = distinct_options(draw(rankers, ScenePlan(**settings), window), text)
        yield columns, scene_table(columns, rankers, text, name)


def check(data: RecDataset, scenes: list[dict[str, Any]], ugly: re.Pattern[str] = UGLY) -> None:
    """Every scene is whole, shows only what was on offer, and reads well."""
    for scene in scenes:
        texts = [scene["profile"], *scene["history_texts"], *scene["options"]]
        assert [text for text in texts if ugly.search(text)] == []
        assert all(scene["history_texts"])
        assert all(scene["options"])
        assert len(set(scene["options"])) == len(scene["options"]) >= 1
        assert scene["profile"] == "" or scene["profile"].endswith(".")
        for line, behaviour in zip(scene["history_texts"], scene["behaviours"], strict=True):
            assert behaviour in line
    if AVAILABLE_FROM in data.items:
        since = data.items[AVAILABLE_FROM].astype("float").fillna(-np.inf)
        assert all(since[scene["slate"]].max() <= scene["timestamp"] for scene in scenes)


def fill(published: ModuleType, name: str, folder: Path) -> RecDataset:
    if name.startswith("amazon"):
        published.write_amazon(folder, SOURCES[name].category)
    else:
        getattr(published, f"write_{name.replace('-', '_')}")(folder)
    return SOURCES[name].load(folder, limits=Limits())


@pytest.mark.parametrize("name", SOURCES)
def test_invented_logs_become_scenes_that_read_well(
    name: str, published: ModuleType, tmp_path: Path
) -> None:
    data = fill(published, name, tmp_path)
    assert (data.n_users, data.n_items) == (12, 30)
    assert (~data.interactions.get("undated", pd.Series(False, range(96)))).sum() >= 96
    scenes = []
    for columns, table in built(data):
        assert len(table) >= 15
        assert set(columns.dropped) <= {"choice logged before its item was published"}
        scenes += table.to_pylist()
    check(data, scenes)
    option, line, profile = READS[name]
    assert option in {text for scene in scenes for text in scene["options"]}
    assert line in {text for scene in scenes for text in scene["history_texts"]}
    assert profile in {scene["profile"] for scene in scenes}
    known = {bool(b) for scene in scenes for b in scene["behaviours"]}
    assert (True in known) == (data.domain not in ("movie", "news"))


@pytest.mark.parametrize("name", ["ml-100k", "mind", "steam", "kuairec"])
def test_something_is_published_while_the_log_goes_on(
    name: str, published: ModuleType, tmp_path: Path
) -> None:
    """Else the check of availability could not fail."""
    data = fill(published, name, tmp_path)
    times = data.interactions["timestamp"]
    late = data.items[AVAILABLE_FROM].between(times.min() + 1, times.max())
    assert late.sum() >= 3


@pytest.mark.parametrize("removed", [0.0, 1.0])
def test_no_two_items_of_a_scene_read_the_same(
    removed: float, published: ModuleType, tmp_path: Path
) -> None:
    data = fill(published, "lastfm", tmp_path)
    halves = data.items.assign(title=[f"Band {i // 2}" for i in range(30)], tags="folk")
    twins = RecDataset(**{**vars(data), "items": halves})
    text = domain_text(twins)
    split = time_cut(twins)
    drawn = draw_scenes(Rankers(split), ScenePlan(slate_size=3, min_history=2), (None, split.t0))
    all_of_them = distinct_options(drawn, text)
    few = distinct_options(drawn, text, 7)
    assert few.scene_ids == all_of_them.scene_ids[:7]
    assert 0 < all_of_them.dropped.total() == len(drawn) - len(all_of_them)
    assert few.dropped.total() < all_of_them.dropped.total()
    for columns, table in built(twins, removed=removed):
        assert columns.dropped["two items that read the same"] > 0
        for scene in table.to_pylist():
            read = {text.option(i) for i in {*scene["slate"], scene["item_id"]}}
            assert len(read) == len(scene["slate"]) + (removed == 1)


def test_notes_in_prompts_are_those_of_the_table(published: ModuleType, tmp_path: Path) -> None:
    data = fill(published, "lastfm", tmp_path)
    builder = PromptBuilder(domain_text(data))
    noted = 0
    for _, table in built(data):
        rows = zip(scenes_of(table), table["options"].to_pylist(), strict=True)
        for scene, options in rows:
            content = builder.letters(scene).messages[-1].content
            assert all(f"] {option}\n" in content for option in options)
            noted += any(scene.notes)
    assert noted > 5


# --- Genuine excerpts, as far as they carry ------------------------------------------------


def scenes_of_both_sides(data: RecDataset, **plan: Any) -> list[dict[str, Any]]:
    tables = [table for _, table in built(data, **plan)]
    assert all(table.num_rows for table in tables)
    scenes = [scene for table in tables for scene in table.to_pylist()]
    check(data, scenes, BROKEN)
    return scenes


@pytest.mark.parametrize("name", ["ml-100k", "ml-1m", "lastfm"])
def test_genuine_logs(name: str, samples: Path) -> None:
    data = SOURCES[name].load(samples / name)
    samplers = {"uniform": 1, "popularity": 1, "collaborative": 1}
    scenes = scenes_of_both_sides(data, count=800, samplers=samplers)
    assert len(scenes) == 1600 or name == "lastfm"
    if name == "lastfm":
        assert any("friend" in note for scene in scenes for note in scene["notes"])
    else:
        assert all(re.match(r"A (wo)?man, \d+ years old", scene["profile"]) for scene in scenes)


def test_genuine_reviews_of_amazon(samples: Path, tmp_path: Path) -> None:
    folder = samples / "amazon_reviews_2023"
    (tmp_path / "Amazon_Fashion.jsonl").symlink_to(folder / "Amazon_Fashion.jsonl")
    meta = folder / "meta_Amazon_Fashion.PARTIAL.jsonl"
    (tmp_path / "meta_Amazon_Fashion.jsonl").symlink_to(meta)
    limits = Limits(min_user=3, min_item=0)
    scenes = scenes_of_both_sides(SOURCES["amazon-fashion"].load(tmp_path, limits=limits))
    assert len(scenes) > 500
    assert all("; rated " in line for scene in scenes for line in scene["history_texts"])


def test_genuine_videos_with_invented_views(
    samples: Path, published: ModuleType, tmp_path: Path
) -> None:
    for path in (samples / "kuairec").glob("*.csv"):
        (tmp_path / path.name).symlink_to(path)
    published.kuairec_log(tmp_path, [str(7 * i) for i in range(30)])
    data = SOURCES["kuairec"].load(tmp_path, limits=Limits(min_item=0))
    scenes = scenes_of_both_sides(data)
    profile = re.compile(
        r"[\d,]+ friends?, follows [\d,]+ accounts?, [\d,]+ followers?"
        r"(, (fully|highly|moderately) active)?\."
    )
    assert all(profile.fullmatch(scene["profile"]) for scene in scenes)
    assert all("; watched 1" in line or "; watched 2" in line
               for scene in scenes for line in scene["history_texts"])  # fmt: skip


def test_genuine_games_with_invented_reviews(
    samples: Path, published: ModuleType, tmp_path: Path
) -> None:
    path = samples / "steam" / "steam_games.json.gz"
    (tmp_path / path.name).symlink_to(path)
    games = SOURCES["steam"].read_games(path, ReadLog())["item_id"]
    reviews = published.steam_reviews(games[::1000].tolist()[:30], "2016-01-10")
    published.save(tmp_path, "steam_reviews.json.gz", reviews)
    data = SOURCES["steam"].load(tmp_path)
    scenes_of_both_sides(data)
    text = domain_text(data)
    options = [text.option(item) for item in range(1, data.n_items + 1)]
    assert [option for option in options if BROKEN.search(option)] == []


def test_genuine_news_with_invented_lists(
    samples: Path, published: ModuleType, tmp_path: Path
) -> None:
    path = samples / "mind" / "news.tsv"
    (tmp_path / path.name).symlink_to(path)
    news = [row.split("\t")[0] for row in path.read_text("utf-8").splitlines()]
    published.save(tmp_path, "behaviors.tsv", published.mind_lists(news[:30]))
    scenes = scenes_of_both_sides(SOURCES["mind"].load(tmp_path))
    assert {scene["kind"] for scene in scenes} == {"impression"}
    assert {len(scene["options"]) - scene["target"] > 0 for scene in scenes} == {True, False}


def test_genuine_clicks_on_known_news(samples: Path) -> None:
    data = SOURCES["mind"].load(samples / "mind")
    scenes = scenes_of_both_sides(data, min_history=1, history=(1, 10))
    assert all(", section " in text for scene in scenes for text in scene["options"])
    lines = {line for scene in scenes for line in scene["history_texts"]}
    assert len(lines) > 50
    assert not any(
        line.endswith(" ago") for line in lines
    )  # only histories, whose times nobody knows


def test_genuine_records_of_books_and_apps(samples: Path, tmp_path: Path) -> None:
    books = Goodreads("poetry").load(samples / "goodreads", limits=Limits())
    shape = r".+; .+, 1982, 56 pages; mean rating 4\.09 of 5, 15,716 ratings"
    assert re.fullmatch(shape, domain_text(books).option(1))
    rows = samples / "mobilerec" / "interactions" / "mobilerec_final.csv"
    (tmp_path / "interactions").symlink_to(rows.parent)
    (tmp_path / "app_meta").mkdir()
    app = pd.read_csv(rows)["app_package"][0]
    (tmp_path / "app_meta" / "app_meta.csv").write_text(
        "app_package,app_name,developer_name,app_category,description,num_reviews,price,avg_rating\n"
        f'{app},Tide Times,Shoreline,Weather,,"1,890",Install,4.3\n'
    )
    apps = SOURCES["mobilerec"].load(tmp_path, limits=Limits())
    text = domain_text(apps)
    (behaviour,) = text.behaviours(apps.interactions)
    line = text.past_item(1, apps.interactions["rating"][0], behaviour=behaviour)
    assert re.fullmatch(r'Tide Times, Weather; rated [1-5] of 5; my review: ".+"', line)
    for option in (text.option(1), domain_text(books).option(1), line):
        assert not BROKEN.search(option)
