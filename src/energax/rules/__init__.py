"""Rules: they turn settled states into parameter gradients."""

from energax.rules.adjoint import Adjoint as Adjoint
from energax.rules.backprop import Backprop as Backprop
from energax.rules.base import AbstractRule as AbstractRule
from energax.rules.base import Info as Info
from energax.rules.base import PhaseInfo as PhaseInfo
from energax.rules.contrastive import Contrastive as Contrastive
from energax.rules.contrastive_hebbian import ContrastiveHebbian as ContrastiveHebbian
from energax.rules.directed import Directed as Directed
from energax.rules.first_step import FirstStep as FirstStep
from energax.rules.incremental import Incremental as Incremental
from energax.rules.quadrature import AbstractQuadrature as AbstractQuadrature
from energax.rules.quadrature import Quadrature as Quadrature
from energax.rules.quadrature import RandomSign as RandomSign
from energax.rules.quadrature import centred as centred
from energax.rules.quadrature import clamped as clamped
from energax.rules.quadrature import holomorphic as holomorphic
from energax.rules.quadrature import nudge as nudge
from energax.rules.quadrature import one_sided as one_sided
from energax.rules.quadrature import richardson as richardson
