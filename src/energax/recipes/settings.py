"""What a recipe can be told: the settings, their common values and ranges, and a record of which of them were read."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from energax import checking
from energax.exceptions import SettingError
from energax.opening import shorten
from energax.optimisers import DEFAULTS, OPTIMISERS, STATE_OPTIMISERS

Network = Literal["mlp", "conv", "residual", "hfn", "scrn", "scrn-dense", "scrn-complex"]
Pool = Literal["stride", "average", "maximum"]
Solver = Literal["cg-errors", "cg-states", "flow", "blocks", "certified-flow"]
Activation = Literal["hard-sigmoid", "rectifier", "tanh"]
Precision = Literal["float32", "tensorfloat32", "bfloat16"]


def describe(text: str) -> Any:
    """The help text of a setting, and in brackets its value where there is one."""
    return tyro.conf.arg(help=text, help_behavior_hint=lambda value: "" if value == "None" else f"({value})")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything a recipe can be told. What is left out is the recipe's own choice; `settled` fills it in."""

    network: Annotated[
        Network | None,
        describe(
            "kind of network; hfn, scrn and scrn-complex are those of Chen et al. 2025: hierarchical feedforward, and "
            "recurrent with skips; scrn-dense has dense layers of 64 units"
        ),
    ] = None
    hidden: Annotated[tuple[int, ...] | None, describe("units of the hidden layers of an mlp")] = None
    channels: Annotated[tuple[int, ...] | None, describe("channels of a conv or residual net")] = None
    pool: Annotated[Pool | None, describe("how a conv net halves its images")] = None
    kernel: Annotated[int | None, describe("side of a conv net's kernels, odd")] = None
    width: Annotated[float | None, describe("factor of the channels of hfn and scrn nets")] = None
    length: Annotated[
        int | None, describe("steps of time of scrn nets, at least 4; 0: the cyclic graph itself, not unrolled")
    ] = None
    activation: Annotated[
        Activation | None,
        describe("activation of the units: clipped to [0, 1], only from below (ReLU), or tanh"),
    ] = None
    precision: Annotated[
        Precision | None, describe("of what is multiplied; sums, states and parameters are float32")
    ] = None
    gain: Annotated[float | None, describe("initial weights are U(+-gain / sqrt(fan_in))")] = None
    optimiser: Annotated[str | None, describe(f"optimiser of the parameters: {', '.join(OPTIMISERS)}")] = None
    learning_rate: Annotated[float | None, describe("its learning rate")] = None
    momentum: Annotated[float | None, describe("its momentum (sgd, nesterov, lars)")] = None
    weight_decay: Annotated[
        float | None, describe("share of the parameters added to the gradient; adamw, lamb: to the update")
    ] = None
    adam_eps: Annotated[float | None, describe("what adam, adamw and lamb add to the root of the variance")] = None
    clip: Annotated[float | None, describe("largest norm of the whole gradient, which is scaled down to it")] = None
    freeze: Annotated[
        str | None, describe("functions of the graph that stay as they are, separated by commas, as layer1,layer2")
    ] = None
    lr_decay_steps: Annotated[
        int | None, describe("updates over which the learning rate falls to 0 along a half cosine; left out: it stays")
    ] = None
    beta: Annotated[float | None, describe("nudge strength")] = None
    nudge_points: Annotated[int | None, describe("nudge strengths of ep-holomorphic")] = None
    feedback: Annotated[float | None, describe("strength a of a bidirectional energy's feedback")] = None
    gamma: Annotated[
        float | None, describe("feedback scale of a Hopfield net; 1 is symmetric feedback (ep: 1 where left out)")
    ] = None
    leak: Annotated[float | None, describe("directed nets: the share of its state that a unit loses per time")] = None
    feedback_radius: Annotated[
        float | None,
        describe(
            "additive directed nets: feedback is scaled down to this spectral radius, below 1 certified; inf: as is"
        ),
    ] = None
    feedback_gain: Annotated[
        float | None, describe("directed nets: initial feedback weights are U(+-feedback_gain / sqrt(fan_in))")
    ] = None
    homeostasis: Annotated[
        float | None, describe("directed nets: strength of the regulariser that makes their synapses more symmetric")
    ] = None
    solver: Annotated[
        Solver | None,
        describe(
            "cg-errors: conjugate gradients on the prediction errors (fast); cg-states: the same on the states; "
            "flow: gradient flow of the states, a local neural dynamics; blocks: exact minimisation block after block; "
            "certified-flow: plain steps, as long as the certificate of a directed net holds for"
        ),
    ] = None
    relaxation_tol: Annotated[float | None, describe("relative residual at which a sample has converged")] = None
    check_every: Annotated[int | None, describe("blocks, certified-flow: steps between tests of the residual")] = None
    max_relaxation_steps: Annotated[int | None, describe("most relaxation steps (ipc: steps per batch)")] = None
    step_size: Annotated[
        float | None, describe("flow: nominal step of the states; the measured curvature bounds it")
    ] = None
    state_momentum: Annotated[
        float | None, describe("flow: momentum of the states (--fixed-steps of sgd: 0 where left out)")
    ] = None
    fixed_steps: Annotated[
        int | None,
        describe(
            "flow, as papers have it: so many steps of --step-size by --state-optimiser, no bound, no test on the way; "
            "the verdict is of where they end"
        ),
    ] = None
    state_optimiser: Annotated[
        str | None,
        describe(
            f"what moves the states in --fixed-steps: {', '.join(STATE_OPTIMISERS)}; sgd without --state-momentum "
            "takes plain steps"
        ),
    ] = None
    batch: Annotated[int | None, describe("rows per update")] = None
    standardise: Annotated[bool | None, describe("normalise pixels per channel instead of leaving them in [0, 1]")] = (
        None
    )


