"""Convolution of a batch of images, channels last, closed under differentiation.

Three maps share one geometry (the letters of their shapes: n images, h x w pixels, h' x w' windows, k x l kernel,
i and o channels):

    convolution   y = x * w    (n, h, w, i), (k, l, i, o) -> (n, h', w', o)
    adjoint       x = y w      (n, h', w', o), (k, l, i, o) -> (n, h, w, i)
    correlation   w = x y      (n, h, w, i), (n, h', w', o) -> (k, l, i, o)

Each is linear in both arguments, and all say the same trilinear form <x * w, y>. So the transpose of any of them in any
argument is another of them, and derivatives of every order, forward and reverse, stay among the three.

JAX would differentiate its own primitive as well. But it expresses the transposes by permuting the meaning of
dimensions, and XLA's CPU backend brings such convolutions into its fast form only outside loops: inside, where
relaxation takes place, the adjoint runs several times and the correlation a hundred times slower
(`benchmarks/convolution.py`). On that backend all three are therefore ordinary convolutions of arrays that are really
permuted, or take fewer operations where the shape allows it (`energax.layers.winograd`); elsewhere they are JAX's own.
"""

import contextlib
import contextvars
import itertools
import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from energax.layers import winograd

LAYOUT = ("NHWC", "HWIO", "NHWC")


class Geometry(NamedTuple):
    """What a convolution is besides its arrays.

    Attributes:
        image: height and width of the image.
        kernel: height and width of the kernel.
        stride: step between windows.
        padding: zeros on every side of the image.
        scanned: whether it is one position of a scan along an axis.
    """

    image: tuple[int, int]
    kernel: tuple[int, int]
    stride: int
    padding: int
    scanned: bool = False

    @property
    def windows(self) -> tuple[int, int]:
        """Height and width of the result."""
        rows, columns = (
            (size + 2 * self.padding - side) // self.stride + 1
            for size, side in zip(self.image, self.kernel, strict=True)
        )
        return rows, columns

    @property
    def remainder(self) -> tuple[int, int]:
        """Rows and columns at the far end that no window reaches."""
        rows, columns = (
            size + 2 * self.padding - side - self.stride * (count - 1)
            for size, side, count in zip(self.image, self.kernel, self.windows, strict=True)
        )
        return rows, columns


# ---------------------------------------------------------------------------------------------- JAX's own


def plain_convolution(x: Array, w: Array, geometry: Geometry) -> Array:
    """The definition, by JAX's primitive."""
    strides, zeros = (geometry.stride,) * 2, (geometry.padding, geometry.padding)
    return jax.lax.conv_general_dilated(x, w, strides, (zeros, zeros), dimension_numbers=LAYOUT)


def plain_adjoint(y: Array, w: Array, geometry: Geometry) -> Array:
    """Its transpose in the image, as JAX derives it."""
    x = jax.ShapeDtypeStruct((y.shape[0], *geometry.image, w.shape[2]), y.dtype)
    return jax.linear_transpose(lambda x: plain_convolution(x, w, geometry), x)(y)[0]


def plain_correlation(x: Array, y: Array, geometry: Geometry) -> Array:
    """Its transpose in the kernel, as JAX derives it."""
    w = jax.ShapeDtypeStruct((*geometry.kernel, x.shape[3], y.shape[3]), x.dtype)
    return jax.linear_transpose(lambda w: plain_convolution(x, w, geometry), w)(y)[0]


# ------------------------------------------------------------------------------------------ slices, for vmap


def corners(x: Array, geometry: Geometry, axis: int) -> list[Array]:
    """One array per place of the kernel: what it meets in every window, rows of which are axis `axis` of `x`."""
    edges = [(0, 0)] * x.ndim
    edges[axis : axis + 2] = [(geometry.padding, geometry.padding)] * 2
    x = jnp.pad(x, edges)
    places = itertools.product(*map(range, geometry.kernel))
    step, (rows, columns) = geometry.stride, geometry.windows
    lines = [(winograd.cut(x, i, rows, axis, step), j) for i, j in places]
    return [winograd.cut(line, j, columns, axis + 1, step) for line, j in lines]


def patches(x: Array, geometry: Geometry) -> Array:
    """What every window sees, shape `(n, h', w', k * l * i)`."""
    return jnp.concatenate(corners(x, geometry, 1), axis=-1)


