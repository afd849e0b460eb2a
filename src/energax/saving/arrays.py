"""Arrays of any kind as tensors that the safetensors format has, and back."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from energax.exceptions import RunError

PLAIN = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
"""Name in a file -> dtype, for those that are stored as they are."""

PAIRS = {"complex64": "float32", "complex128": "float64"}
"""Complex numbers are stored as a last axis of two: real and imaginary part."""

BYTES = (
    "float8_e3m4",
    "float8_e4m3",
    "float8_e4m3b11fnuz",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
)
"""What few readers of safetensors know is stored as bytes along a last axis."""

KEYS = ("threefry2x32", "rbg", "unsafe_rbg")

Spec = dict[str, Any]
"""What a tensor is besides its numbers: empty for an array of JAX with a dtype of `PLAIN`."""


def is_storable(value: Any) -> bool:
    """Whether a value is an array, a scalar of numpy or a Python number."""
    return isinstance(value, (jax.Array, np.ndarray, np.generic, bool, int, float, complex))


def store_array(value: Any) -> tuple[np.ndarray, Spec]:
    """An array as a tensor of a file.

    Args:
        value: an array of JAX (PRNG keys too) or numpy, or a scalar of numpy.

    Raises:
        RunError: a dtype that is no number, such as objects or text.
    """
    spec: Spec = {}
    if isinstance(value, jax.Array):
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            spec["key"] = str(jax.random.key_impl(value))
            if spec["key"] not in KEYS:
                raise RunError(f"PRNG keys of the kind {spec['key']!r} cannot be saved: use one of {', '.join(KEYS)}")
            value = jax.random.key_data(value)
        elif value.weak_type and value.ndim == 0:
            spec["weak"] = True  # a number that takes the dtype of what it meets, as step sizes do
    elif isinstance(value, np.generic):
        spec["as"] = "scalar"
    elif isinstance(value, np.ndarray):
        spec["as"] = "numpy"
    found = np.asarray(value)
    if found.dtype.byteorder == ">":
        found = found.astype(found.dtype.newbyteorder("="))
    found = np.ascontiguousarray(found).reshape(found.shape)  # the former makes an axis where there is none
    name = found.dtype.name
    if name in PLAIN.values():
        return found, spec
    if name in PAIRS:
        return found[..., None].view(PAIRS[name]), {**spec, "dtype": name}
    if name in BYTES:
        return found[..., None].view(np.uint8), {**spec, "dtype": name}
    raise RunError(f"arrays of dtype {name} cannot be saved: give numbers")


def restore_array(stored: np.ndarray, spec: Spec) -> Any:
    """The array that `store_array` was given.

    Raises:
        RunError: a description that does not fit the tensor, or a dtype that JAX would not keep in this process.
    """
    if not set(spec) <= {"key", "weak", "as", "dtype"}:
        raise RunError(f"it describes an array by {sorted(spec)}, of which something is unknown")
    found = stored
    if "dtype" in spec:
        name = spec["dtype"]
        inner = PAIRS.get(name, "uint8" if name in BYTES else None) if isinstance(name, str) else None
        last = (2 if name in PAIRS else 1,)
        if inner is None or stored.dtype != inner or stored.shape[-1:] != last:
            raise RunError(f"a tensor of dtype {stored.dtype} and shape {stored.shape} is no array of dtype {name!r}")
        found = stored.view(jnp.dtype(name))[..., 0]
    if "as" in spec:
        if spec["as"] == "scalar" and found.ndim == 0:
            return found[()]
        if spec["as"] == "numpy":
            return found.copy()  # of its own: writable, and aligned
        raise RunError(f"an array of shape {found.shape} is no {spec['as']!r}")
    if "key" in spec:
        if spec["key"] not in KEYS:
            raise RunError(f"PRNG keys of the unknown kind {spec['key']!r}")
        return jax.random.wrap_key_data(jnp.asarray(found), impl=spec["key"])
    if spec.get("weak") is True and found.ndim == 0:
        number = jnp.asarray(found.item())
        if number.dtype.itemsize <= found.dtype.itemsize:
            return number
    made = jnp.asarray(found)
    if made.dtype != found.dtype:
        raise RunError(
            f"it holds arrays of dtype {found.dtype}, and this process computes in {made.dtype}: switch "
            'jax.config.update("jax_enable_x64", True) on first'
        )
    return made


class Store:
    """The tensors of a file that is to be written.

    Attributes:
        tensors: name -> tensor.
        specs: name -> what it is besides, where there is anything to say.
    """

    def __init__(self):
        self.tensors: dict[str, np.ndarray] = {}
        self.specs: dict[str, Spec] = {}
        self._names: dict[int, str] = {}
        self._alive: list[Any] = []  # a number of `id` is worth something as long as its object lives

    def add(self, name: str, value: Any, *, again: bool = False) -> str:
        """Put an array in.

        Args:
            name: what it is to be called.
            value: as of `store_array`, or a Python number.
            again: put it in though it is there under another name.

        Returns:
            The name that it has.

        Raises:
            RunError: as `store_array`.
        """
        if not again and id(value) in self._names:
            return self._names[id(value)]
        name = name.encode("ascii", "backslashreplace").decode()  # half of a surrogate pair has no place in a file
        while name in self.tensors:
            name += "'"
        self.tensors[name], spec = store_array(value)
        if spec:
            self.specs[name] = spec
        self._names[id(value)] = name
        self._alive.append(value)
        return name
