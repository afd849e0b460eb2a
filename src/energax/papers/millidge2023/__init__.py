"""Millidge, Song, Salvatori, Lukasiewicz & Bogacz 2023: backpropagation at the infinitesimal inference limit."""

from energax.papers.millidge2023 import fig2a

EXPERIMENTS = (fig2a.EXPERIMENT,)
