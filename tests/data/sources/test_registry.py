"""Sources by name, and what each must say about itself."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pytest

from usermirror_gym.configs import preset_names
from usermirror_gym.data import SOURCES, Source, get_source, load_dataset
from usermirror_gym.data.raw.fetch import by_hand
from usermirror_gym.errors import UnknownNameError

NAMES = {
    "ml-100k", "ml-1m", "mind", "steam", "goodreads", "lastfm", "kuairec", "mobilerec",
    "amazon-beauty", "amazon-fashion", "amazon-office", "amazon-grocery",
}  # fmt: skip
each = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)


def test_all_sources_of_the_paper_are_there() -> None:
    assert set(SOURCES) == NAMES
    assert all(get_source(name) is SOURCES[name] for name in NAMES)


@each
def test_a_source_says_where_it_comes_from_and_under_which_terms(source: Source) -> None:
    assert SOURCES[source.name] is source
    assert source.domain in preset_names("domains")
    for text in (source.title, source.terms, source.citation, source.how_to_get):
        assert text
    assert source.homepage.startswith("https://")
    assert source.files


@each
def test_downloads_bring_every_file(source: Source) -> None:
    if not source.downloads:
        pytest.skip("to be fetched by hand")
    brought = set()
    for item in source.downloads:
        assert item.url.startswith("https://")
        assert item.sha256 is None or re.fullmatch("[0-9a-f]{64}", item.sha256)
        assert item.md5 is None or re.fullmatch("[0-9a-f]{32}", item.md5)
        names = item.members or (item.url.split("?")[0],)
        brought |= {PurePosixPath(name).name.removesuffix(".gz") for name in names}
    assert brought == {PurePosixPath(name).name.removesuffix(".gz") for name in source.files}


@each
def test_a_missing_folder_is_told_with_every_file(source: Source, tmp_path: Path) -> None:
    if source.included:
        assert load_dataset(source.name).n_items > 0
        return
    with pytest.raises(Exception, match="--data-folder") as caught:
        load_dataset(source.name)
    told = f"{caught.value}\n{by_hand(source, tmp_path)}"
    assert all(told.count(name) >= 2 for name in source.files)
    assert source.terms in told


def test_any_amazon_category_can_be_named() -> None:
    source = get_source("amazon:Video_Games")
    assert source.files == ("Video_Games.jsonl.gz", "meta_Video_Games.jsonl.gz")
    with pytest.raises(UnknownNameError, match="Did you mean 'Video_Games'"):
        get_source("amazon:VideoGames")


@pytest.mark.parametrize("name", ["lastfn", "last.fm", "LASTFM", ""])
def test_a_mistaken_name_lists_the_right_ones(name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"Valid: amazon-beauty, .*lastfm"):
        get_source(name)
