"""Trained simulators as folders: written, found, read, refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from usermirror_gym import checkpoints
from usermirror_gym.data import TimeSplit
from usermirror_gym.engines import checkpoints as hub
from usermirror_gym.errors import CheckpointError, ConfigError, UnknownNameError
from usermirror_gym.simulators import (
    AffinityHead,
    AffinitySimulator,
    AffinityWeights,
    LettersSimulator,
    LikelihoodSimulator,
    available_simulators,
    checkpoint,
    make_simulator,
    registry,
)
from usermirror_gym.simulators.affinity.affinity_head import read_head, write_head
from usermirror_gym.simulators.checkpoint import fetch_simulator, read_simulator, write_simulator
from usermirror_gym.simulators.readouts.utility import ChoiceWeights, LikelihoodWeights

FITTED = {
    "conditional": 0.1234567890123456, "unconditional": -1e-7, "tokens": 0.25,
    "outside_utility": -3.5,
}  # fmt: skip


def adapter_in(folder: Path) -> Path:
    """Files that look like an adapter from outside."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    folder = adapter_in(tmp_path / "mine")
    settings = {"checkpoint": "smollm2-135m-instruct", "readout": "likelihood", "form": "scene"}
    write_simulator(folder, {**settings, "history_lines": 20, **FITTED})
    return folder


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch) -> Path:
    """A package that ships one trained simulator."""
    home = tmp_path / "package"
    folder = adapter_in(home / "tiny-ml100k")
    write_simulator(folder, {"checkpoint": "smollm2-135m-instruct", "readout": "likelihood"})
    adapter_in(home / "half-copied")  # no simulator.yaml yet
    monkeypatch.setattr(checkpoints, "_HERE", home)
    return folder


class TestWriting:
    def test_only_what_is_not_the_default_is_written_after_the_format(self, trained: Path) -> None:
        text = (trained / "simulator.yaml").read_text()
        assert text.startswith("format: 1\ncheckpoint: smollm2-135m-instruct\n")
        assert yaml.safe_load(text) == {
            "format": 1, "checkpoint": "smollm2-135m-instruct", "readout": "likelihood",
            "form": "scene", "history_lines": 20, **FITTED,
        }  # fmt: skip

    def test_what_is_read_is_what_was_written(self, trained: Path) -> None:
        found = read_simulator(trained)
        assert found == {
            "checkpoint": "smollm2-135m-instruct", "adapter": str(trained), "form": "scene",
            "readout": "likelihood", "history_lines": 20, **FITTED,
        }  # fmt: skip

    def test_a_forced_choice_stays_one(self, tmp_path: Path) -> None:
        adapter_in(tmp_path)
        write_simulator(
            tmp_path, {"checkpoint": "x", "outside_utility": None, "position_bias": (1.0, 2.0)}
        )
        assert read_simulator(tmp_path)["outside_utility"] is None
        assert read_simulator(tmp_path)["position_bias"] == [1.0, 2.0]

    def test_mistakes_are_found_before_anything_is_written(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownNameError, match="Did you mean 'readout'"):
            write_simulator(tmp_path / "new", {"redout": "letters"})
        with pytest.raises(ConfigError, match="history_lines"):
            write_simulator(tmp_path / "new", {"history_lines": "many"})
        with pytest.raises(ConfigError, match=r"adapter = '/a/b' cannot be written"):
            write_simulator(tmp_path / "new", {"adapter": "/a/b"})
        assert not (tmp_path / "new").exists()


