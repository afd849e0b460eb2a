"""Beyond the papers: experiments of this library's own."""

from energax.papers.beyond import depth

EXPERIMENTS = (depth.EXPERIMENT,)
