"""Millidge, Song, Salvatori, Lukasiewicz & Bogacz 2023: backpropagation at the infinitesimal inference limit."""

from energax.papers.millidge2023 import fig2a, fig2b, fig2c, fig3a, fig3b, fig3c, limits

EXPERIMENTS = tuple(one.EXPERIMENT for one in (fig2a, fig2b, fig2c, fig3a, fig3b, fig3c, limits))