class TestReading:
    def test_full_weights_need_no_base(self, tmp_path: Path) -> None:
        write_simulator(tmp_path, {"readout": "letters"})
        with pytest.raises(CheckpointError, match=r"names no checkpoint.*no weights"):
            read_simulator(tmp_path)
        (tmp_path / "config.json").write_text("{}")
        assert read_simulator(tmp_path)["checkpoint"] == str(tmp_path)

    def test_a_head_is_found(self, trained: Path) -> None:
        assert "head" not in read_simulator(trained)
        (trained / "head.safetensors").write_bytes(b"head")
        assert read_simulator(trained)["head"] == str(trained)

    @pytest.mark.parametrize("text", ["", "checkpoint: x\n", "format: 2\n", "- 1\n"])
    def test_other_formats_are_refused(self, trained: Path, text: str) -> None:
        (trained / "simulator.yaml").write_text(text)
        with pytest.raises(CheckpointError, match="does not begin with 'format: 1'"):
            read_simulator(trained)

    def test_damaged_files_are_refused(self, trained: Path) -> None:
        (trained / "simulator.yaml").write_text("format: [1\n")
        with pytest.raises(CheckpointError, match=r"cannot read .*simulator\.yaml"):
            read_simulator(trained)
        (trained / "simulator.yaml").write_text("format: 1\ncheckpoint: x\nadapter: /tmp\n")
        with pytest.raises(CheckpointError, match="sets 'adapter'"):
            read_simulator(trained)

    def test_nothing_of_that_name(self, shipped: Path, tmp_path: Path) -> None:
        with pytest.raises(UnknownNameError, match="Did you mean 'tiny-ml100k'"):
            read_simulator("tiny-ml100")
        with pytest.raises(CheckpointError, match=r"has no simulator\.yaml"):
            read_simulator(tmp_path)


TASTE = {"affinity": 0.75, "item_bias": -0.125, "outside_utility": 2.5}


