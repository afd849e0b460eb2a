"""Solvers: they settle force = 0 and return states with a verdict per sample."""

from energax.solvers.conjugate_gradient import ConjugateGradient as ConjugateGradient
from energax.solvers.coordinates import AbstractCoordinates as AbstractCoordinates
from energax.solvers.coordinates import AbstractView as AbstractView
from energax.solvers.coordinates import ErrorCoordinates as ErrorCoordinates
from energax.solvers.coordinates import StateCoordinates as StateCoordinates
from energax.solvers.diffrax import Diffrax as Diffrax
from energax.solvers.engine import AbstractIteration as AbstractIteration
from energax.solvers.engine import AbstractSolver as AbstractSolver
from energax.solvers.engine import Stopping as Stopping
from energax.solvers.engine import trace as trace
from energax.solvers.fixed_point import FixedPoint as FixedPoint
from energax.solvers.gradient_flow import GradientFlow as GradientFlow
from energax.solvers.gradient_flow import Held as Held
from energax.solvers.gradient_flow import PerSample as PerSample
from energax.solvers.gradient_flow import Unbounded as Unbounded
from energax.solvers.optax_flow import OptaxFlow as OptaxFlow
from energax.solvers.optax_flow import fixed_steps as fixed_steps
from energax.solvers.optimistix import Optimistix as Optimistix
from energax.solvers.order import Alternating as Alternating
from energax.solvers.order import Synchronous as Synchronous
from energax.solvers.relax import relax as relax
from energax.solvers.safe_step import SafeStep as SafeStep
from energax.solvers.safe_step import certified_flow as certified_flow
from energax.solvers.spectrum import largest_curvature as largest_curvature
from energax.solvers.verdict import Equilibrium as Equilibrium
from energax.solvers.verdict import Verdict as Verdict
