"""What was trained at work: predictions, relaxations and traces of them."""

from energax.inference.predictor import Predictor as Predictor
from energax.inference.trace import Trace as Trace
