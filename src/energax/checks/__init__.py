"""Conformance checks for classes of your own: dynamics, solvers and rules (what scikit-learn's check_estimator is).

Each of the three functions runs a list of small checks and raises `CheckError` at the first that fails, saying what
failed and by how much. Tolerances follow the precision of the arrays you hand over; float64 tells most.

Examples:
    >>> import jax, jax.numpy as jnp
    >>> from energax import PredictiveCoding, Batch, checks, networks
    >>> graph = networks.mlp([4, 6, 3], jnp.tanh, key=jax.random.key(0))
    >>> batch = Batch(jnp.ones((4, 4)), jnp.eye(4, 3))
    >>> checks.check_dynamics(PredictiveCoding(), graph, batch)
"""

from energax.checks.dynamics import check_block_minimiser as check_block_minimiser
from energax.checks.dynamics import check_dynamics as check_dynamics
from energax.checks.dynamics import check_force_is_downhill as check_force_is_downhill
from energax.checks.dynamics import check_force_shapes as check_force_shapes
from energax.checks.dynamics import check_force_traces_once as check_force_traces_once
from energax.checks.dynamics import check_labels_stay_out_of_the_free_phase as check_labels_stay_out_of_the_free_phase
from energax.checks.dynamics import check_parameter_gradient as check_parameter_gradient
from energax.checks.dynamics import check_samples_are_independent as check_samples_are_independent
from energax.checks.means import CheckError as CheckError
from energax.checks.rules import check_gradient_structure as check_gradient_structure
from energax.checks.rules import check_rule as check_rule
from energax.checks.solvers import check_solution as check_solution
from energax.checks.solvers import check_solver as check_solver
from energax.checks.solvers import check_verdict as check_verdict