def sliced_convolution(x: Array, w: Array, geometry: Geometry) -> Array:
    """Slices and one matrix product: any argument may be batched."""
    return patches(x, geometry) @ w.reshape(-1, w.shape[-1])


def sliced_adjoint(y: Array, w: Array, geometry: Geometry) -> Array:
    """Transpose of `sliced_convolution` in the image."""
    x = jax.ShapeDtypeStruct((y.shape[0], *geometry.image, w.shape[2]), y.dtype)
    return jax.linear_transpose(lambda x: sliced_convolution(x, w, geometry), x)(y)[0]


def sliced_correlation(x: Array, y: Array, geometry: Geometry) -> Array:
    """Transpose of `sliced_convolution` in the kernel."""
    out = jnp.einsum("nhwp,nhwo->po", patches(x, geometry), y)
    return out.reshape(*geometry.kernel, x.shape[3], y.shape[3])


# ------------------------------------------------------------------- ordinary convolutions, fast in a loop


ALIGNED = 4  # channels that a processor takes at once: of an odd number the convolution is several times slower
FEW = 36  # rows of `unfolded` up to which it is the fastest


def unfold(x: Array, geometry: Geometry) -> Array:
    """What every window sees, windows last, shape `(k * l * i, n * h' * w')`: whole rows of pixels are copied."""
    parts = corners(x.transpose(3, 0, 1, 2), geometry, 2)
    return jnp.concatenate(parts).reshape(len(parts) * x.shape[3], -1)


def filters(images: int, geometry: Geometry, channels: int, out: int) -> bool:
    """Whether minimal filtering knows this kernel and pays; in a scan along an axis it was measured not to."""
    known = geometry.kernel == (winograd.SIDE,) * 2 and geometry.stride == 1
    return known and not geometry.scanned and winograd.pays(images, geometry.windows, channels, out)


def ordinary_convolution(x: Array, w: Array, geometry: Geometry) -> Array:
    """The definition; of a single channel one product of matrices, and an odd number is made even by zeros."""
    channels, out = w.shape[2:]
    if channels == 1:
        return (unfold(x, geometry).T @ w.reshape(-1, out)).reshape(len(x), *geometry.windows, out)
    if filters(len(x), geometry, channels, out):
        return winograd.winograd_convolution(x, w, geometry.padding, geometry.windows)
    more = (0, -channels % ALIGNED if channels > 2 else 0)
    same = (0, 0)
    return plain_convolution(jnp.pad(x, (same, same, same, more)), jnp.pad(w, (same, same, more, same)), geometry)


def ordinary_adjoint(y: Array, w: Array, geometry: Geometry) -> Array:
    """Convolution of the spread-out y with the kernel turned by 180 degrees."""
    turned = jnp.flip(w, (0, 1)).swapaxes(2, 3)
    around = [side - 1 - geometry.padding for side in geometry.kernel]
    if geometry.stride == 1 and around[0] == around[1] >= 0:
        whole = Geometry(geometry.windows, geometry.kernel, 1, around[0], geometry.scanned)
        return ordinary_convolution(y, turned, whole)
    padding = [(zeros, rest + zeros) for zeros, rest in zip(around, geometry.remainder, strict=True)]
    spread = (geometry.stride,) * 2
    return jax.lax.conv_general_dilated(y, turned, (1, 1), padding, lhs_dilation=spread, dimension_numbers=LAYOUT)


def ordinary_correlation(x: Array, y: Array, geometry: Geometry) -> Array:
    """Convolution in which the channels of x are the images, its images the channels, and y is the kernel."""
    channels, out = x.shape[3], y.shape[3]
    if math.prod(geometry.kernel) * channels <= FEW:
        return (unfold(x, geometry) @ y.reshape(-1, out)).reshape(*geometry.kernel, channels, out)
    if filters(len(x), geometry, channels, out):
        return winograd.winograd_correlation(x, y, geometry.padding)
    padding = [(geometry.padding, geometry.padding - rest) for rest in geometry.remainder]
    spread = (geometry.stride,) * 2
    images, kernel = x.transpose(3, 1, 2, 0), y.transpose(1, 2, 0, 3)
    out = jax.lax.conv_general_dilated(images, kernel, (1, 1), padding, rhs_dilation=spread, dimension_numbers=LAYOUT)
    return out.transpose(1, 2, 0, 3)


