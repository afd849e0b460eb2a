"""energax: energy-based local learning. Any energy, any rule, any solver, on any graph."""

from importlib.metadata import version as _version

from energax import _interruption as _interruption  # first: Ctrl-C during the imports that follow ends in one line

# isort: split
import jax as _jax

__version__ = _version("energax")

if _jax.config.values["jax_default_matmul_precision"] is None:  # whoever sets it before the import has chosen
    # By itself JAX lets a GPU round float32 to ten bits before it multiplies: a small nudge drowns in that.
    _jax.config.update("jax_default_matmul_precision", "float32")

from energax import activations as activations
from energax import certificates as certificates
from energax import costs as costs
from energax import diagnostics as diagnostics
from energax import dynamics as dynamics
from energax import exceptions as exceptions
from energax import graph as graph
from energax import inference as inference
from energax import layers as layers
from energax import metrics as metrics
from energax import optimisers as optimisers
from energax import plot as plot
from energax import rules as rules
from energax import saving as saving
from energax import solvers as solvers
from energax.costs import AbstractCost as AbstractCost
from energax.costs import CrossEntropy as CrossEntropy
from energax.costs import SquaredError as SquaredError
from energax.data import load_data as load_data
from energax.dynamics import AbstractBlockEnergy as AbstractBlockEnergy
from energax.dynamics import AbstractDynamics as AbstractDynamics
from energax.dynamics import AbstractEnergy as AbstractEnergy
from energax.dynamics import AbstractErrorEnergy as AbstractErrorEnergy
from energax.dynamics import BalancedFeedback as BalancedFeedback
from energax.dynamics import Batch as Batch
from energax.dynamics import Bidirectional as Bidirectional
from energax.dynamics import FunctionEnergy as FunctionEnergy
from energax.dynamics import Hopfield as Hopfield
from energax.dynamics import LeakyDirected as LeakyDirected
from energax.dynamics import LeakyFlow as LeakyFlow
from energax.dynamics import LearnedPrecision as LearnedPrecision
from energax.dynamics import Model as Model
from energax.dynamics import Phase as Phase
from energax.dynamics import PredictiveCoding as PredictiveCoding
from energax.dynamics import Prepared as Prepared
from energax.dynamics import ScellierBengio as ScellierBengio
from energax.dynamics import SkewFeedback as SkewFeedback
from energax.dynamics import Start as Start
from energax.dynamics import prepare_phase as prepare_phase
from energax.graph import EVERY as EVERY
from energax.graph import At as At
from energax.graph import Axis as Axis
from energax.graph import Clamped as Clamped
from energax.graph import Edge as Edge
from energax.graph import Graph as Graph
from energax.graph import Node as Node
from energax.graph import Nodes as Nodes
from energax.graph import Scaled as Scaled
from energax.graph import Stacked as Stacked
from energax.graph import mupc as mupc
from energax.graph import networks as networks
from energax.graph import unroll as unroll
from energax.inference import Predictor as Predictor
from energax.rules import Adjoint as Adjoint
from energax.rules import Backprop as Backprop
from energax.rules import Contrastive as Contrastive
from energax.rules import ContrastiveHebbian as ContrastiveHebbian
from energax.rules import FirstStep as FirstStep
from energax.rules import FreeEnergy as FreeEnergy
from energax.rules import Incremental as Incremental
from energax.rules import VectorFieldRule as VectorFieldRule
from energax.saving import load as load
from energax.saving import register as register
from energax.saving import save as save
from energax.saving import summary as summary
from energax.solvers import ConjugateGradient as ConjugateGradient
from energax.solvers import Diffrax as Diffrax
from energax.solvers import Equilibrium as Equilibrium
from energax.solvers import ErrorCoordinates as ErrorCoordinates
from energax.solvers import FixedPoint as FixedPoint
from energax.solvers import GradientFlow as GradientFlow
from energax.solvers import Langevin as Langevin
from energax.solvers import Optimistix as Optimistix
from energax.solvers import StateCoordinates as StateCoordinates
from energax.solvers import Stopping as Stopping
from energax.solvers import Verdict as Verdict
from energax.solvers import relax as relax
from energax.training import Arrays as Arrays
from energax.training import Callback as Callback
from energax.training import EarlyStopping as EarlyStopping
from energax.training import Learner as Learner
from energax.training import Stream as Stream
from energax.training import Terminal as Terminal
from energax.training import begin as begin
from energax.training import evaluate as evaluate
from energax.training import fit as fit
from energax.training import train as train
from energax.training import update as update
