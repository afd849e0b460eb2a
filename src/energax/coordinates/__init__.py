"""Coordinates in which a solver moves: the states themselves, or their errors."""

from energax.coordinates.base import AbstractChart as AbstractChart
from energax.coordinates.base import AbstractCoordinates as AbstractCoordinates
from energax.coordinates.errors import ErrorCoordinates as ErrorCoordinates
from energax.coordinates.state import StateCoordinates as StateCoordinates
