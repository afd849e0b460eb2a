"""The numbers of every recipe's training step, kept from one structure of the code to the next."""

import numpy as np
import pytest

from golden import CASES, HERE, measure

KEPT = np.load(HERE)


@pytest.mark.parametrize("name", CASES)
def test_a_training_step_gives_the_numbers_that_it_gave(name):
    found = measure(name)
    kept = {key.removeprefix(f"{name}/"): KEPT[key] for key in KEPT.files if key.startswith(f"{name}/")}
    assert sorted(found) == sorted(kept)
    for key, value in kept.items():
        if value.dtype.kind == "i":
            np.testing.assert_array_equal(found[key], value, err_msg=key)
        else:
            np.testing.assert_allclose(found[key], value, rtol=1e-9, atol=1e-11, err_msg=key)