# --------------------------------------------------------------------------------------------- primitives


def primitive(name: str, *, plain, ordinary) -> Primitive:
    """A primitive that runs `ordinary` on the CPU and `plain` elsewhere."""
    made = Primitive(name)

    @partial(jax.jit, static_argnames="geometry")
    def alone(*args, geometry):
        return made.bind(*args, geometry=geometry)

    def shape(*args, geometry):
        return jax.make_jaxpr(partial(plain, geometry=geometry))(*args).out_avals[0]

    made.def_impl(alone)
    made.def_abstract_eval(shape)
    mlir.register_lowering(made, mlir.lower_fun(plain, multiple_results=False))
    mlir.register_lowering(made, mlir.lower_fun(ordinary, multiple_results=False), platform="cpu")
    return made


convolution_p = primitive("convolution", plain=plain_convolution, ordinary=ordinary_convolution)
adjoint_p = primitive("convolution_adjoint", plain=plain_adjoint, ordinary=ordinary_adjoint)
correlation_p = primitive("convolution_correlation", plain=plain_correlation, ordinary=ordinary_correlation)

ad.defbilinear(
    convolution_p,
    lambda y, x, w, *, geometry: adjoint_p.bind(y, w, geometry=geometry),
    lambda y, x, w, *, geometry: correlation_p.bind(x, y, geometry=geometry),
)
ad.defbilinear(
    adjoint_p,
    lambda x, y, w, *, geometry: convolution_p.bind(x, w, geometry=geometry),
    lambda x, y, w, *, geometry: correlation_p.bind(x, y, geometry=geometry),
)
ad.defbilinear(
    correlation_p,
    lambda w, x, y, *, geometry: adjoint_p.bind(y, w, geometry=geometry),
    lambda w, x, y, *, geometry: convolution_p.bind(x, w, geometry=geometry),
)


def batch_images(made: Primitive, sliced, args, axes, *, geometry: Geometry):
    """More images are more of the same batch; more kernels are a batch of matrix products."""
    first, w = args
    if axes[1] is not None:
        return jax.vmap(partial(sliced, geometry=geometry), axes)(first, w), 0
    first = jnp.moveaxis(first, axes[0], 0)
    out = made.bind(first.reshape(first.shape[0] * first.shape[1], *first.shape[2:]), w, geometry=geometry)
    return out.reshape(*first.shape[:2], *out.shape[1:]), 0


def batch_correlation(args, axes, *, geometry: Geometry):
    """Kernels of separate batches: a batch of matrix products."""
    return jax.vmap(partial(sliced_correlation, geometry=geometry), axes)(*args), 0


batching.primitive_batchers[convolution_p] = partial(batch_images, convolution_p, sliced_convolution)
batching.primitive_batchers[adjoint_p] = partial(batch_images, adjoint_p, sliced_adjoint)
batching.primitive_batchers[correlation_p] = batch_correlation


SCANNED = contextvars.ContextVar("scanned", default=False)


@contextlib.contextmanager
def tracing_scan() -> Iterator[None]:
    """What is traced here is the body of a scan: its convolutions, and all derivatives of them, take the definition.

    A layer cannot see where it is called. It decides which way is faster, never what is computed.
    """
    token = SCANNED.set(True)
    try:
        yield
    finally:
        SCANNED.reset(token)


def convolve(x: Array, w: Array, *, stride: int = 1, padding: int = 0) -> Array:
    """Convolution of images `(n, h, w, i)` with a kernel `(k, l, i, o)`, zeros around: `(n, h', w', o)`.

    Complex images (holomorphic states) with a real kernel are two real convolutions.
    """
    geometry = Geometry((x.shape[1], x.shape[2]), (w.shape[0], w.shape[1]), stride, padding, SCANNED.get())
    if jnp.iscomplexobj(x) and not jnp.iscomplexobj(w):
        w = w.astype(x.real.dtype)
        return jax.lax.complex(*(convolution_p.bind(part, w, geometry=geometry) for part in (x.real, x.imag)))
    dtype = jnp.result_type(x, w)
    return convolution_p.bind(x.astype(dtype), w.astype(dtype), geometry=geometry)
