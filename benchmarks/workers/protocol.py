"""What controller and workers say to one another: JSON lines; arrays travel in `.npz` files.

A worker is asked `{"do": verb, ...}` and answers one line, `{"failure": reason}` where it fails. A system that trains
answers `rows` (what it offers for a workload), `prepare`, `train` (from the given weights, and hand them over), `time`
and `quality` (gradient and states at the given weights); `serve_rows` makes these from a class per system. This file
needs numpy alone: workers of other systems run where there is no energax.

A problem is a file of `x` (batches, rows, ...), `y` (one-hot) and the weights `W1`, `b1`, `W2`, ...: matrices are (in,
out), kernels (height, width, in, out), images channels last. Gradients have the same names and average over the batch;
states are `v1`, `v2`, ....
"""

import abc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable

import numpy as np

DEVICE = "ENERGAX_BENCH_DEVICE"  # of the environment: cpu or gpu
Arrays = dict[str, np.ndarray]
Message = dict


class AbstractRow(abc.ABC):
    """One way of training that a system offers, on one problem."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Go back to the problem's weights."""

    @abc.abstractmethod
    def run(self, steps: int) -> None:
        """Train on that many batches, in their order; return when it is done."""

    @abc.abstractmethod
    def weights(self) -> Arrays:
        """The weights as they are now."""

    @abc.abstractmethod
    def equilibrium(self) -> tuple[Arrays, Arrays]:
        """Gradient and states on the first batch at the problem's weights.

        Empty where they are not exposed, or belong to another energy.
        """


Offer = Callable[[Message], list[Message]]
Prepare = Callable[[str, Message, Arrays], AbstractRow]


def offered(line: str, steps: int = 0, *, role: str = "relaxation", same: bool = False, note: str = "") -> Message:
    """Describe one row of a system.

    Args:
        line: what its points have in common: one line of the picture.
        steps: relaxation steps; 0 where there are none.
        role: `relaxation` or `backprop`.
        same: whether it computes what the other rows of its role with this mark compute, number by number.
        note: what it does differently.
    """
    name = f"{line} x{steps}" if steps else line
    return {"name": name, "line": line, "steps": steps, "role": role, "same": same, "note": note}


def read_arrays(path: str) -> Arrays:
    """All arrays of a file."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def write_arrays(path: str, arrays: Arrays) -> None:
    """Write a file of arrays."""
    np.savez(path, allow_pickle=False, **arrays)


def layers_of(problem: Arrays) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and biases in order."""
    count = sum(name.startswith("W") for name in problem)
    return [(problem[f"W{i}"], problem[f"b{i}"]) for i in range(1, count + 1)]


def named(layers) -> Arrays:
    """Pairs of weights and biases as arrays by name."""
    arrays = {}
    for index, (weight, bias) in enumerate(layers, start=1):
        arrays |= {f"W{index}": np.asarray(weight), f"b{index}": np.asarray(bias)}
    return arrays


def named_states(states) -> Arrays:
    """States in order as arrays by name."""
    return {f"v{index}": np.asarray(state) for index, state in enumerate(states, start=1)}


def serve_rows(offer: Offer, prepare: Prepare) -> None:
    """Answer for a system that trains, until the controller hangs up."""
    rows: dict[str, AbstractRow] = {}

    def prepared(message):
        rows[message["row"]] = prepare(message["row"], message["workload"], read_arrays(message["problem"]))
        return {}

    def trained(message):
        row = rows[message["row"]]
        row.reset()
        row.run(message["steps"])
        write_arrays(message["out"], row.weights())
        return {}

    def timed(message):
        row = rows[message["row"]]
        cpu, wall = time.process_time(), time.perf_counter()
        row.run(message["steps"])
        return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}

    def judged(message):
        gradient, states = rows[message["row"]].equilibrium()
        write_arrays(message["out"], {**gradient, **states})
        return {}

    verbs = {"prepare": prepared, "train": trained, "time": timed, "quality": judged}
    serve({"rows": lambda message: {"rows": offer(message["workload"])}, **verbs})


def serve(verbs: dict[str, Callable[[Message], Message]]) -> None:
    """Answer each line of standard input; whatever libraries print goes to standard error."""
    pin()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        message = json.loads(line)
        try:
            answer = verbs[message["do"]](message)
        except Exception as error:
            traceback.print_exc()
            answer = {"failure": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")


def on_gpu() -> bool:
    """Whether this worker was started to compute on a GPU."""
    return os.environ.get(DEVICE) == "gpu"


def pin() -> None:
    """Keep to one core where the system can: the last of those that this process may use."""
    if hasattr(os, "sched_setaffinity") and not on_gpu():
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
