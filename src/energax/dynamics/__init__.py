"""How states move: the energies and forces, one file each, and the phase that solvers settle."""

from energax.dynamics.base import AbstractBlockEnergy as AbstractBlockEnergy
from energax.dynamics.base import AbstractDynamics as AbstractDynamics
from energax.dynamics.base import AbstractEnergy as AbstractEnergy
from energax.dynamics.base import AbstractErrorEnergy as AbstractErrorEnergy
from energax.dynamics.base import AbstractTotalEnergy as AbstractTotalEnergy
from energax.dynamics.base import FreeGradient as FreeGradient
from energax.dynamics.base import Prepared as Prepared
from energax.dynamics.base import Start as Start
from energax.dynamics.bidirectional import AbstractBidirectional as AbstractBidirectional
from energax.dynamics.bidirectional import BalancedFeedback as BalancedFeedback
from energax.dynamics.bidirectional import Bidirectional as Bidirectional
from energax.dynamics.bidirectional import SkewFeedback as SkewFeedback
from energax.dynamics.function_energy import FunctionEnergy as FunctionEnergy
from energax.dynamics.hopfield import Hopfield as Hopfield
from energax.dynamics.model import Model as Model
from energax.dynamics.phase import Batch as Batch
from energax.dynamics.phase import Phase as Phase
from energax.dynamics.phase import prepare_phase as prepare_phase
from energax.dynamics.precision import LearnedPrecision as LearnedPrecision
from energax.dynamics.predictive_coding import PredictiveCoding as PredictiveCoding
from energax.dynamics.priors import AbstractPrior as AbstractPrior
from energax.dynamics.priors import GaussianPrior as GaussianPrior
from energax.dynamics.priors import LaplacePrior as LaplacePrior
from energax.dynamics.scellier_bengio import ScellierBengio as ScellierBengio
