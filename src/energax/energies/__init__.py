"""Energies: predictive coding over one and two hops, two Hopfield forms, and any function."""

from energax.energies.function_energy import FunctionEnergy as FunctionEnergy
from energax.energies.hopfield import Hopfield as Hopfield
from energax.energies.predictive_coding import PredictiveCoding as PredictiveCoding
from energax.energies.scellier_bengio import ScellierBengio as ScellierBengio
from energax.energies.two_hop import TwoHopCoding as TwoHopCoding
