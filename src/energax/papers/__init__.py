"""Figures and tables of papers, each one experiment in one file; `energax reproduce` runs them.

Nothing else in the library imports this package.
"""

from energax.checking import find_named
from energax.papers.beyond import EXPERIMENTS as BEYOND
from energax.papers.chen2025 import EXPERIMENTS as CHEN2025
from energax.papers.costa2025 import EXPERIMENTS as COSTA2025
from energax.papers.experiment import Experiment as Experiment
from energax.papers.experiment import Judgement as Judgement
from energax.papers.experiment import Outcome as Outcome
from energax.papers.experiment import judge_claim as judge_claim
from energax.papers.millidge2023 import EXPERIMENTS as MILLIDGE2023
from energax.papers.reproduction import redraw as redraw
from energax.papers.reproduction import reproduce as reproduce

EXPERIMENTS: dict[str, Experiment] = {one.name: one for one in (*MILLIDGE2023, *CHEN2025, *COSTA2025, *BEYOND)}
"""Every experiment by name, in the order of `energax reproduce --list`."""


def find_experiment(name: str) -> Experiment:
    """The experiment of this name.

    Raises:
        SettingError: there is none; the message lists the known ones.
    """
    return find_named("experiment", name, EXPERIMENTS)