COMMON = Settings(
    network="mlp",
    channels=(8, 16),
    pool="stride",
    kernel=3,
    width=1.0,
    length=6,
    activation="hard-sigmoid",
    precision="float32",
    gain=1.0,
    optimiser="sgd",
    learning_rate=0.05,
    momentum=DEFAULTS["momentum"],
    weight_decay=DEFAULTS["weight_decay"],
    adam_eps=DEFAULTS["adam_eps"],
    solver="cg-errors",
    relaxation_tol=5e-3,
    max_relaxation_steps=400,
    check_every=5,
    step_size=1.0,
    state_momentum=0.8,
    state_optimiser="sgd",
    batch=64,
    standardise=False,
)


Chosen = Any
"""`Settings` after `settled`: nothing that the recipe reads is None, which their type cannot say."""


def one_of(names: Iterable[str]) -> tuple[Callable[[Any], bool], str]:
    """The range of a setting that is one of some names."""
    *others, last = names
    return (*others, last).__contains__, f"give {', '.join(others)} or {last}"


LARGEST, SMALLEST = 3e38, 1.2e-38  # of float32, in which everything is computed
POSITIVE = (lambda value: SMALLEST <= value <= LARGEST, "give a positive number that float32 can hold")
NOT_NEGATIVE = (
    lambda value: value == 0 or SMALLEST <= value <= LARGEST,
    "give a number of at least 0 that float32 can hold",
)
BELOW_ONE = (lambda value: 0 <= value < 1, "give a number from 0 to below 1")
MOST = checking.MOST
COUNT = (lambda value: 1 <= value <= MOST, f"give a whole number of at least 1, at most {MOST}")
COUNTS = (
    lambda values: len(values) > 0 and all(1 <= value <= MOST for value in values),
    f"give one or more whole numbers of at least 1, at most {MOST}",
)

RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "network": one_of(get_args(Network)),
    "pool": one_of(get_args(Pool)),
    "solver": one_of(get_args(Solver)),
    "optimiser": one_of(OPTIMISERS),
    "state_optimiser": one_of(STATE_OPTIMISERS),
    "activation": one_of(get_args(Activation)),
    "precision": one_of(get_args(Precision)),
    "width": POSITIVE,
    "length": (
        lambda value: value == 0 or 4 <= value <= MOST,
        "give at least 4, that the image may reach the output, or 0 for the cyclic graph itself",
    ),
    "kernel": (lambda value: 1 <= value <= MOST and value % 2 == 1, "give an odd number"),
    "lr_decay_steps": COUNT,
    "fixed_steps": COUNT,
    "clip": POSITIVE,
    "adam_eps": POSITIVE,
    "weight_decay": NOT_NEGATIVE,
    "check_every": COUNT,
    "beta": (lambda value: SMALLEST <= abs(value) <= LARGEST or value == 0, "give a number that float32 can hold"),
    "nudge_points": COUNT,
    "gamma": (lambda value: 0 < value <= 1, "the feedback scale must be in (0, 1]"),
    "hidden": COUNTS,
    "channels": COUNTS,
    "max_relaxation_steps": COUNT,
    "batch": COUNT,
    "feedback": NOT_NEGATIVE,
    "leak": POSITIVE,
    "homeostasis": NOT_NEGATIVE,
    "feedback_gain": POSITIVE,
    "feedback_radius": (
        lambda value: SMALLEST <= value < 1 or value == math.inf,
        "give a number above 0 and below 1, or inf",
    ),
    "gain": POSITIVE,
    "learning_rate": POSITIVE,
    "step_size": POSITIVE,
    "momentum": BELOW_ONE,
    "state_momentum": BELOW_ONE,
    "relaxation_tol": NOT_NEGATIVE,
}


def require_ranges(settings: Chosen) -> None:
    """Refuse settings out of range before anything is built from them."""
    for name, (holds, remedy) in RANGES.items():
        value = getattr(settings, name)
        try:
            within = value is None or holds(value)
        except TypeError:  # text, or a number where a sequence belongs
            within = False
        if not within:
            raise SettingError(f"{name}={shorten(str(value), 100)}: {remedy}")


KINDS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    str: (lambda value: isinstance(value, str), "text"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    int: (lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
    float: (lambda value: isinstance(value, int | float) and not isinstance(value, bool), "a number"),
    tuple: (
        lambda value: isinstance(value, list) and all(KINDS[int][0](one) for one in value),
        "a list of whole numbers",
    ),
}
"""What JSON may hold for a setting of each type, and how that is told."""


INFINITE = "inf"  # JSON has no number for it


def write_settings(settings: Settings) -> dict[str, Any]:
    """Settings as JSON can hold them, for `read_settings`."""
    return {name: INFINITE if value == math.inf else value for name, value in vars(settings).items()}


def require_known(name: Any) -> None:
    """Refuse the name of no setting."""
    known = [field.name for field in dataclasses.fields(Settings)]
    if name not in known:
        raise SettingError(f"{checking.tell(name)} is no setting; known: {', '.join(known)}")


def read_settings(stored: Any) -> Settings:
    """Settings as JSON holds them; null, and what is not there, is None.

    Args:
        stored: what was read.

    Raises:
        SettingError: it is no object, holds a name that is no setting, or a value of another type; the message names
            the first such setting and its value.
    """
    if not isinstance(stored, dict):
        raise SettingError(f"settings={checking.tell(stored)}: give an object of settings by name")
    annotations, found = get_type_hints(Settings), {}
    for name, value in stored.items():
        require_known(name)
        kind = next(one for one in get_args(annotations[name]) if one is not type(None))
        origin = get_origin(kind)
        holds, told = KINDS[str if origin is Literal else origin or kind]
        if kind is float and value == INFINITE:
            value = math.inf
        if value is not None and not holds(value):
            raise SettingError(f"{name}={checking.tell(value)}: give {told}, or null")
        found[name] = tuple(value) if isinstance(value, list) else value
    return Settings(**found)


class Reader:
    """Settings that remember which of them were asked for."""

    def __init__(self, settings: Settings, already: Iterable[str] = ()):
        self._settings = settings
        self._read = set(already)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._settings, name)
        self._read.add(name)
        return value

    def only_read(self) -> Settings:
        """The settings that were asked for; the others are None."""
        return Settings(**{name: value for name, value in vars(self._settings).items() if name in self._read})
