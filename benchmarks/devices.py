"""Where workers compute, and which clock measures them there."""

import dataclasses

from benchmarks.workers.protocol import DEVICE
from energax.exceptions import SettingError


@dataclasses.dataclass(frozen=True)
class Device:
    """A kind of device.

    Attributes:
        name: `cpu`, or `gpu` by CUDA.
        clock: which seconds count: `cpu`, the processor's, or `wall`.
        conditions: what the table says of it.
        variables: environment of the workers.
    """

    name: str
    clock: str
    conditions: str
    variables: dict[str, str]


CPU = Device(
    "cpu",
    "cpu",
    "one thread, float32, medians of processor time",
    {
        DEVICE: "cpu",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
        "JAX_PLATFORMS": "cpu",
        "PYTHONUNBUFFERED": "1",
    },
)
GPU = Device(
    "gpu",
    "wall",
    "float32 without TensorFloat-32, medians of elapsed time",
    {
        DEVICE: "gpu",
        "JAX_PLATFORMS": "cuda",
        "JAX_DEFAULT_MATMUL_PRECISION": "float32",  # of its own accord JAX would round products to TensorFloat-32
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # several workers share the memory
        "PYTHONUNBUFFERED": "1",
    },
)


def device_of(name: str) -> Device:
    """The device of a name.

    Raises:
        SettingError: there is none of that name.
    """
    devices = {device.name: device for device in (CPU, GPU)}
    if name not in devices:
        raise SettingError(f"device={name!r}: give one of {', '.join(devices)}")
    return devices[name]
