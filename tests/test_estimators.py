"""Estimators for scikit-learn: its own checks in full, and what a user does with them."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, check_sample_weight_equivalence_on_dense_data

from energax.estimators import EnergyClassifier, EnergyRegressor, merge_rows
from energax.exceptions import SettingError

QUICK = {"recipe": "first-step", "hidden": (8,), "batch": 200, "epochs": 150, "learning_rate": 0.05, "random_state": 0}


@pytest.mark.slow  # minutes: the checks train some hundred nets
@pytest.mark.filterwarnings("ignore")  # the checks warn of what they leave out
@pytest.mark.parametrize(
    "estimator",
    [
        EnergyClassifier(**QUICK),
        EnergyRegressor(**QUICK),
        EnergyClassifier(epochs=20, random_state=0),
        EnergyRegressor(epochs=40, random_state=0),
    ],
    ids=["classifier", "regressor", "classifier as it is", "regressor as it is"],
)
def test_scikit_learns_own_checks_pass(estimator):
    """Oracle: `check_estimator` in full, without a failure that is expected; what needs pandas is skipped by it."""
    found = check_estimator(estimator, on_fail=None)
    failed = {one["check_name"]: str(one["exception"]) for one in found if one["status"] == "failed"}
    assert failed == {}
    assert sum(one["status"] == "passed" for one in found) > 45


@pytest.mark.parametrize("estimator", [EnergyClassifier(**QUICK), EnergyRegressor(**QUICK)])
def test_a_weight_of_three_is_three_rows(estimator):
    """Oracle: scikit-learn's own check, to its tolerance of 1e-7."""
    check_sample_weight_equivalence_on_dense_data(type(estimator).__name__, estimator)


def test_targets_are_standardised_by_their_weighted_mean_and_spread():
    """Oracle: numpy, on the rows repeated by hand."""
    rng = np.random.default_rng(0)
    x, y, weights = rng.normal(size=(12, 3)), rng.normal(size=12), rng.integers(1, 5, 12)
    made = EnergyRegressor(**{**QUICK, "epochs": 1}).fit(x, y, sample_weight=weights)
    np.testing.assert_allclose(made._mean, [np.repeat(y, weights).mean()], rtol=1e-12)
    np.testing.assert_allclose(made._std, [np.repeat(y, weights).std()], rtol=1e-12)


def test_a_number_of_units_is_one_layer():
    """Oracle: the shapes of the weights, and the message for what is no number of units."""
    x, y = load_iris(return_X_y=True)
    quick = {**QUICK, "epochs": 1}
    made = EnergyClassifier(**{**quick, "hidden": 7}).fit(x, y)
    assert made.learner_.graph.node("hidden1").shape == (7,)
    with pytest.raises(SettingError, match=r"hidden=.*give one or more whole numbers"):
        EnergyClassifier(**{**quick, "hidden": "7"}).fit(x, y)


def test_a_pipeline_is_searched_and_predicts():
    """Oracle: 95 % of the irises; the better of two learning rates is the one that is not 0 to speak of."""
    x, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), EnergyClassifier(**{**QUICK, "batch": 32, "epochs": 30}))
    grid = {"energyclassifier__learning_rate": [1e-6, 0.02]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(x, y)
    assert search.best_params_ == {"energyclassifier__learning_rate": 0.02}
    assert search.score(x, y) > 0.95
    chances = search.predict_proba(x[:5])
    np.testing.assert_allclose(chances.sum(1), 1, rtol=1e-12)
    np.testing.assert_array_equal(search.classes_[chances.argmax(1)], search.predict(x[:5]))


def test_a_pickle_goes_on_where_it_was():
    """Oracle: the estimator that was not pickled, after one more pass, bit for bit."""
    x, y = load_iris(return_X_y=True)
    one = EnergyClassifier(**{**QUICK, "epochs": 3}).fit(x, y)
    other = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(other.predict_proba(x), one.predict_proba(x))
    np.testing.assert_array_equal(other.partial_fit(x, y).predict_proba(x), one.partial_fit(x, y).predict_proba(x))
    assert clone(one).get_params() == one.get_params()
    assert one.n_iter_ == len(one.loss_curve_) == 4


def test_rows_of_weight_three_are_three_rows():
    """Oracle: the rows that are written out, in any order."""
    rng = np.random.default_rng(0)
    x, y, weights = rng.normal(size=(6, 2)), rng.normal(size=(6, 1)), np.array([3.0, 0, 1, 2, 1, 1])
    merged = merge_rows(x, y, weights)
    order = rng.permutation(8)
    repeated = merge_rows(*(a.repeat([3, 0, 1, 2, 1, 1], axis=0)[order] for a in (x, y)), np.ones(8))
    for a, b in zip(merged, repeated, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(merged[0]) == 5


def test_several_targets_are_learnt_at_once():
    """Oracle: two functions of one feature, each met; targets far from 0 and of different sizes."""
    x = np.linspace(-1, 1, 64)[:, None]
    y = np.hstack([1000 + 50 * np.sin(3 * x), x**2])
    one = EnergyRegressor(**{**QUICK, "hidden": (16,), "epochs": 400, "tol": 0}).fit(x, y)
    assert one.predict(x).shape == (64, 2)
    assert one.score(x, y) > 0.97


def test_settings_of_a_recipe_are_checked_at_fit():
    """Oracle: the message of the recipe."""
    x, y = load_iris(return_X_y=True)
    with pytest.raises(SettingError, match="unknown recipe 'nothing'; known: backprop"):
        EnergyClassifier("nothing").fit(x, y)
    with pytest.raises(SettingError, match=r"gamma=0\.5: first-step with these settings does not read it"):
        EnergyClassifier(**QUICK, settings={"gamma": 0.5}).fit(x, y)
    for given, message in (
        ({"batch": 0}, "batch=0: give a whole number of at least 1"),
        ({"batch": 1.5}, "batch=1.5: give a whole number"),
        ({"tol": "small"}, "tol='small': give a number from 0"),
        ({"patience": 0}, "patience=0: give a whole number of at least 1"),
        ({"settings": {"foo": 1}}, "'foo' is no setting; known: network, hidden"),
        ({"settings": [1]}, r"settings=\[1\]: give settings of the recipe by name"),
    ):
        with pytest.raises(SettingError, match=message):
            EnergyClassifier(**{**QUICK, **given}).fit(x, y)


def test_the_package_does_without_scikit_learn():
    """Oracle: a process that has none: `import energax` works, and the estimators say what is missing."""
    program = (
        "import sys\n"
        "sys.modules['sklearn'] = None\n"
        "import energax\n"
        "try:\n    import energax.estimators\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "energax.estimators needs scikit-learn: pip install 'energax[sklearn]'"
