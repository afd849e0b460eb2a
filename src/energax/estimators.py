"""Estimators for scikit-learn: energy-based local learning in pipelines, grid searches and cross-validation.

Needs the extra `sklearn`: `pip install 'energax[sklearn]'`.
"""

import math
from collections.abc import Iterator
from typing import Any, Self, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("energax.estimators needs scikit-learn: pip install 'energax[sklearn]'") from error

from energax.checking import require_between, require_count, require_kind, require_whole
from energax.costs import CrossEntropy, SquaredError
from energax.metrics import COST
from energax.recipes import make_learner
from energax.recipes.settings import Settings, require_known
from energax.training import Callback, Learner, Run, Stream, Terminal, train


class _Shuffled:
    """Batches of rows in a new order at every pass."""

    def __init__(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray, size: int, seed: int):
        self.arrays, self.size, self.draw = (x, y, weights), size, np.random.default_rng(seed)

    def __len__(self) -> int:
        return -(-len(self.arrays[0]) // self.size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        order = self.draw.permutation(len(self.arrays[0]))
        for first in range(0, len(order), self.size):
            rows = order[first : first + self.size]
            yield tuple(a[rows] for a in self.arrays)


def merge_rows(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Equal rows as one row with the sum of their weights, in an order of their own; rows of weight 0 left out.

    So a row of weight 3 is the same as three equal rows, to the last bit, whatever the order and size of batches.
    """
    used = weights > 0
    both = np.concatenate([x[used], y[used].astype(x.dtype)], axis=1)
    rows, place = np.unique(both, axis=0, return_inverse=True)
    whole = np.bincount(place.reshape(-1), weights=weights[used], minlength=len(rows))
    return rows[:, : x.shape[1]], rows[:, x.shape[1] :], whole


def check_weights(weights: Any, x: np.ndarray) -> np.ndarray:
    """Weights of the rows; 1 where there are none.

    Raises:
        ValueError: negative ones, or none above 0.
    """
    weights = _check_sample_weight(weights, x, dtype=np.float64)
    if np.any(weights < 0):
        raise ValueError("Negative values in sample_weight: give weights of at least 0")
    if not np.any(weights > 0):
        raise ValueError("sample_weight holds only zeros: give some row a weight")
    return weights


class _Stop(Callback):
    """Ends a training once its cost falls by less than a tolerance."""

    def __init__(self, tol: float, patience: int):
        self.tol, self.patience, self.best, self.since = tol, patience, np.inf, 0

    def epoch(self, row, learner):
        cost = row["train_cost"]
        self.since = 0 if cost < self.best - self.tol else self.since + 1
        self.best = min(self.best, cost)
        return self.since >= self.patience


class _EnergyEstimator(BaseEstimator):
    """What classifiers and regressors share."""

    def __init__(
        self,
        recipe: str = "pc-nudge",
        hidden: int | tuple[int, ...] = (100,),
        *,
        optimiser: str = "adam",
        learning_rate: float = 1e-2,
        epochs: int = 200,
        batch: int = 32,
        tol: float = 1e-4,
        patience: int = 10,
        settings: dict[str, Any] | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.recipe = recipe
        self.hidden = hidden
        self.optimiser = optimiser
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch = batch
        self.tol = tol
        self.patience = patience
        self.settings = settings
        self.random_state = random_state
        self.verbose = verbose

    def _build(self, plan: dict[str, Any]) -> Learner:
        """The learner of a plan: everything that decides it is in plain values, so that a pickle needs no more."""
        learner, _ = make_learner(
            plan["recipe"], (plan["inputs"],), plan["outputs"], seed=plan["seed"], settings=Settings(**plan["settings"])
        )
        cost = CrossEntropy() if plan["classifies"] else SquaredError()
        if isinstance(learner.dynamics.cost, (SquaredError, type(cost))):
            return learner  # a Hopfield net is nudged by the squared error, whatever it learns
        return eqx.tree_at(lambda one: one.dynamics.cost, learner, cost)

    def _start(self, inputs: int, outputs: int, classifies: bool) -> None:
        """A new learner, and nothing trained."""
        hidden = tuple(np.atleast_1d(self.hidden).tolist())
        own = {"hidden": hidden, "optimiser": self.optimiser, "learning_rate": self.learning_rate}
        require_count("batch", self.batch)
        require_between("tol", self.tol, 0, math.inf)
        require_whole("patience", self.patience, 1)
        settings = {} if self.settings is None else self.settings
        require_kind("settings", settings, dict, 'give settings of the recipe by name, as {"beta": 1e-3}')
        for name in settings:
            require_known(name)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._plan = {
            "recipe": self.recipe,
            "inputs": inputs,
            "outputs": outputs,
            "classifies": classifies,
            "seed": seed,
            "settings": {**own, **settings},
        }
        self._run: Run | None = None
        self.learner_ = self._build(self._plan)

    def _train(self, x: np.ndarray, y: np.ndarray, weights: Any, epochs: int, stops: bool) -> None:
        """So many epochs more."""
        x, y, weights = merge_rows(x, y, check_weights(weights, x))
        seed = self._plan["seed"] + (0 if self._run is None else len(self._run.history))
        rows = _Shuffled(x, y, weights, min(self.batch, len(x)), seed)
        options: dict[str, Any] = {
            "epochs": epochs,
            "metrics": (COST,),
            "regime": False,
            "seed": self._plan["seed"],
            "display": Terminal() if self.verbose else Callback(),
            "callbacks": [_Stop(self.tol, self.patience)] if stops else [],
        }
        given = Stream(rows)
        if self._run is None:
            self._run = train(self.learner_, given, **options)
        else:
            self._run = self._run.continue_(given, **options)
        self.learner_ = self._run.learner
        self.history_ = self._run.history
        self.n_iter_ = len(self.history_)
        self.loss_curve_ = [row["train_cost"] for row in self.history_]

    def _outputs(self, x: Any, finish: str) -> np.ndarray:
        """What the trained net answers to rows."""
        check_is_fitted(self, "learner_")
        x = validate_data(self, x, reset=False, dtype=(np.float64, np.float32))
        return getattr(self.learner_, finish)(x.astype(np.float32, copy=False)).astype(np.float64)

    def _check(self, x: Any, y: Any, *, reset: bool, multi_output: bool) -> tuple[np.ndarray, np.ndarray]:
        """Rows and targets as numbers."""
        x, y = validate_data(
            self, x, y, reset=reset, dtype=(np.float64, np.float32), multi_output=multi_output, y_numeric=multi_output
        )
        return x.astype(np.float32, copy=False), y

    def __getstate__(self):
        """Plain values and arrays: programs and optimisers are made again from them."""
        state: dict[str, Any] = {**cast(Any, super().__getstate__())}
        run = state.pop("_run", None)
        if state.pop("learner_", None) is None:
            return state
        arrays = [] if run is None else jax.tree.leaves(eqx.filter(run.progress, eqx.is_array))
        return {**state, "_arrays": [np.asarray(a) for a in arrays]}

    def __setstate__(self, state):
        """Build the learner again, and put the arrays where they were."""
        state = dict(state)
        arrays = state.pop("_arrays", None)
        super().__setstate__(state)
        if arrays is None:
            return
        from energax.training.learner import begin

        learner = self._build(self._plan)
        own, rest = eqx.partition(begin(learner), eqx.is_array)
        leaves = [jnp.asarray(a) for a in arrays]
        progress = eqx.combine(jax.tree.unflatten(jax.tree.structure(own), leaves), rest) if leaves else None
        self.learner_ = learner if progress is None else progress.as_learner(learner)
        if progress is not None:
            self._run = Run(self.learner_, self.learner_, self.history_, {}, (COST,), progress)
        else:
            self._run = None


class EnergyClassifier(ClassifierMixin, _EnergyEstimator):
    """A classifier that learns by an energy-based local rule.

    Scale the features first, as in `make_pipeline(StandardScaler(), EnergyClassifier())`.

    Args:
        recipe: name of an energax recipe, as `energax recipes` lists them.
        hidden: units of the hidden layers; a number is one layer.
        optimiser: name of an optimiser of the parameters.
        learning_rate: its learning rate.
        epochs: most passes over the rows.
        batch: rows per update.
        tol: training ends where the cost fell by less than this ...
        patience: ... for so many epochs.
        settings: further settings of the recipe by name, as `{"beta": 1e-3}`.
        random_state: fixes weights and orders.
        verbose: whether progress is shown.

    Attributes:
        classes_: labels of the classes.
        n_features_in_: number of features.
        learner_: the trained learner, with `predict`, `trace` and the like.
        history_: a row per epoch: cost, and how the relaxations ended.
        loss_curve_: cost of every epoch.
        n_iter_: number of epochs.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train anew on rows X, shape `(rows, features)`, and their classes, shape `(rows,)`."""
        X, y = self._check(X, y, reset=True, multi_output=False)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        self._start(X.shape[1], len(self.classes_), True)
        self._train(X, self._encode(y), sample_weight, self.epochs, True)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """One more pass, over these rows; the first call needs `classes`, all there will be."""
        first = not hasattr(self, "classes_")
        X, y = self._check(X, y, reset=first, multi_output=False)
        check_classification_targets(y)
        if first:
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            self.classes_ = np.unique(classes)
            self._start(X.shape[1], len(self.classes_), True)
        elif classes is not None and not np.array_equal(self.classes_, np.unique(classes)):
            raise ValueError(f"classes={classes!r} is not the same as on last call, was: {self.classes_!r}")
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"y has labels {unknown} that are not among classes {self.classes_}")
        self._train(X, self._encode(y), sample_weight, 1, False)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of every row, shape `(rows,)`."""
        best = np.argmax(self._outputs(X, "predict"), axis=1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, shape `(rows, classes)`; for recipes that nudge by the cross-entropy."""
        found = self._outputs(X, "predict_proba")
        return found / found.sum(axis=1, keepdims=True)

    def _encode(self, y: np.ndarray) -> np.ndarray:
        """Classes, one-hot."""
        return (y[:, None] == self.classes_[None, :]).astype(np.float32)


class EnergyRegressor(RegressorMixin, _EnergyEstimator):
    """A regressor that learns by an energy-based local rule; targets are standardised inside.

    Scale the features first, as in `make_pipeline(StandardScaler(), EnergyRegressor())`. Arguments and attributes as of
    `EnergyClassifier`, without classes.
    """

    def __sklearn_tags__(self):
        """Several outputs are learnt at once."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train anew on rows X, shape `(rows, features)`, and targets, shape `(rows,)` or `(rows, outputs)`."""
        X, y = self._check(X, y, reset=True, multi_output=True)
        self._begin(X, y, sample_weight)
        self._train(X, self._scale(y), sample_weight, self.epochs, True)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """One more pass, over these rows; the first call fixes how targets are standardised."""
        first = not hasattr(self, "learner_")
        X, y = self._check(X, y, reset=first, multi_output=True)
        if first:
            self._begin(X, y, sample_weight)
        self._train(X, self._scale(y), sample_weight, 1, False)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Values, of the shape of the targets."""
        found = self._outputs(X, "predict") * self._std + self._mean
        return found if self._several else found[:, 0]

    def _begin(self, X: np.ndarray, y: np.ndarray, sample_weight: Any) -> None:
        columns = y.reshape(len(y), -1).astype(np.float64)
        # of merged rows: what counts three times must move mean and spread as three rows do, to the last bit
        _, columns, weights = merge_rows(X.astype(np.float64), columns, check_weights(sample_weight, X))
        self._several, self._mean = y.ndim > 1, np.average(columns, axis=0, weights=weights)
        std = np.sqrt(np.average((columns - self._mean) ** 2, axis=0, weights=weights))
        self._std = np.where(std > 0, std, 1.0)
        self._start(X.shape[1], columns.shape[1], False)

    def _scale(self, y: np.ndarray) -> np.ndarray:
        """Targets as the net learns them."""
        return ((y.reshape(len(y), -1) - self._mean) / self._std).astype(np.float32)
