"""Rules: they turn settled states into parameter gradients."""

from energax.rules.adjoint import Adjoint as Adjoint
from energax.rules.asym_ep import AsymEP as AsymEP
from energax.rules.backprop import Backprop as Backprop
from energax.rules.base import AbstractRule as AbstractRule
from energax.rules.base import Info as Info
from energax.rules.base import PhaseInfo as PhaseInfo
from energax.rules.contrastive import Contrastive as Contrastive
from energax.rules.contrastive_hebbian import ContrastiveHebbian as ContrastiveHebbian
from energax.rules.deep2020 import Deep2020 as Deep2020
from energax.rules.dyadic_ep import DyadicEP as DyadicEP
from energax.rules.first_step import FirstStep as FirstStep
from energax.rules.free_energy import FreeEnergy as FreeEnergy
from energax.rules.homeostasis import Homeostasis as Homeostasis
from energax.rules.incremental import Incremental as Incremental
from energax.rules.nudging import AbstractNudgingScheme as AbstractNudgingScheme
from energax.rules.nudging import NudgingScheme as NudgingScheme
from energax.rules.nudging import RandomSign as RandomSign
from energax.rules.nudging import centred as centred
from energax.rules.nudging import holomorphic as holomorphic
from energax.rules.nudging import nudge as nudge
from energax.rules.nudging import one_sided as one_sided
from energax.rules.nudging import richardson as richardson
from energax.rules.nudging import unit_nudge as unit_nudge
from energax.rules.vector_field import VectorFieldRule as VectorFieldRule
