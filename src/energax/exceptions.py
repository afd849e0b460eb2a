"""Errors that energax raises: each message names the value, the place and the remedy."""


class EnergaxError(Exception):
    """Root of all errors that a user of energax can cause and mend."""


class GraphError(EnergaxError, ValueError):
    """A graph that cannot be built: the message names the node and lists the known ones."""


class DataError(EnergaxError, ValueError):
    """Images, labels or data files that cannot be used."""


class SettingError(EnergaxError, ValueError):
    """A setting out of its range, or objects that do not combine."""


class RunError(EnergaxError, RuntimeError):
    """A run that cannot start, continue or be saved."""


class DivergenceError(RunError):
    """A training whose cost or parameters are no numbers any more."""


class RelaxationWarning(UserWarning):
    """An answer was given, and it is of no equilibrium."""


class SaveError(RunError):
    """A file of a run that could not be written: the disk is full, or the folder went away."""