class TestAffinity:
    """A folder with an affinity head."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        rng = np.random.default_rng(0)
        arrays = (rng.normal(size=shape) for shape in ((4,), (4, 2), (4, 2), (4,), (20,)))
        write_head(tmp_path / "taste", AffinityHead(((1, "mean"),), *arrays))
        settings = {"checkpoint": "smollm2-135m-instruct", "readout": "affinity"}
        write_simulator(tmp_path / "taste", {**settings, "history_lines": 20, **TASTE})
        return tmp_path / "taste"

    def test_is_made_as_it_says(self, folder: Path, split: TimeSplit) -> None:
        assert read_simulator(folder)["head"] == str(folder)
        made = make_simulator(str(folder), split)
        assert isinstance(made, AffinitySimulator)
        assert made.weights == AffinityWeights(**TASTE)
        assert made.head.digest == read_head(folder).digest
        assert made.builder.config.history_lines == 20
        assert made.engine.model_id == "smollm2-135m-instruct/float32"

    def test_an_adapter_may_stand_beside_the_head(self, folder: Path, split: TimeSplit) -> None:
        adapter_in(folder)
        made = make_simulator(str(folder), split)
        assert made.engine.model_id.startswith("smollm2-135m-instruct+taste@")

    def test_options_override(self, folder: Path, split: TimeSplit) -> None:
        forced = make_simulator(str(folder), split, outside_option=False, affinity=3.0)
        assert forced.weights == AffinityWeights(3.0, -0.125, None)
        with pytest.raises(ConfigError, match="history_lines is 50"):
            make_simulator(str(folder), split, history_lines=50)
        likelihood = make_simulator(str(folder), split, readout="likelihood")
        assert isinstance(likelihood, LikelihoodSimulator)

    def test_vectors_are_kept_in_the_cache_folder(
        self, folder: Path, split: TimeSplit, monkeypatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("USERMIRROR_CACHE", str(tmp_path / "cache"))
        made = make_simulator(str(folder), split)
        assert made.cache == tmp_path / "cache" / "item-vectors"

    def test_without_a_head_it_says_what_to_do(self, folder: Path, split: TimeSplit) -> None:
        (folder / "affinity.safetensors").unlink()
        with pytest.raises(ConfigError, match=r"'affinity' needs a trained head \(affinity\.safe"):
            make_simulator(str(folder), split)
        with pytest.raises(ConfigError, match="'options' needs a trained head"):
            make_simulator(str(folder), split, readout="options")
        with pytest.raises(CheckpointError, match=r"has no affinity\.safetensors"):
            make_simulator(str(folder), split, head=str(folder))

    def test_the_head_is_no_setting_of_the_file(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match="head = '/a' cannot be written"):
            write_simulator(folder, {"readout": "affinity", "head": "/a"})


class TestMaking:
    def test_a_folder_says_how_it_is_asked_and_options_override_it(
        self, trained: Path, split: TimeSplit
    ) -> None:
        made = make_simulator(str(trained), split)
        assert isinstance(made, LikelihoodSimulator)
        assert made.weights == LikelihoodWeights(**FITTED)
        assert made.builder.config.form == "scene"
        assert made.builder.config.history_lines == 20
        assert made.engine.model_id.startswith("smollm2-135m-instruct+mine@")
        other = make_simulator(
            str(trained), split, readout="letters", temperature=2.0, position_bias=[0.1, 0.2]
        )
        assert isinstance(other, LettersSimulator)
        assert other.weights == ChoiceWeights(2.0, (0.1, 0.2))
        assert other.builder.config.form == "scene"
        bare = make_simulator(str(trained), split, adapter=None)
        assert bare.engine.model_id == "smollm2-135m-instruct/float32"

    def test_simulators_of_one_folder_share_the_weights_until_they_change(
        self, trained: Path, split: TimeSplit
    ) -> None:
        first = make_simulator(str(trained), split)
        assert make_simulator(str(trained), split, outside_utility=1.0).engine is first.engine
        (trained / "adapter_model.safetensors").write_bytes(b"trained again")
        again = make_simulator(str(trained), split)
        assert again.engine is not first.engine
        assert again.engine.model_id != first.engine.model_id
        registry._shared_engine.cache_clear()

    def test_shipped_ones_are_listed_and_made_by_name(
        self, shipped: Path, split: TimeSplit
    ) -> None:
        assert "tiny-ml100k" in available_simulators()
        assert "half-copied" not in available_simulators()
        made = make_simulator("tiny-ml100k", split)
        assert "+tiny-ml100k@" in made.engine.model_id
        with pytest.raises(UnknownNameError, match="Did you mean 'tiny-ml100k'"):
            make_simulator("tiny-ml10k", split)

    def test_mistakes_in_the_file_are_named(self, trained: Path, split: TimeSplit) -> None:
        path = trained / "simulator.yaml"
        path.write_text(path.read_text() + "temprature: 2\n")
        with pytest.raises(UnknownNameError, match="Did you mean 'temperature'"):
            make_simulator(str(trained), split)

    def test_a_half_copied_adapter_is_refused(self, trained: Path, split: TimeSplit) -> None:
        (trained / "adapter_model.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"no adapter_model\.safetensors"):
            make_simulator(str(trained), split)

    def test_prompt_and_weights_are_part_of_the_name(self, trained: Path, split: TimeSplit) -> None:
        names = {
            make_simulator(str(trained), split, **options).name
            for options in ({}, {"outside_utility": 0.5}, {"history_lines": 12},
                            {"form": "session"},
                            {"readout": "letters"}, {"readout": "letters", "temperature": 2.0},
                            {"readout": "letters", "outside_option": False})
        }  # fmt: skip
        assert len(names) == 7
        assert make_simulator(str(trained), split).name in names


OLD = """format: 1
checkpoint: smollm2-135m-instruct
readout: affinity
affinity: 1.4330462252648763
appeal: -0.39326614835083484
worth: 0.8002465396304733
outside: -0.29766633068236453
domain: movie
"""
"""What shipped before its settings got the names of the field."""


class TestOldNames:
    @pytest.fixture
    def old(self, tmp_path: Path) -> Path:
        folder = tmp_path / "old"
        shutil.copytree(checkpoints.shipped_folder("smollm2-ml100k"), folder)
        (folder / "simulator.yaml").write_text(OLD)
        return folder

    def test_an_old_file_gives_the_same_simulator(self, old: Path, split: TimeSplit) -> None:
        new = make_simulator("smollm2-ml100k", split)
        found = make_simulator(str(old), split)
        assert found.weights == new.weights
        assert found.weights.outside_utility == -0.29766633068236453
        # As it was called when the settings had their old names.
        assert found.name == new.name
        assert new.name.endswith(", 164bca)")
        assert {"item_bias", "inclusive_value", "outside_utility"} < read_simulator(old).keys()

    @pytest.mark.parametrize("name", ["outside", "outside_utility"])
    @pytest.mark.parametrize("written", ["old", "new"])
    def test_either_name_overrides_either_file(
        self, old: Path, split: TimeSplit, written: str, name: str
    ) -> None:
        folder = str(old) if written == "old" else "smollm2-ml100k"
        made = make_simulator(folder, split, **{name: 1.2})
        assert made.weights.outside_utility == 1.2

    def test_both_names_at_once_are_refused(self, old: Path, split: TimeSplit) -> None:
        with pytest.raises(ConfigError, match=r"'outside_utility' twice.*outside = 2.*leave out"):
            make_simulator("smollm2-likelihood", split, outside=2, outside_utility=1)
        (old / "simulator.yaml").write_text(OLD + "item_bias: 1.0\n")
        with pytest.raises(ConfigError, match=r"simulator\.yaml gives 'item_bias' twice"):
            read_simulator(old)


class TestFetching:
    @pytest.fixture(autouse=True)
    def weights(self, monkeypatch) -> list[str]:
        asked: list[str] = []

        def resolve(name: str, *, verify: bool) -> Path:
            assert verify
            asked.append(name)
            return Path("/cache") / name

        monkeypatch.setattr(checkpoint, "resolve_checkpoint", resolve)
        return asked

    def test_a_simulator_brings_its_base_weights(self, shipped: Path, weights: list[str]) -> None:
        assert fetch_simulator("tiny-ml100k") == shipped
        assert weights == ["smollm2-135m-instruct"]

    def test_bare_weights_are_fetched_as_they_are(self, weights: list[str]) -> None:
        assert fetch_simulator("smollm2-135m-instruct") == Path("/cache/smollm2-135m-instruct")
        assert weights == ["smollm2-135m-instruct"]


class TestHub:
    """The repository's files are in the hub's cache, as after a download."""

    @pytest.fixture
    def repository(self, trained: Path, monkeypatch) -> list[str]:
        asked: list[str] = []

        def one_file(name: str, file: str, *, offline: bool) -> Path | None:
            asked.append(name)
            return trained / file if name == "someone/user" else None

        def whole(name: str, *, offline: bool, needs: str) -> Path:
            assert (name, needs) == ("someone/user", "simulator.yaml")
            return trained

        monkeypatch.setattr(checkpoint, "hub_file", one_file)
        monkeypatch.setattr(checkpoint, "fetch_from_hub", whole)
        return asked

    def test_a_repository_with_the_file_is_a_simulator(self, repository, split, trained) -> None:
        made = make_simulator("someone/user", split)
        assert isinstance(made, LikelihoodSimulator)
        assert made.weights.outside_utility == FITTED["outside_utility"]

    def test_one_without_is_bare_weights(self, repository, split: TimeSplit) -> None:
        made = make_simulator("someone/weights", split)
        assert isinstance(made, LettersSimulator)
        assert made.engine.model_id == "someone/weights/float32"

    def test_paths_never_reach_the_hub(self, repository, split: TimeSplit) -> None:
        for name in ("a/b/c", "./a/b", "/a/b", "~/b"):
            make_simulator(name, split)
        assert repository == []


def test_without_network_and_cache_a_repository_is_not_known(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert hub.hub_file("nobody/nothing-of-ours", "simulator.yaml", offline=True) is None
    with pytest.raises(CheckpointError, match="network is switched off"):
        hub.fetch_from_hub("nobody/nothing-of-ours", offline=True, needs="simulator.yaml")


def test_base_weights_in_a_folder_are_read_where_they_were_trained_only(
    split: TimeSplit, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("USERMIRROR_CACHE", str(tmp_path / "cache"))
    folder, base = tmp_path / "mine", str(tmp_path / "base")
    write_simulator(folder, {"checkpoint": base, "readout": "letters"})
    assert read_simulator(folder)["checkpoint"] == base
    monkeypatch.setenv("USERMIRROR_CACHE", str(tmp_path / "of somebody else"))
    with pytest.raises(CheckpointError, match=r"sets checkpoint = .*--set checkpoint="):
        make_simulator(str(folder), split)
    made = make_simulator(str(folder), split, checkpoint="smollm2-135m-instruct")
    assert made.engine.model_id == "smollm2-135m-instruct/float32"
