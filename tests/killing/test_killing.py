"""One moment of `python -m tests.killing`; every moment between two operations is in training/test_run_folder.py."""

from .command import kill_and_compare


def test_a_run_that_is_killed_and_resumed_is_the_run_that_was_left_alone(tmp_path):
    """Oracle: the uninterrupted run: parameters, optimiser, history, log, result and both checkpoints, bit for bit."""
    deaths, differences = kill_and_compare(tmp_path, 1, 0)
    assert len(deaths) == 1
    assert differences == []
