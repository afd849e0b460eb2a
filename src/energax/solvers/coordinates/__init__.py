"""Coordinates in which a solver moves: the states themselves, or their errors."""

from energax.solvers.coordinates.base import AbstractCoordinates as AbstractCoordinates
from energax.solvers.coordinates.base import AbstractView as AbstractView
from energax.solvers.coordinates.errors import ErrorCoordinates as ErrorCoordinates
from energax.solvers.coordinates.states import StateCoordinates as StateCoordinates
