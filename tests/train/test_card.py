"""The model card says what was done, and shows foreign names as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from usermirror_gym.files import read_json
from usermirror_gym.train.card import licence, write_card
from usermirror_gym.train.config import read_config

STAGE = {
    "objective": "next_item", "steps": 30, "samples": 240, "tokens": 51_200, "seconds": 90.0,
    "best": [20, None, 1.25],
    "history": [[0, None, 1.5], [10, 2.0, None], [10, None, 1.3], [20, None, 1.25]],
}  # fmt: skip
SCORES = {
    "scenes": 1_500, "users": 80, "folds": 5,
    "all": {"log_loss": 1.2, "accuracy": 0.47, "expected_accuracy": 0.36},
    "uniform": {"log_loss": 1.79, "accuracy": 0.17},
    "by_source": {"ml-100k": {"log_loss": 1.2, "accuracy": 0.47, "expected_accuracy": 0.36}},
}  # fmt: skip
SOURCE = {
    "dataset": "ml-100k", "domain": "movie", "t0": 889_000_000, "t_validation": 888_000_000,
    "scenes": {"train": 4_000, "validation": 1_500}, "files": {"u.data": "ab12"}, "users": 943,
    "items": 1_682, "impressions": 0, "title": "MovieLens 100K", "homepage": "https://x.org",
    "terms": "research only", "citation": "Harper & Konstan, 2015",
}  # fmt: skip


def written(folder: Path, **changes: Any) -> str:
    config = read_config("smollm2-ml100k-next-item", changes.pop("config", {}))
    stages, scores = changes.get("stages", [STAGE]), SCORES | changes.get("scores", {})
    sources = changes.get("sources", {"ml-100k": SOURCE})
    write_card(config, folder, stages, scores, {"sources": sources}, "c0ffee" * 10 + "dead")
    return (folder / "README.md").read_text()


def test_the_header_is_what_the_hub_reads(tmp_path: Path) -> None:
    _, header, _ = written(tmp_path).split("---\n", 2)
    fields = yaml.safe_load(header)
    assert fields["base_model"] == "smollm2-135m-instruct"
    assert (fields["license"], fields["library_name"]) == ("apache-2.0", "peft")
    merged = written(tmp_path, config={"merge": True})
    assert yaml.safe_load(merged.split("---\n", 2)[1])["library_name"] == "transformers"


def test_recipe_data_scores_and_limits_are_said(tmp_path: Path) -> None:
    text = " ".join(written(tmp_path).split())
    for words in (
        "1,500 validation scenes", "| 1.2 |", "| 47 |", "rank 16, alpha 32", "| next_item |",
        "51,200", "research only", "Harper & Konstan, 2015", "1998-03-04", "c0ffee", "## Limits",
        "not representative", "| 1 | 20 | 1.25 |", "licensed apache-2.0",
    ):  # fmt: skip
        assert words in text, words


def test_facts_for_programs(tmp_path: Path) -> None:
    written(tmp_path)
    facts = read_json(tmp_path / "training.json")
    assert facts["recipe"] == read_config("smollm2-ml100k-next-item").model_dump(mode="json")
    assert facts["stages"] == [STAGE]
    assert facts["scores"]["all"] == SCORES["all"]
    assert facts["data"]["sources"]["ml-100k"]["files"] == {"u.data": "ab12"}
    assert {"usermirror-gym", "torch", "peft", "trl"} <= facts["versions"].keys()


def test_early_stopping_is_owned_up_to(tmp_path: Path) -> None:
    assert "a little too good" in written(tmp_path)
    assert "a little too good" not in written(tmp_path, config={"stages.0.patience": None})


def test_long_curves_are_thinned_and_keep_both_ends(tmp_path: Path) -> None:
    history = [[step, None, 2 - step / 1000] for step in range(0, 990, 10)]
    text = written(tmp_path, stages=[STAGE | {"history": history}])
    curve = text[text.index("Validation log-loss") :].split("## Data")[0]
    rows = [line for line in curve.splitlines() if line.startswith("|")][2:]
    assert 10 <= len(rows) <= 15
    assert [row.split("|")[2].strip() for row in (rows[0], rows[-1])] == ["0", "980"]


def test_a_run_without_validations_has_a_card(tmp_path: Path) -> None:
    text = written(tmp_path, stages=[STAGE | {"history": [[10, 2.0, None]], "best": None}])
    assert "## Data" in text


def test_names_from_data_cannot_write_markup(tmp_path: Path) -> None:
    evil = SOURCE | {"title": "<script>alert(1)</script> [x](y) \ud800", "citation": "a | b\n# c"}
    text = written(tmp_path, sources={"a|b": evil})
    assert "<script>" not in text
    assert "\n# c" not in text
    assert r"a\|b" in text
    assert text.startswith("---\n")


@pytest.mark.parametrize(
    ("card", "known"),
    [
        ("---\nlicense: mit\n---\n# x\n", "mit"),
        ("# no header\n", "other"),
        ("---\nlicense: [\n---\n", "other"),
        (None, "other"),
    ],
)
def test_licence_of_the_base_is_read_from_its_card(
    tmp_path: Path, card: str | None, known: str
) -> None:
    (tmp_path / "config.json").write_text("{}")
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert licence(str(tmp_path)) == known
