"""Chen et al. 2025: bidirectional predictive coding and layer-adaptive learning rates."""

from energax.papers.chen2025 import fig2, fig4, fig5, fig6, fig7, parity, table3

EXPERIMENTS = tuple(one.EXPERIMENT for one in (table3, parity, fig2, fig4, fig5, fig6, fig7))
