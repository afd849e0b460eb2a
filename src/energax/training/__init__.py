"""Training: a learner, compiled epochs, run folders, and the loop that ties them together."""

from energax.training.display import Terminal as Terminal
from energax.training.display import TrainingWarning as TrainingWarning
from energax.training.evaluation import Evaluation as Evaluation
from energax.training.evaluation import evaluate as evaluate
from energax.training.learner import Learner as Learner
from energax.training.loop import Run as Run
from energax.training.loop import fit as fit
from energax.training.run_folder import RunFolder as RunFolder
