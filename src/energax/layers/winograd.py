"""Convolution 3 x 3 by minimal filtering: tiles of 4 x 4 windows in 36 multiplications, where the definition takes 144.

Image tiles and kernel are polynomials; their product is taken by value at six points, one of them at infinity, in each
direction. So it is 36 products of matrices between channels, and sums before and after. With matrices D, K and R of
`transforms`, the trilinear form of a convolution is, in one dimension, <x * w, y> = sum((D x) (K w) (R y)): each of the
three maps of `energax.layers.bilinear` can be read off it.

Reference: Winograd 1980; Lavin & Gray 2016. Which points suit short arithmetic has no formula (Barabasz et al. 2020);
these were found by trying. They lose two to four times what the definition does to rounding
(`benchmarks/convolution.py`), the customary 0, +-1, +-2 more.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from energax.arithmetic import add_all

POINTS = (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)
SIDE = 3  # of the kernel
SIZE = len(POINTS) + 1  # pixels that a tile reads, each way
TILE = SIZE - SIDE + 1  # windows of a tile


def transforms(points: Sequence[float], side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices D, K, R with `x * w = R^T ((D x) (K w))` for a kernel of `side` entries; after Toom and Cook.

    Shapes `(n, n)`, `(n, side)` and `(n, n + 1 - side)`, with n one more than the points.
    """
    count = len(points) + 1

    def powers(number: int) -> np.ndarray:
        """The polynomials' bases at the points, and what is left of them at infinity."""
        return np.vstack([np.vander(points, number, increasing=True), np.eye(number)[-1]])

    others = [np.delete(points, j) for j in range(len(points))]
    weights = np.array([np.prod(point - rest) for point, rest in zip(points, others, strict=True)] + [1.0])
    data = np.zeros((count, count))
    for row, roots in enumerate([*others, np.array(points)]):
        data[row, : len(roots) + 1] = np.poly(roots)[::-1]
    return data, powers(side) / weights[:, None], powers(count + 1 - side)


DATA, KERNEL, RESULT = transforms(POINTS, SIDE)


def mix(matrix: np.ndarray, parts: Sequence[Array], axis: int = 0) -> Array:
    """The matrix times the parts, along a new axis; so small a matrix is faster as sums."""
    rows = [[float(c) * part for c, part in zip(row, parts, strict=True) if c] for row in matrix]
    return jnp.stack([add_all(row) for row in rows], axis)


def kernels(dtype: jnp.dtype) -> Array:
    """KERNEL in both directions, columns first, shape `(36, 9)`: of so small an array one product compiles faster."""
    return jnp.asarray(np.kron(KERNEL, KERNEL), dtype)


def pays(images: int, windows: tuple[int, int], channels: int, out: int) -> bool:
    """Whether it is the faster way: enough products are saved for what the sums take, as measured on a processor."""
    count = math.prod(tiles(windows))
    saved = (SIDE**2 * math.prod(windows)) / (SIZE**2 * count) - 1
    return images * count >= 16 and saved * channels * out >= 40 * (channels + out)


def winograd_convolution(x: Array, w: Array, padding: int, windows: tuple[int, int]) -> Array:
    """`(n, h, w, i), (3, 3, i, o) -> (n, h', w', o)` with stride 1 and zeros around."""
    kernel = kernels(w.dtype) @ w.swapaxes(0, 1).reshape(SIDE**2, -1)
    flat = spectrum(x, padding, windows) @ kernel.reshape(SIZE**2, *w.shape[2:])
    found = flat.reshape(SIZE, SIZE, len(x), *tiles(windows), -1)
    out = mix(RESULT.T, list(mix(RESULT.T, list(found), 4)), 2)
    rows, columns = tiles(windows)
    return out.reshape(len(x), TILE * rows, TILE * columns, -1)[:, : windows[0], : windows[1]]


def winograd_correlation(x: Array, y: Array, padding: int) -> Array:
    """`(n, h, w, i), (n, h', w', o) -> (3, 3, i, o)` with stride 1 and zeros around."""
    windows = (y.shape[1], y.shape[2])
    rows, columns = tiles(windows)
    edges = ((0, 0), (0, TILE * rows - windows[0]), (0, TILE * columns - windows[1]), (0, 0))
    blocks = jnp.pad(y, edges).reshape(len(y), rows, TILE, columns, TILE, -1)
    lines = mix(RESULT, [blocks[:, :, k] for k in range(TILE)])
    errors = mix(RESULT, [lines[..., k, :] for k in range(TILE)]).reshape(SIZE**2, -1, y.shape[3])
    found = spectrum(x, padding, windows).swapaxes(1, 2) @ errors
    kernel = kernels(x.dtype).T @ found.reshape(SIZE**2, -1)
    return kernel.reshape(SIDE, SIDE, x.shape[3], y.shape[3]).swapaxes(0, 1)


def spectrum(x: Array, padding: int, windows: tuple[int, int]) -> Array:
    """The image tiles at the points, columns first: shape `(36, n * tiles, i)`."""
    rows, columns = tiles(windows)
    far = [TILE * count + SIDE - 1 - padding - size for count, size in zip(tiles(windows), x.shape[1:3], strict=True)]
    x = jnp.pad(x, ((0, 0), (padding, far[0]), (padding, far[1]), (0, 0)))
    lines = mix(DATA, [cut(x, k, rows, 1) for k in range(SIZE)])
    return mix(DATA, [cut(lines, k, columns, 3) for k in range(SIZE)]).reshape(SIZE**2, -1, x.shape[3])


def tiles(windows: tuple[int, int]) -> tuple[int, int]:
    """Tiles that cover the windows, each way."""
    return -(-windows[0] // TILE), -(-windows[1] // TILE)


def cut(x: Array, first: int, count: int, axis: int, step: int = TILE) -> Array:
    """`count` slices, every `step`-th."""
    return jax.lax.slice_in_dim(x, first, first + step * (count - 1) + 1, step, axis)
