"""Beyond the papers: experiments of this library's own."""

from energax.papers.beyond import depth, stability

EXPERIMENTS = (depth.EXPERIMENT, stability.EXPERIMENT)
