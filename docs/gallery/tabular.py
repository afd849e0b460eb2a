"""A table of numbers and a class per row: a network in scikit-learn's pipeline, beside logistic regression.

    python docs/gallery/tabular.py            # five folds of 569 rows
    python docs/gallery/tabular.py --small    # one fold; seconds

Needs `pip install 'energax[sklearn]'`. Breast cancer data of 30 columns come with scikit-learn. Both classifiers stand
behind the same scaler, and are judged on rows that neither has seen. The table is nearly linear, so that the two should
be about equal; what the page shows is that the classifier is one of scikit-learn's own.

Prints the mean accuracy of both over the folds, and that of every fold.
"""

import argparse

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from energax.estimators import EnergyClassifier


def main(small: bool = False) -> dict[str, float]:
    """Fit and judge fold by fold; print, and return by name, the mean accuracies."""
    x, y = load_breast_cancer(return_X_y=True)
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(x, y))[: 1 if small else 5]
    network = EnergyClassifier("pc-nudge", hidden=(16,), epochs=10 if small else 30, random_state=0)
    found = {}
    for name, classifier in (("energy-based network", network), ("logistic regression", LogisticRegression())):
        pipeline = make_pipeline(StandardScaler(), classifier)
        scores = [pipeline.fit(x[fit], y[fit]).score(x[held], y[held]) for fit, held in folds]
        found[name] = float(np.mean(scores))
        print(f"{name:22s} {found[name]:.4f}   folds: {' '.join(f'{score:.3f}' for score in scores)}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="one fold, and few epochs")
    main(parser.parse_args().small)
