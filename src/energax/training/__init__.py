"""Training: a learner, batches of anything, compiled epochs, run folders, and the loop that ties them together."""

from energax.training.arrays import Arrays as Arrays
from energax.training.batches import AbstractBatches as AbstractBatches
from energax.training.callbacks import Callback as Callback
from energax.training.callbacks import EarlyStopping as EarlyStopping
from energax.training.callbacks import Logger as Logger
from energax.training.callbacks import log_to_tensorboard as log_to_tensorboard
from energax.training.callbacks import log_to_wandb as log_to_wandb
from energax.training.display import Terminal as Terminal
from energax.training.display import TrainingWarning as TrainingWarning
from energax.training.evaluation import Evaluation as Evaluation
from energax.training.evaluation import evaluate as evaluate
from energax.training.fitting import fit as fit
from energax.training.learner import Learner as Learner
from energax.training.learner import Progress as Progress
from energax.training.learner import begin as begin
from energax.training.learner import update as update
from energax.training.loop import Run as Run
from energax.training.loop import train as train
from energax.training.rows import AbstractRows as AbstractRows
from energax.training.run_folder import RunFolder as RunFolder
from energax.training.stream import Stream as Stream
