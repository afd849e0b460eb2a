"""Beyond the papers: experiments of this library's own."""

from energax.papers.beyond import depth, feedback, stability

EXPERIMENTS = (depth.EXPERIMENT, feedback.EXPERIMENT, stability.EXPERIMENT)
