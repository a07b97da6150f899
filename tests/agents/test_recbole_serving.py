"""What a RecBole model says about users, grown or not, against RecBole itself."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from usermirror_gym.agents import PopAgent, RecBoleAgent, observations_from_split
from usermirror_gym.agents.recbole.serving import fit_fold_in, history_code
from usermirror_gym.agents.recbole.shim import contained
from usermirror_gym.testing.agents import grow
from usermirror_gym.testing.data import tiny_split

LATE = 10  # a user without anything before T0
NEVER_BEFORE_T0 = 40  # an item without anything before T0


def _by_recbole(agent, user):
    """``full_sort_predict`` of RecBole for one of our users, by our item ids."""
    import torch
    from recbole.data.interaction import Interaction

    built = agent._built
    batch = Interaction({"user_id": torch.tensor([built.user_ids.theirs[user]])})
    with torch.no_grad():
        scores = built.model.full_sort_predict(batch).numpy().ravel()
    ours = {}
    for token, theirs in built.dataset.field2token_id["item_id"].items():
        if token != "[PAD]":
            ours[int(token)] = scores[theirs]
    return ours


@pytest.mark.parametrize(
    "model", ["EASE", "ItemKNN", "SLIMElastic", "MultiVAE", "MultiDAE", "BPR", "LightGCN"]
)
def test_users_who_have_not_grown_get_recboles_own_scores(fitted, tiny, everybody, model):
    agent = fitted(model)
    scores = agent.scores(everybody)
    for user in tiny.users_with_history(1).tolist():
        expected = _by_recbole(agent, user)
        items = sorted(expected)
        np.testing.assert_allclose(
            scores[user - 1, items], [expected[i] for i in items], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("model", ["EASE", "MultiVAE", "BPR", "LightGCN", "GRU4Rec", "NeuMF"])
def test_growth_changes_what_is_recommended(fitted, everybody, model):
    agent = fitted(model)
    first = agent.scores(everybody)
    grown = agent.scores(grow(everybody, agent.recommend(everybody, 5)[:, 4]))
    ranked = np.isfinite(first[0])
    moved = np.abs(grown[:, ranked] - first[:, ranked]).max(axis=1)
    assert (moved > 1e-6).all()


def test_the_order_of_the_history_matters_to_sequential_models_only(fitted, everybody):
    backwards = {k: v.copy() for k, v in everybody.items()}
    for row, n in enumerate(backwards["history_length"]):
        backwards["history_items"][row, :n] = backwards["history_items"][row, :n][::-1]
    sequential, matrix = fitted("GRU4Rec"), fitted("EASE")
    rows = everybody["history_length"] > 1
    changed = sequential.scores(backwards) != sequential.scores(everybody)
    assert changed[rows].any(axis=1).all()
    np.testing.assert_array_equal(matrix.scores(backwards), matrix.scores(everybody))


@pytest.mark.parametrize("size", [2, 15])
def test_sequences_end_with_the_newest_and_reach_back_before_the_observed(fitted, tiny, size):
    from usermirror_gym.agents.recbole.serving import sequence_fields

    agent = fitted("GRU4Rec", MAX_ITEM_LIST_LENGTH=6)
    users = tiny.users_with_history(6)[:4]
    seen = observations_from_split(tiny, users, history_size=size, slate_size=5)
    new = agent.recommend(seen, 1)[:, 0]
    asked, empty = agent._ask(grow(seen, new))
    fields = sequence_fields(agent._built, asked)
    assert not empty.any()
    assert (fields["item_length"] == 6).all()
    ours = agent._built.item_ids.ours[fields["item_id_list"]]
    for row, user in enumerate(users.tolist()):
        assert ours[row].tolist() == [*tiny.histories[user].items[-5:].tolist(), new[row]]


def test_a_new_user_without_history_gets_the_popular_items(fitted, tiny, everybody):
    late = {k: v[LATE - 1 : LATE] for k, v in everybody.items()}
    popular = PopAgent().fit(tiny).recommend(late, 5)[0]
    for model in ("EASE", "BPR", "GRU4Rec"):
        slate = fitted(model).recommend(late, 5)[0]
        np.testing.assert_array_equal(
            np.sort(tiny.popularity[slate]), np.sort(tiny.popularity[popular])
        )


def test_a_new_user_with_only_unknown_items_gets_the_popular_items(fitted, everybody):
    late = {k: v[LATE - 1 : LATE].copy() for k, v in everybody.items()}
    plain = fitted("BPR").recommend(late, 5)
    late["history_items"][0, 0], late["history_length"][0] = NEVER_BEFORE_T0, 1
    np.testing.assert_array_equal(fitted("BPR").recommend(late, 5), plain)


def test_items_without_interactions_are_never_shown(fitted, everybody):
    for model in ("EASE", "BPR", "GRU4Rec", "MultiVAE"):
        agent = fitted(model)
        assert not (agent.recommend(everybody, 20) == NEVER_BEFORE_T0).any()
        assert np.isneginf(agent.scores(everybody)[:, NEVER_BEFORE_T0]).all()


def test_models_that_read_features_can_score_a_new_item(fitted, everybody):
    assert np.isfinite(fitted("FM").scores(everybody)[LATE, NEVER_BEFORE_T0])


@pytest.mark.parametrize("model", ["EASE", "MultiVAE", "BPR"])
def test_a_new_user_is_served_by_taste(fitted, everybody, model):
    """Two new users of opposite taste: each gets more of their own half than the other."""
    agent = fitted(model, epochs=30, learning_rate=0.01, train_batch_size=64)
    late = {k: v[[LATE - 1, LATE - 1]].copy() for k, v in everybody.items()}
    late["history_items"][0, :6] = [1, 2, 3, 4, 5, 6]
    late["history_items"][1, :6] = [21, 22, 23, 24, 25, 26]
    late["history_length"][:] = 6
    first_half = (agent.recommend(late, 8) <= 20).sum(axis=1)
    assert first_half[0] >= first_half[1] + 4


def test_what_is_learned_beats_popularity_on_two_tastes(tiny):
    from usermirror_gym.benchmark.offline import offline_scores

    split = tiny_split(n_users=200, n_items=60, seed=1)
    agent = RecBoleAgent("EASE", config={"reg_weight": 20.0}, progress=False).fit(split)
    pop = offline_scores(PopAgent().fit(split), split)
    assert offline_scores(agent, split).mean("ndcg") > 1.2 * pop.mean("ndcg")


def test_fold_in_finds_vectors_that_depend_on_the_history():
    """Scores made by a linear map of the histories are recovered for new histories."""
    rng = np.random.default_rng(0)
    rows = sp.csr_matrix((rng.random((300, 30)) < 0.3).astype(np.float32))
    factors = np.linalg.qr(rng.normal(size=(30, 4)))[0]
    truth = history_code(rows, factors) @ rng.normal(size=(4, 4)) @ factors.T + rng.normal(size=30)
    items, weights, offset = fit_fold_in(truth[:200], rows[:200])
    found = offset + history_code(rows[200:], items) @ weights @ items.T
    for row, expected in zip(found, truth[200:], strict=True):
        assert np.corrcoef(row, expected)[0, 1] > 0.98


def test_rows_have_the_same_bits_whatever_the_batch(fitted, everybody):
    for model in ("BPR", "MultiVAE", "GRU4Rec", "EASE"):
        agent = fitted(model)
        grown = grow(everybody, agent.recommend(everybody, 5)[:, 0])
        together = agent.scores(grown)
        for row in (0, 13, 29):
            alone = agent.scores({k: v[row : row + 1] for k, v in grown.items()})[0]
            np.testing.assert_array_equal(alone, together[row], err_msg=model)


def test_k_beyond_what_the_model_can_rank_is_named(fitted, everybody):
    from usermirror_gym.errors import AgentError

    assert fitted("EASE").recommend(everybody, 39).shape == (30, 39)
    with pytest.raises(AgentError, match="k = 40 items, but 39"):
        fitted("EASE").recommend(everybody, 40)


def test_shim_gives_back_what_numpy_2_and_scipy_removed():
    with contained(0):
        from scipy.sparse import dok_matrix

        matrix = dok_matrix((2, 3), dtype=np.float32)
        matrix._update({(0, 1): 1.0, (1, 2): 2.0})
        np.testing.assert_array_equal(matrix.toarray(), [[0, 1, 0], [0, 0, 2]])
        assert np.float64 is np.float64
