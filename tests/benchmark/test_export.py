"""Exported logs: RecBole and Minari read what was played, whatever stands in titles and logs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from usermirror_gym.agents.recbole.shim import contained
from usermirror_gym.benchmark.export import export_recbole, trusted_run
from usermirror_gym.benchmark.export_minari import export_minari
from usermirror_gym.benchmark.run import BenchmarkConfig, run_benchmark
from usermirror_gym.cli import app
from usermirror_gym.data import RecDataset
from usermirror_gym.data.atomic_files import write_atomic_files
from usermirror_gym.errors import ConfigError, DataError, RunError, UnknownNameError
from usermirror_gym.files import read_jsonl, write_jsonl

HOSTILE = (
    "a\ttab", "two\nlines\r\nand three", '"open', 'say "hi"', "NA", "null", "user_id:token",
    "\ud800 alone", "\x00\x1c\x85\u2028 unseen", "日本語 " * 30,
)  # fmt: skip
MAPPING = """
name: shelf
domain: book
interactions: {file: loans.jsonl, user: who, item: what, time: when, rating: stars}
items: {file: books.jsonl, item: nr, title: name, texts: [subjects], numbers: [pages]}
users: {file: readers.jsonl, user: who, texts: [town]}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark on twelve readers and twenty books with hostile titles."""
    folder = tmp_path_factory.mktemp("export")
    rng = np.random.default_rng(0)
    books = [
        {"nr": f"b{i}", "name": HOSTILE[i] if i < len(HOSTILE) else f"Book {i}",
         "subjects": "Sea, Short story" if i % 2 else "Sea", "pages": 100 + i}
        for i in range(20)
    ]  # fmt: skip
    loans = [
        {"who": f"r{u}", "what": f"b{i}", "when": 1_700_000_000 + 100 * n + u, "stars": 4}
        for u in range(12)
        for n, i in enumerate(rng.permutation(20)[:10].tolist())
    ]
    readers = [{"who": f"r{u}", "town": "Kiel"} for u in range(12)]
    for name, rows in (("books", books), ("loans", loans), ("readers", readers)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "shelf.yaml").write_text(MAPPING)
    config = BenchmarkConfig(
        agents=("Random", "Pop"), users=5, steps=6, slate_size=3, patience=2,
        simulator="popularity", dataset=str(folder / "shelf.yaml"), fidelity_scenes=0,
    )  # fmt: skip
    run_benchmark(config, folder / "run")
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run that may be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def change(run: Path, line: int, **values: object) -> None:
    rows = read_jsonl(run / "episodes.jsonl")
    rows[line] |= values
    write_jsonl(run / "episodes.jsonl", rows)


def loaded(folder: Path) -> Any:
    """The data set as RecBole itself reads it, every column."""
    with contained(0):
        from recbole.config import Config
        from recbole.data.dataset import Dataset

        config = Config(
            "BPR", folder.name, config_dict={"data_path": str(folder.parent), "load_col": None}
        )
        return Dataset(config)


class TestRecBole:
    def test_recbole_reads_every_row_of_it(self, finished: Path, tmp_path: Path) -> None:
        facts = export_recbole(finished, tmp_path / "again")
        chosen = [row for row in read_jsonl(finished / "episodes.jsonl") if row["item"]]
        assert facts["simulated"] == len(chosen) > 5
        data, split = loaded(tmp_path / "again"), trusted_run(finished).world.split
        assert data.inter_num == len(split.before) + len(chosen) == facts["real"] + len(chosen)
        assert data.user_num == split.dataset.n_users + 1  # RecBole counts padding
        assert data.item_num == split.dataset.n_items + 1
        assert len(data.item_feat) == split.dataset.n_items + 1
        assert {"title", "pages", "subjects", "town"} <= set(data.field2type)
        assert set(data.field2id_token["subjects"][1:]) == {"Sea", "Short_story"}

    def test_choices_come_back_in_their_order_behind_t0(
        self, finished: Path, tmp_path: Path
    ) -> None:
        facts = export_recbole(finished, tmp_path / "pop", agents=["pop"], real=False)
        split = trusted_run(finished).world.split
        chosen = [
            row for row in read_jsonl(finished / "episodes.jsonl")
            if row["item"] and row["agent"] == "Pop"
        ]  # fmt: skip
        table = pd.read_csv(tmp_path / "pop" / "pop.inter", sep="\t")
        users, items = split.dataset.users["token"], split.dataset.items["token"]
        assert table["user_id:token"].tolist() == [users[row["user_id"]] for row in chosen]
        assert table["item_id:token"].tolist() == [items[row["item"]] for row in chosen]
        assert table["rating:float"].tolist() == [row["rating"] for row in chosen]
        times = table["timestamp:float"]
        assert times.iloc[0] > split.t0
        assert times.is_monotonic_increasing
        assert times.is_unique
        assert facts == json.loads((tmp_path / "pop" / "export.json").read_text())
        assert (facts["agents"], facts["real"]) == (["Pop"], 0)

    def test_hostile_titles_stay_in_their_cells(self, finished: Path, tmp_path: Path) -> None:
        export_recbole(finished, tmp_path / "x")
        lines = (tmp_path / "x" / "x.item").read_bytes().decode("utf-8").split("\n")
        titles = {line.split("\t")[0]: line.split("\t")[1] for line in lines[1:-1]}
        assert len(titles) == 20
        assert {line.count("\t") for line in lines[:-1]} == {3}
        assert titles["b0"] == "a tab"
        assert titles["b1"] == "two lines and three"
        assert (titles["b2"], titles["b3"]) == ("'open", "say 'hi'")
        data = loaded(tmp_path / "x")
        words = data.field2id_token["title"]
        own = {data.id2token("item_id", i): words[data.item_feat["title"][i]] for i in range(1, 21)}
        assert [w for w in own["b4"] if w != "[PAD]"] == ["NA_"]  # no gap, as pandas would have it

    def test_ids_that_would_be_read_otherwise_are_refused(self, tmp_path: Path) -> None:
        for bad in ("NA", "a\tb", 'x"y'):
            dataset = RecDataset.from_tables(
                "d", "book",
                users=pd.DataFrame({"user_id": [bad]}),
                items=pd.DataFrame({"item_id": ["1"], "title": ["One"]}),
                interactions=pd.DataFrame({"user_id": [bad], "item_id": ["1"], "timestamp": [5]}),
            )  # fmt: skip
            with pytest.raises(DataError, match="cannot stand in an atomic file"):
                write_atomic_files(tmp_path / "d", dataset, dataset.interactions)

    def test_names_of_fields_that_meet_are_kept_apart(self, tmp_path: Path) -> None:
        dataset = RecDataset.from_tables(
            "d", "book",
            users=pd.DataFrame({"user_id": ["u"], "age": [7]}),
            items=pd.DataFrame(
                {"item_id": ["1"], "title": ["One"], "rating": ["PG: 7"], "age": ["old"]}
            ),
            interactions=pd.DataFrame({"user_id": ["u"], "item_id": ["1"], "timestamp": [5]}),
        )  # fmt: skip
        write_atomic_files(tmp_path / "d", dataset, dataset.interactions)
        heads = {p.suffix: p.read_text().split("\n")[0] for p in (tmp_path / "d").iterdir()}
        assert heads == {
            ".inter": "user_id:token\titem_id:token\ttimestamp:float",
            ".item": "item_id:token\ttitle:token_seq\titem_rating:token\tage:token",
            ".user": "user_id:token\tuser_age:float",
        }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"slate": [1, 2, 21]}, r"Random, episode 0, step 2: slate .* item 21 is not in 1\.\.20"),
        ({"slate": [1, 2, True]}, "item True is not in"),
        ({"user_id": 13}, r"user_id 13 is not in 1\.\.12"),
        ({"choice": 4}, r"choice 4 is not in 0\.\.3"),
        ({"choice": 3, "item": 7}, "item 7 is not what choice 3 of"),
        ({"rating": "good"}, "rating 'good' is no number"),
        ({"reward": None}, "reward None is no number"),
        ({"terminated": 1}, "terminated and truncated are"),
        ({"probabilities": ["a", 0, 0, 0]}, "probabilities .* are no numbers"),
        ({"agent": [1]}, "line 3: agent .* must be a text"),
    ],
)
def test_a_step_that_cannot_have_happened_is_named(
    run: Path, tmp_path: Path, values: dict, message: str
) -> None:
    change(run, 2, **values)
    with pytest.raises(RunError, match=message):
        export_recbole(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_in_which_somebody_is_at_work_is_refused(
    run: Path, tmp_path: Path, refused_while_busy
) -> None:
    refused_while_busy(tmp_path / "out", lambda: export_recbole(run, tmp_path / "out"))


def test_other_agents_and_other_folders_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'Random'"):
        export_recbole(run, tmp_path / "out", agents=["Randon"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="holds no export"):
        export_recbole(run, tmp_path / "full")
    export_recbole(run, tmp_path / "out", agents=["Pop"])
    assert export_recbole(run, tmp_path / "out", agents=["Random"])["agents"] == ["Random"]
    write_jsonl(
        run / "episodes.jsonl",
        [row | {"choice": 3, "item": 0} for row in read_jsonl(run / "episodes.jsonl")],
    )
    with pytest.raises(RunError, match="no simulated user chose"):
        export_recbole(run, tmp_path / "none")


class TestMinari:
    @pytest.fixture(autouse=True)
    def _minari(self) -> None:
        pytest.importorskip("minari")

    def test_minari_reads_the_episodes_of_the_log(self, finished: Path, tmp_path: Path) -> None:
        import minari

        facts = export_minari(finished, tmp_path / "shelf-v0")
        data = minari.MinariDataset(tmp_path / "shelf-v0" / "data")
        log = [rows for episodes in trusted_run(finished).log.values() for rows in episodes]
        assert (facts["episodes"], facts["steps"]) == (len(log), sum(map(len, log)))
        assert len(data) == len(log) == 10
        for episode, rows in zip(data, log, strict=True):
            assert episode.rewards.sum() == pytest.approx(sum(row["reward"] for row in rows))
            assert episode.actions.tolist() == [row["slate"] for row in rows]
            assert episode.terminations.tolist() == [row["terminated"] for row in rows]
            assert episode.truncations.tolist() == [row["truncated"] for row in rows]
            assert len(episode.observations["turns"]) == len(rows) + 1
        about = list(data.storage.get_episode_metadata(range(10)))
        assert [a["agent"] for a in about] == ["Random"] * 5 + ["Pop"] * 5
        assert [a["user_id"] for a in about] == [rows[0]["user_id"] for rows in log]

    def test_observations_are_what_the_environment_showed(
        self, finished: Path, tmp_path: Path
    ) -> None:
        """Reset with the same seed, the environment says the same, and so after every step."""
        import minari

        from usermirror_gym.envs import SlateEnv

        export_minari(finished, tmp_path / "pop-v1", agents=["Pop"])
        data = minari.MinariDataset(tmp_path / "pop-v1" / "data")
        (rows, *_), world = trusted_run(finished, ["Pop"]).log["Pop"], trusted_run(finished).world
        episode, env = data[0], data.recover_environment().unwrapped
        assert isinstance(env, SlateEnv)
        assert world.split.t0 == env.world.split.t0
        seen, _ = env.reset(seed=rows[0]["seed"], options={"user_id": rows[0]["user_id"]})
        for number, action in enumerate([*episode.actions, None]):
            for name, value in seen.items():
                np.testing.assert_array_equal(episode.observations[name][number], value, name)
            assert data.observation_space.contains(
                {k: v[number] for k, v in episode.observations.items()}
            )
            if action is not None:
                seen, reward, *_ = env.step(action)
                assert reward == episode.rewards[number]

    def test_what_does_not_replay_is_not_exported(self, run: Path, tmp_path: Path) -> None:
        change(run, 4, reward=0.25)
        with pytest.raises(RunError, match=r"reward is 0\.25 in the log .* cannot be made anew"):
            export_minari(run, tmp_path / "bad-v0")
        assert list(tmp_path.glob("*bad*")) == []

    def test_names_and_folders_that_minari_would_not_take(self, run: Path, tmp_path: Path) -> None:
        for name in ("noversion", "sp ace-v0"):
            with pytest.raises(ConfigError, match="no name of a Minari data set"):
                export_minari(run, tmp_path / name)
        (tmp_path / "there-v0" / "data").mkdir(parents=True)
        with pytest.raises(RunError, match="exists; name another"):
            export_minari(run, tmp_path / "there-v0")


def test_the_command_says_what_was_written(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    good = CliRunner().invoke(app, ["export", str(finished), "--to", "recbole", "--out", str(out)])
    assert good.exit_code == 0, good.output
    assert "simulated choices of Random, Pop" in good.output
    assert "dataset='again'" in good.output
    bad = CliRunner().invoke(app, ["export", str(finished), "--to", "recbol", "--out", str(out)])
    assert bad.exit_code == 1
    assert "Did you mean 'recbole'" in bad.output
