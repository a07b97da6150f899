"""MovieLens-1M: hand-made files in the published format, and the real ones where they are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from usermirror_gym.data import RecDataset, load_dataset
from usermirror_gym.data.sources.movielens import natural_title
from usermirror_gym.errors import DataError

# Invented users, films and ratings; the form is the published one: "::", latin-1, no header.
FILES = {
    "users.dat": "1::F::1::10::00001\n2::M::56::16::00002\n9::M::25::12::00009\n",
    "movies.dat": "1::Quiet Harbour, The (1971)::Drama|Romance|War\n"
    "3::Café (Étoile, L') (1988)::Comedy\n8::Seven, Eight (1999)::Children's|Musical\n",
    "ratings.dat": "1::3::5::978300760\n1::1::3::978302109\n2::8::4::978300000\n",
}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(*, encoding: str = "latin-1", **changed: str) -> Path:
        for name, text in FILES.items():
            text = changed.get(name.removesuffix(".dat"), text)
            (tmp_path / name).write_bytes(text.encode(encoding))
        return tmp_path

    return _write


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig"])
def test_published_format(write: Write, encoding: str) -> None:
    data = load_dataset("ml-1m", write(encoding=encoding))
    assert data.titles == ["", "The Quiet Harbour", "Café (L'Étoile)", "Seven, Eight"]
    assert data.items["year"].tolist() == [1971, 1988, 1999]
    assert data.items["available_from"].tolist() == [31536000, 567993600, 915148800]
    assert data.items["genres"].tolist() == ["Drama, Romance, War", "Comedy", "Children's, Musical"]
    assert data.items["token"].tolist() == ["1", "3", "8"]
    assert data.interactions["item_id"].tolist() == [3, 2, 1]
    assert data.repairs == ()


@pytest.mark.parametrize(
    ("year", "since"),
    [("(1970)", 0), ("(1969)", -31536000), ("(0000)", -62167219200), ("(9999)", None), ("", None)],
)
def test_films_of_any_year(write: Write, year: str, since: int | None) -> None:
    movies = FILES["movies.dat"].replace("(1971)", year)
    data = load_dataset("ml-1m", write(movies=movies))
    assert data.items["available_from"].dtype == "Int64"
    first = data.items["available_from"].iloc[0]
    assert pd.isna(first) if since is None else first == since
    impossible = "bad publication time, left empty"
    assert [r.kind for r in data.repairs] == ([impossible] if year == "(9999)" else [])


def test_codes_are_decoded_and_users_without_ratings_left_out(write: Write) -> None:
    users = load_dataset("ml-1m", write()).users
    assert users["token"].tolist() == ["1", "2"]
    assert users["occupation"].tolist() == ["student", "self-employed"]
    assert users["age"].tolist() == [17, 60]


def test_windows_line_ends_and_blank_lines_are_accepted(write: Write) -> None:
    ratings = FILES["ratings.dat"].replace("\n", "\r\n") + "\r\n"
    assert len(load_dataset("ml-1m", write(ratings=ratings)).interactions) == 3


def test_control_characters_in_a_title_do_not_split_the_line(write: Write) -> None:
    movies = FILES["movies.dat"].replace("Seven", "Se\x85v\x0cen")
    assert "Se\x85v\x0cen, Eight" in load_dataset("ml-1m", write(movies=movies)).titles


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("ratings", "1::3::5::978300760\n1::1::3\n", 2),
        ("ratings", "1::3::5::978300760\n\n\n1::1::3::5::6\n", 4),
        ("users", "1::F::1::10\n", 1),
        ("movies", "1,A,Drama\n", 1),
    ],
)
def test_malformed_line_is_named(write: Write, name: str, text: str, line: int) -> None:
    with pytest.raises(DataError, match=rf"{name}\.dat, line {line}: \d fields, expected"):
        load_dataset("ml-1m", write(**{name: text}))


def test_unknown_code_is_named(write: Write) -> None:
    users = FILES["users.dat"].replace("::16::", "::99::")
    with pytest.raises(DataError, match=r"users\.dat: unknown code '99'; known: \[0, 1"):
        load_dataset("ml-1m", write(users=users))


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(write: Write, name: str) -> None:
    folder = write()
    (folder / name).unlink()
    with pytest.raises(DataError, match=re.escape(str(folder / name))):
        load_dataset("ml-1m", folder)


def test_without_a_folder_the_error_says_what_to_give() -> None:
    with pytest.raises(DataError) as error:
        load_dataset("ml-1m")
    for way in ("--data-folder", "folder=", "'folder:'", "'usermirror data fetch ml-1m'"):
        assert way in str(error.value)
    with pytest.raises(DataError, match="'folder:' of the source") as error:
        load_dataset("mind")
    assert "fetch" not in str(error.value)


@pytest.mark.parametrize(
    ("raw", "natural"),
    [
        ("Quiet Harbour, The", "The Quiet Harbour"),
        ("Étoile, L'", "L'Étoile"),
        ("Storm, The (Sturm, Der)", "The Storm (Der Sturm)"),
        ("Storm, The (a.k.a. The Gale)", "The Storm (a.k.a. The Gale)"),
        ("Storm (Tempête, La)", "Storm (La Tempête)"),
        ("North, The South and the West, The", "The North, The South and the West"),
        ("Goodbye, Anna", "Goodbye, Anna"),
        ("The Storm", "The Storm"),
        ("", ""),
    ],
)
def test_natural_title(raw: str, natural: str) -> None:
    assert natural_title(raw) == natural


@pytest.fixture(scope="module")
def real() -> RecDataset:
    default = Path(__file__).resolve().parents[3] / "shared" / "data" / "ml-1m"
    folder = Path(os.environ.get("USERMIRROR_ML_1M", default))
    if not (folder / "ratings.dat").is_file():
        pytest.skip("no MovieLens-1M; set USERMIRROR_ML_1M to its folder")
    return load_dataset("ml-1m", folder)


def test_real_counts(real: RecDataset) -> None:
    # The whole set, or the ratings of its first 2,500 users.
    counts = (real.n_users, real.n_items, len(real.interactions))
    assert counts in {(6040, 3883, 1_000_209), (2500, 3883, 415_323)}
    assert real.repairs == ()


def test_real_titles_and_years(real: RecDataset) -> None:
    assert "Les Misérables" in real.titles
    assert real.items["year"].between(1900, 2000).all()
    assert not any(
        re.search(r", (The|A|An|Les|La|Le|Der|Die|Das)( \(|\)|$)", t) for t in real.titles
    )
