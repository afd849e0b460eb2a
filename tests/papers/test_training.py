"""What the papers' trainings share."""

import pytest

import energax as ex
from energax.papers.training import keep_rows


def test_rows_of_a_subset_have_statistics_of_their_own():
    """Oracle: the pixels' mean."""
    data = ex.load_data("digits")
    few = keep_rows(data, 100)
    assert len(few.train) == 100
    assert few.mean[0] == pytest.approx((few.train.images / 16).mean())
    assert (few.test.labels == data.test.labels).all()
    assert keep_rows(data, None) is data
