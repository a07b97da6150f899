"""What was chosen after what: by hand, and whatever the order of the rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from usermirror_gym.errors import ConfigError
from usermirror_gym.train import affinity_head as follows
from usermirror_gym.train.affinity_head import choice_counts, follow_matrix
from usermirror_gym.train.config import Affinity

# Item 3 is chosen by nobody; user 2 begins before user 1 ends.
EVENTS = pd.DataFrame(
    {
        "user_id": [1, 1, 1, 2, 2, 1],
        "item_id": [1, 2, 4, 2, 1, 5],
        "timestamp": [10, 20, 30, 15, 25, 40],
    }
)
PLAIN = Affinity(parts=((1, "mean"),), window=1, decay=0.0, backwards=0.0, norm_power=0.0)


def matrix(events: pd.DataFrame = EVENTS, **settings: float) -> np.ndarray:
    found = follow_matrix(events, 5, PLAIN.model_copy(update=settings))
    assert found.mean() == pytest.approx(1)
    return found


def test_next_choices_of_the_same_user() -> None:
    expected = np.zeros((4, 4))  # items 1, 2, 4, 5
    expected[0, 1] = expected[1, 2] = expected[2, 3] = expected[1, 0] = 1
    np.testing.assert_allclose(matrix(), expected / expected.mean())


def test_distance_counts_less_and_ends_at_the_window() -> None:
    two = matrix(window=2, decay=0.5)
    assert two[0, 2] / two[0, 1] == pytest.approx(2**-0.5)
    assert two[0, 3] == 0
    assert matrix(window=3)[0, 3] > 0


def test_backwards_adds_the_transpose() -> None:
    ahead, both = matrix(), matrix(backwards=0.25)
    assert both[2, 1] / both[1, 2] == pytest.approx(0.25)
    np.testing.assert_allclose(both / both[0, 1] * 1.25, (ahead + 0.25 * ahead.T) / ahead[0, 1])


def test_counts_are_taken_out() -> None:
    ahead, normed = matrix(), matrix(norm_power=0.5)
    assert choice_counts(EVENTS, 5).tolist() == [0, 2, 2, 0, 1, 1]
    ratio = normed[0, 1] / normed[2, 3] / (ahead[0, 1] / ahead[2, 3])
    assert ratio == pytest.approx(1 / 2)  # sqrt(2 * 2) against sqrt(1 * 1)


def test_the_order_of_rows_does_not_matter() -> None:
    shuffled = EVENTS.sample(frac=1, random_state=3)
    np.testing.assert_array_equal(matrix(shuffled, window=3), matrix(window=3))


def test_an_item_chosen_again_does_not_follow_itself() -> None:
    again = pd.concat([EVENTS, EVENTS.assign(timestamp=EVENTS.timestamp + 100)])
    assert (np.diag(matrix(again, window=9)) == 0).all()


def test_nothing_to_learn_and_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no user chose two different items"):
        follow_matrix(EVENTS.drop_duplicates("user_id"), 5, PLAIN)
    monkeypatch.setattr(follows, "MOST_ITEMS", 3)
    with pytest.raises(ConfigError, match="here 4 and at most 3: leave out rare items"):
        matrix()
