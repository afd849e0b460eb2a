"""Layers that equinox.nn lacks: channels-last images, pooling as one smooth family, and facts about layers.

Every layer maps one sample, and the graph adds the batch axis, unless the layer takes a batch (`takes_batch`).
Any `eqx.Module` or callable pytree is a layer.
"""

from energax.layers.analytic import Analytic as Analytic
from energax.layers.analytic import is_analytic as is_analytic
from energax.layers.basic import Chain as Chain
from energax.layers.basic import Flatten as Flatten
from energax.layers.basic import Identity as Identity
from energax.layers.basic import Linear as Linear
from energax.layers.batched import takes_batch as takes_batch
from energax.layers.convolution import Conv2d as Conv2d
from energax.layers.pooling import Pool as Pool
from energax.layers.pooling import SoftmaxPooling as SoftmaxPooling
from energax.layers.pooling import average as average
from energax.layers.pooling import maximum as maximum
from energax.layers.pooling import mean_over_image as mean_over_image
from energax.layers.pooling import pad_even as pad_even
from energax.layers.random import Dropout as Dropout
from energax.layers.random import takes_key as takes_key
from energax.layers.routes import HeldMaximum as HeldMaximum
from energax.layers.sparse import Sparse as Sparse
from energax.layers.weights import change_weights as change_weights
from energax.layers.wrapper import AbstractWrapper as AbstractWrapper
