"""Models in files: arrays as safetensors, structure as JSON in the same file, layers by their registered names."""

from energax.saving.model import load as load
from energax.saving.model import save as save
from energax.saving.registry import register as register
from energax.saving.summary import summary as summary
