"""What a training step is worth: how far from equilibrium it runs, and how far from the exact gradient."""

from energax.diagnostics.regime import Regime as Regime
from energax.diagnostics.regime import measure_regime as measure_regime
