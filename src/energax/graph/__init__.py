"""Networks as graphs: nodes, edges, axes, the feed-forward pass, and builders of networks."""

from energax.graph import networks as networks
from energax.graph.clamping import hold as hold
from energax.graph.edge_list import EdgeList as EdgeList
from energax.graph.edge_list import draw_edges as draw_edges
from energax.graph.edge_list import read_edges as read_edges
from energax.graph.graph import Graph as Graph
from energax.graph.groups import group_norms as group_norms
from energax.graph.groups import parameter_groups as parameter_groups
from energax.graph.groups import scale_groups as scale_groups
from energax.graph.mupc import Scaled as Scaled
from energax.graph.mupc import fan_in as fan_in
from energax.graph.mupc import mupc as mupc
from energax.graph.parts import EVERY as EVERY
from energax.graph.parts import At as At
from energax.graph.parts import Axis as Axis
from energax.graph.parts import Clamped as Clamped
from energax.graph.parts import Edge as Edge
from energax.graph.parts import Node as Node
from energax.graph.parts import States as States
from energax.graph.rounding import PRECISIONS as PRECISIONS
from energax.graph.rounding import Rounded as Rounded
from energax.graph.rounding import round_products as round_products
from energax.graph.stacking import Stacked as Stacked
from energax.graph.structure import AbstractStructure as AbstractStructure
from energax.graph.structure import Nodes as Nodes
from energax.graph.unrolling import unroll as unroll
