"""Training, names, side effects, saving and loading of RecBole agents."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import random
import sys
import warnings

import numpy as np
import pandas as pd
import pytest

from usermirror_gym.agents import RecBoleAgent, available_agents, make_agent
from usermirror_gym.agents.recbole.data import Tables
from usermirror_gym.data import RecDataset, TimeSplit, load_dataset, time_cut
from usermirror_gym.errors import AgentError, CheckpointError, ConfigError, UnknownNameError
from usermirror_gym.testing.agents import grow


@pytest.mark.parametrize(
    ("wrong", "right"), [("LightGNC", "LightGCN"), ("sasrek", "SASRec"), ("Popp", "Pop")]
)
def test_a_wrong_name_suggests_the_right_one(wrong, right):
    with pytest.raises(UnknownNameError, match=f"Did you mean '{right}'"):
        make_agent(wrong)
    if right != "Pop":
        with pytest.raises(UnknownNameError, match=f"Did you mean '{right}'"):
            RecBoleAgent(wrong)


@pytest.mark.parametrize(("model", "why"), [("KGAT", "dgl"), ("mcclk", "torch_scatter")])
def test_a_model_that_cannot_run_says_why(model, why):
    for make in (make_agent, RecBoleAgent):
        with pytest.raises(AgentError, match=why):
            make(model)


def test_names_are_known_without_recbole():
    names = available_agents()
    assert names[:3] == ["Random", "Pop", "Oracle"]
    assert {"ItemKNN", "EASE", "BPR", "LightGCN", "MultiVAE", "SASRec", "GRU4Rec"} <= set(names)
    assert len(names) == len(set(names))
    assert "KGAT" not in names


def test_make_agent_takes_any_case_and_passes_settings_on():
    agent = make_agent("lightgcn", seed=4, progress=False, epochs=3)
    assert (agent.name, agent.seed, agent.config) == ("LightGCN", 4, {"epochs": 3})
    assert make_agent("POP").name == "Pop"
    with pytest.raises(ConfigError, match="simulator"):
        make_agent("oracle")
    with pytest.raises(ConfigError, match="epochs"):
        make_agent("Random", epochs=3)


def test_options_stand_behind_a_name_and_become_part_of_it(tiny, everybody, tmp_path):
    agent = make_agent("itemknn( k=5,shrink = 0.5 )", progress=False)
    assert (agent.name, agent.model) == ("ItemKNN(k=5, shrink=0.5)", "ItemKNN")
    assert agent.config == {"k": 5, "shrink": 0.5}
    assert make_agent("NeuMF(mlp_hidden_size=[8, 4])").config == {"mlp_hidden_size": [8, 4]}
    assert make_agent("BPR(epochs=3)", epochs=4).config == {"epochs": 4}
    kept = agent.fit_once(tiny, tmp_path / agent.name)
    back = make_agent(agent.name, progress=False).fit_once(tiny, tmp_path / agent.name)
    assert back.name == agent.name
    assert (back.recommend(everybody, 5) == kept.recommend(everybody, 5)).all()
    assert make_agent("LinUCB(width=0.1)").name == "LinUCB"
    for wrong in ("ItemKNN(5)", "ItemKNN(k=)", "ItemKNN(k=[1)", "ItemKNN(=3)"):
        with pytest.raises(ConfigError, match=r"written as in ItemKNN\(k=20, shrink=0\)"):
            make_agent(wrong)


def test_same_seed_same_agent_other_seed_other_agent(tiny, everybody):
    def scores(seed):
        agent = RecBoleAgent("BPR", config={"epochs": 2}, seed=seed, progress=False)
        return agent.fit(tiny).scores(everybody)

    first = scores(0)
    random.seed(99)
    np.testing.assert_array_equal(first, scores(0))
    assert not np.array_equal(first, scores(1))


def test_training_sees_nothing_after_the_cut(tiny, everybody):
    data = tiny.dataset
    past = RecDataset(
        data.name, data.domain, data.users, data.items,
        data.interactions[data.interactions["timestamp"] < tiny.t0],
    )  # fmt: skip
    for model in ("EASE", "BPR", "FM"):
        agents = [
            RecBoleAgent(model, config={"epochs": 1}, progress=False).fit(split)
            for split in (tiny, TimeSplit(past, tiny.t0))
        ]
        np.testing.assert_array_equal(*(a.scores(everybody) for a in agents))


def test_training_leaves_no_trace_in_the_process(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(sys, "argv", ["usermirror", "benchmark", "--epochs=1000", "--nonsense"])
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = random.random(), np.random.random()  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    level = logging.getLogger().level
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RecBoleAgent("BPR", config={"epochs": 1}, progress=False).fit(tiny)
    assert (random.random(), np.random.random()) == expected  # noqa: NPY002
    assert list(tmp_path.iterdir()) == []
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert logging.getLogger().level == level
    assert capsys.readouterr() == ("", "")


def test_other_packages_do_not_see_the_stand_ins_of_clustering(tiny, everybody):
    config = {"epochs": 2, "warm_up_step": 1, "num_clusters": 3}  # the second epoch clusters
    agent = RecBoleAgent("NCL", config=config, seed=1, progress=False).fit(tiny)
    assert agent.recommend(everybody, 3).shape == (len(everybody["user_id"]), 3)
    assert importlib.util.find_spec("faiss") is None
    assert importlib.util.find_spec("kmeans_pytorch") is not None


def test_progress_counts_epochs(tiny, capsys):
    RecBoleAgent("BPR", config={"epochs": 3}, progress=True).fit(tiny)
    shown = capsys.readouterr().err
    assert "BPR" in shown
    assert "3/3" in shown


def test_a_setting_that_recbole_refuses_is_explained(tiny):
    agent = RecBoleAgent("BPR", config={"train_neg_sample_args": "often"}, progress=False)
    with pytest.raises(AgentError, match=r"could not train BPR.*train_neg_sample_args"):
        agent.fit(tiny)


def test_works_without_features_and_ratings(everybody):
    events = pd.DataFrame(
        [(u, (u * i) % 12, 100 * i + u) for u in range(1, 9) for i in range(1, 7)],
        columns=["user_id", "item_id", "timestamp"],
    )
    data = RecDataset.from_tables(
        "bare",
        "movie",
        users=pd.DataFrame({"user_id": range(1, 9)}),
        items=pd.DataFrame({"item_id": range(12), "title": [f"t{i}" for i in range(12)]}),
        interactions=events,
    )
    few = {k: v[:4, :3] if v.ndim > 1 else v[:4] for k, v in everybody.items()}
    few["history_items"] = few["history_items"] % 12 + 1
    few["history_length"] = np.minimum(few["history_length"], 3)
    for model in ("BPR", "GRU4Rec", "EASE"):
        agent = RecBoleAgent(model, config={"epochs": 1}, progress=False)
        assert agent.fit(TimeSplit(data, 500)).recommend(few, 3).shape == (4, 3)


@pytest.mark.parametrize("model", ["EASE", "ItemKNN", "LightGCN", "MultiVAE", "GRU4Rec", "FM"])
def test_a_loaded_agent_recommends_the_same(fitted, everybody, tmp_path, model):
    agent = fitted(model)
    folder = agent.save(tmp_path / "agent")
    assert sorted(p.name for p in folder.iterdir()) == ["agent.json", "agent.safetensors"]
    loaded = RecBoleAgent.load(folder)
    assert (loaded.name, loaded.config, loaded.seed) == (agent.name, agent.config, agent.seed)
    grown = grow(everybody, agent.recommend(everybody, 5)[:, 0])
    for observations in (everybody, grown):
        np.testing.assert_array_equal(loaded.scores(observations), agent.scores(observations))


def test_saving_replaces_an_older_agent_but_nothing_else(fitted, everybody, tmp_path):
    folder = tmp_path / "agent"
    fitted("EASE").save(folder)
    fitted("BPR").save(folder)
    assert RecBoleAgent.load(folder).name == "BPR"
    assert [p.name for p in tmp_path.iterdir()] == ["agent"]
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(AgentError, match="not a saved agent"):
        fitted("EASE").save(other)
    assert (other / "cat.jpg").read_bytes() == b"cat"


def test_a_failed_save_leaves_the_older_agent(fitted, tmp_path, monkeypatch):
    folder = fitted("EASE").save(tmp_path / "agent")
    monkeypatch.setattr(json, "dumps", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fitted("BPR").save(folder)
    monkeypatch.undo()
    assert RecBoleAgent.load(folder).name == "EASE"
    assert [p.name for p in tmp_path.iterdir()] == ["agent"]


def test_damaged_or_missing_files_are_named(fitted, tmp_path):
    with pytest.raises(CheckpointError, match=r"agent\.json is missing"):
        RecBoleAgent.load(tmp_path / "nowhere")
    folder = fitted("EASE").save(tmp_path / "agent")
    tensors = folder / "agent.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="cannot be read"):
        RecBoleAgent.load(folder)
    header = json.loads((folder / "agent.json").read_text())
    fitted("EASE").save(folder)
    (folder / "agent.json").write_text(json.dumps({**header, "format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        RecBoleAgent.load(folder)


def test_saving_before_fitting_is_an_error(tmp_path):
    with pytest.raises(AgentError, match="not fitted"):
        RecBoleAgent("BPR").save(tmp_path / "agent")


def test_the_time_of_publication_is_no_feature():
    tables = Tables.of(time_cut(load_dataset("ml-100k")))
    assert list(tables.item_features) == ["year", "genres"]


def test_training_can_be_watched_and_ended_after_an_epoch(tiny, everybody):
    seen = []

    def watch(agent):
        seen.append(agent.scores(everybody))
        return len(seen) == 2

    config = {"epochs": 5}
    agent = RecBoleAgent("BPR", config=config, progress=False).fit(tiny, after_epoch=watch)
    assert len(seen) == 2
    assert (agent.scores(everybody) == seen[1]).all()
    assert (seen[0] != seen[1]).any()
    # Looking does not disturb: the agent is the one that trains for two epochs.
    short = RecBoleAgent("BPR", config={"epochs": 2}, progress=False).fit(tiny)
    assert (agent.scores(everybody) == short.scores(everybody)).all()


def test_item_factors_are_the_vectors_behind_the_scores(tiny, everybody, fitted):
    agent = fitted("BPR", epochs=2)
    factors = agent.item_factors()
    assert factors.shape == (tiny.dataset.n_items + 1, 64)
    known = tiny.popularity > 0
    assert (np.abs(factors).sum(axis=1) > 0).tolist() == known.tolist()
    fresh = {**everybody, "history_length": np.zeros_like(everybody["history_length"])}
    scores = agent.scores(fresh)[0, known]
    # A user's scores are an inner product with the factors, so these span them.
    rest = np.linalg.lstsq(factors[known], scores, rcond=None)[1]
    assert rest.size == 0 or rest[0] < 1e-6
    with pytest.raises(AgentError, match="no vector per item"):
        fitted("EASE").item_factors()
    with pytest.raises(AgentError, match="not fitted"):
        RecBoleAgent("BPR").item_factors()


def test_settings_as_recbole_writes_them_are_saved_as_values(split, tmp_path):
    config = {"mlp_hidden_size": (8,), "latent_dimension": 4, "epochs": "1", "use_gpu": False,
              "learning_rate": "1e-05", "valid_metric": "MRR@10", "gpu_id": None}  # fmt: skip
    agent = RecBoleAgent("MultiVAE", config=config, progress=False)
    assert agent.config["learning_rate"] == 1e-05
    assert agent.config["mlp_hidden_size"] == [8]
    again = agent.fit_once(split, tmp_path / "agent").fit_once(split, tmp_path / "agent")
    assert again.config == agent.config
