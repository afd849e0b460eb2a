"""The paper's network under a rule."""

import optax

import energax as ex
from energax import rules
from energax.data import Dataset
from energax.papers.millidge2023.common import energy, network
from energax.rules.base import AbstractRule
from energax.solvers import AbstractSolver


def learner_of(data: Dataset, seed: int, rule: AbstractRule, solver: AbstractSolver, rate: float) -> ex.Learner:
    """The paper's network under a rule, SGD with momentum .9. The gradient is divided by lambda once, by the rule."""
    return ex.Learner(network(data, seed), energy(), solver, rule, optax.sgd(rate, momentum=0.9))


def nudge(beta: float) -> AbstractRule:
    """PC-Nudge."""
    return rules.Contrastive(rules.nudge(beta))
