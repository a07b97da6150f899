"""What may come from strangers runs nothing, leads nowhere and cannot hang us.

Every reader of files has its rows in one of the tables below; a new one is a line there.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.hostile import agents, checkpoints, data, runs, servers, texts
from tests.hostile.case import Case, Place
from usermirror_gym.errors import UserMirrorError

CASES: list[Case] = [
    *agents.CASES, *checkpoints.CASES, *data.CASES, *runs.CASES, *servers.CASES, *texts.CASES,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_foreign_runs(case: Case, tmp_path: Path) -> None:
    place = Place(tmp_path / "foreign", tmp_path / "marker")
    place.folder.mkdir()
    case.given(place)
    found, error = None, ""
    try:
        found = case.read(place)
    except UserMirrorError as refusal:
        error = str(refusal)
    assert not place.marker.exists(), "the marker was left"
    if case.refused:
        assert re.search(case.refused, error), error or f"read as {found!r}"
    else:
        assert not error
    assert case.gives is None or case.gives(place, found), found


def test_every_case_has_a_name_of_its_own() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
