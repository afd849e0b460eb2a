"""Builders of common graphs. All of them return plain `Graph`s; nothing here is needed to build one by hand."""

from energax.graph.networks.basic import convolutional as convolutional
from energax.graph.networks.basic import mlp as mlp
from energax.graph.networks.basic import residual as residual
from energax.graph.networks.basic import residual_mlp as residual_mlp
from energax.graph.networks.basic import sequential as sequential
from energax.graph.networks.chen2025 import hierarchical as hierarchical
from energax.graph.networks.chen2025 import recurrent_complex as recurrent_complex
from energax.graph.networks.chen2025 import recurrent_dense as recurrent_dense
from energax.graph.networks.chen2025 import recurrent_simple as recurrent_simple
from energax.graph.networks.directed import directed_complete as directed_complete
from energax.graph.networks.directed import directed_mlp as directed_mlp
from energax.graph.networks.wired import from_edges as from_edges
