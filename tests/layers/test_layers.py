"""Layers against equinox.nn, jax.lax and numpy."""

from functools import partial
from unittest import mock

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energax.layers import (
    Analytic,
    Chain,
    Conv2d,
    Flatten,
    Identity,
    Linear,
    Pool,
    SoftmaxPooling,
    average,
    bilinear,
    is_analytic,
    maximum,
    mean_over_image,
    winograd,
)
from energax.layers.bilinear import convolve

pytestmark = pytest.mark.usefixtures("strict")

KEY = jax.random.key(0)


@pytest.mark.parametrize("use_bias", [True, False])
def test_linear_equals_equinox(use_bias):
    ours = Linear(4, 3, use_bias=use_bias, key=KEY)
    theirs = eqx.nn.Linear(4, 3, use_bias=use_bias, key=KEY)
    theirs = eqx.tree_at(lambda l: l.weight, theirs, ours.weight.T)
    if use_bias:
        theirs = eqx.tree_at(lambda l: l.bias, theirs, ours.bias)
    x = jax.random.normal(KEY, (4,))
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-14)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (2, 2, 0), (5, 1, 0)])
def test_convolution_equals_equinox(kernel, stride, padding):
    ours = Conv2d(2, 3, kernel, stride=stride, padding=padding, key=KEY)
    theirs = eqx.nn.Conv2d(2, 3, kernel, stride, padding, key=KEY)
    weight, bias = jnp.transpose(ours.weight, (3, 2, 0, 1)), ours.bias[:, None, None]
    theirs = eqx.tree_at(lambda l: (l.weight, l.bias), theirs, (weight, bias))
    image = jax.random.normal(KEY, (6, 8, 2))
    expected = jnp.moveaxis(theirs(jnp.moveaxis(image, -1, 0)), 0, -1)
    np.testing.assert_allclose(ours(image), expected, rtol=1e-12, atol=1e-14)


GEOMETRIES = [  # image, kernel, stride, padding
    ((6, 8), (3, 3), 1, 1),
    ((7, 6), (3, 3), 2, 1),
    ((9, 8), (2, 3), 3, 0),
    ((5, 5), (5, 4), 1, 2),
    ((4, 5), (2, 2), 2, 3),
    ((6, 6), (1, 1), 2, 0),
]


def reference(x, w, stride, padding):
    """JAX's primitive, differentiated and batched by JAX."""
    pads = ((padding, padding), (padding, padding))
    return jax.lax.conv_general_dilated(x, w, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def arrays(image, kernel, dtype=float):
    """Images, a kernel, and a direction in each."""
    keys = jax.random.split(KEY, 4)
    shapes = ((2, *image, 3), (*kernel, 3, 4))
    x, w, dx, dw = (jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes * 2, strict=True))
    return (x, w), (dx, dw)


def both(image, kernel, stride, padding):
    """Ours and the reference, followed by something that makes second derivatives matter."""
    ours = jax.jit(lambda x, w: jnp.sin(convolve(x, w, stride=stride, padding=padding)))
    return ours, jax.jit(lambda x, w: jnp.sin(reference(x, w, stride, padding)))


def derivatives(f, args, directions):
    """Value, jvp, vjp and a Hessian-vector product of f."""

    def slope(*args):
        out, pull = jax.vjp(f, *args)
        return pull(jnp.cos(out))

    return jax.jit(lambda a, d: (jax.jvp(f, a, d), slope(*a), jax.linearize(slope, *a)[1](*d)))(args, directions)


def close(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), ours, theirs)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("dtype", [float, complex])
def test_convolution_and_its_derivatives_equal_the_primitive(geometry, dtype):
    """In image and kernel at once, real and holomorphic."""
    args, directions = arrays(*geometry[:2], dtype)
    ours, theirs = both(*geometry)
    close(derivatives(ours, args, directions), derivatives(theirs, args, directions))


def test_complex_images_meet_a_real_kernel():
    """Oracle: the primitive on the kernel made complex; the kernel's derivative is the real part of its."""
    (x, _), _ = arrays((6, 8), (3, 3), complex)
    (_, w), _ = arrays((6, 8), (3, 3))
    ours, pull = jax.vjp(lambda x, w: convolve(x, w, stride=2, padding=1), x, w)
    theirs, expected = jax.vjp(lambda x, w: reference(x, w, 2, 1), x, w.astype(complex))
    close(ours, theirs)
    dx, dw = expected(jnp.sin(theirs))
    close(pull(jnp.sin(ours)), (dx, dw.real))


@pytest.mark.parametrize("axes", [(0, None), (3, None), (None, 2), (1, 4)])
def test_convolution_under_vmap_equals_a_loop(axes):
    """Images, kernels or both batched, around a gradient; the Hessian batches every map within."""
    geometry = GEOMETRIES[1]
    args, directions = arrays(*geometry[:2])
    batched = [
        a if axis is None else jnp.stack([a, a + d], axis) for a, d, axis in zip(args, directions, axes, strict=True)
    ]

    def slopes(f):
        return jax.value_and_grad(lambda x, w: jnp.sum(f(x, w)), argnums=(0, 1))

    ours, theirs = map(slopes, both(*geometry))
    rows = [
        [a if axis is None else jnp.take(a, n, axis) for a, axis in zip(batched, axes, strict=True)] for n in (0, 1)
    ]
    expected = jax.tree.map(lambda *a: jnp.stack(a), *map(jax.jit(lambda row: theirs(*row)), rows))
    close(jax.jit(jax.vmap(ours, axes))(*batched), expected)


@pytest.mark.parametrize("argnum", [0, 1])
def test_hessian_of_a_convolution_equals_the_primitives(argnum):
    """Forward over reverse, with every map batched within; one sample."""
    (x, w), _ = arrays((4, 3), (2, 2))
    ours, theirs = (
        jax.jit(jax.hessian(lambda x, w, f=f: jnp.sum(f(x, w)), argnum))(x[:1], w) for f in both((4, 3), (2, 2), 1, 1)
    )
    close(ours, theirs)


@partial(jax.jit, static_argnums=(0, 4))
def compare(form, x, w, y, shape):
    """Convolution, adjoint and correlation in one form, and in JAX's primitive."""
    maps = {"convolution": (x, w), "adjoint": (y, w), "correlation": (x, y)}
    found = [[getattr(bilinear, f"{kind}_{name}")(*of, shape) for name, of in maps.items()] for kind in (form, "plain")]
    return tuple(found)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_formulation_of_the_three_maps_agrees(geometry):
    """Oracle: JAX's primitive and its transposes, which other backends run; on this one they are not otherwise run."""
    (x, w), _ = arrays(*geometry[:2])
    shape = bilinear.Geometry(*geometry)
    thick, deep = jnp.concatenate([x, x + 1], -1), jnp.concatenate([w, w - 1], 2)
    for channels in (1, 3, 5):  # one, few, and many: each has a form of its own
        x, w = thick[..., :channels], deep[:, :, :channels]
        y = jnp.sin(bilinear.plain_convolution(x, w, shape))
        close(*compare("ordinary", x, w, y, shape))
    close(*compare("sliced", x, w, y, shape))


@pytest.mark.parametrize("image", [(4, 4), (8, 6), (7, 9), (3, 4)])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_minimal_filtering_is_the_convolution(image, padding):
    """Oracle: JAX's primitive and its transpose, where tiles cover the windows and where they stand over."""
    shape = bilinear.Geometry(image, (3, 3), 1, padding)
    (x, w), _ = arrays(*shape[:2])

    @jax.jit
    def filtered(x, w):
        y = bilinear.plain_convolution(x, w, shape)
        found = (
            winograd.winograd_convolution(x, w, padding, shape.windows),
            winograd.winograd_correlation(x, y, padding),
        )
        return found, (y, bilinear.plain_correlation(x, y, shape))

    close(*filtered(x, w))


def test_minimal_filtering_in_single_precision_is_nearly_as_exact_as_the_definition():
    """Oracle: double precision. The customary points 0, +-1, +-2 lose half as much again, or more."""
    shape = bilinear.Geometry((8, 8), (3, 3), 1, 1)
    single = [jax.random.normal(KEY, side, jnp.float32) for side in ((4, 8, 8, 64), (3, 3, 64, 64))]
    exact = bilinear.plain_convolution(*(a.astype(float) for a in single), shape)

    def loss(found):
        return jnp.linalg.norm((found.astype(float) - exact).ravel()) / jnp.linalg.norm(exact.ravel())

    ours = loss(winograd.winograd_convolution(*single, 1, (8, 8)))
    assert ours < 5 * loss(bilinear.plain_convolution(*single, shape))
    customary = dict(zip(("DATA", "KERNEL", "RESULT"), winograd.transforms((0, 1, -1, 2, -2), 3), strict=True))
    with mock.patch.multiple(winograd, **customary):
        assert loss(winograd.winograd_convolution(*single, 1, (8, 8))) > 1.5 * ours


def test_minimal_filtering_is_taken_where_it_pays():
    """Oracle: the operations of the compiled program, all three maps of a wide layer and of a narrow one."""
    for channels, wide in ((64, True), (8, False)):
        layer = Conv2d(channels, channels, 3, padding=1, key=KEY)
        images = jnp.ones((16, 8, 8, channels))

        def loss(weight, images, layer=layer):
            return jnp.sum(jnp.sin(jax.vmap(eqx.tree_at(lambda l: l.weight, layer, weight))(images)))

        text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(layer.weight, images).as_text()
        assert text.count("stablehlo.convolution(") == (0 if wide else 3)
        assert text.count("stablehlo.dot_general ") == (6 if wide else 0)  # of the tiles, and of the kernel


def test_a_batch_of_images_is_one_ordinary_convolution():
    """Oracle: the program handed to XLA: three convolutions, none grouped, all with the dimensions in their order."""
    layer = Conv2d(8, 4, 3, padding=1, key=KEY)
    images = jax.random.normal(KEY, (5, 6, 8, 8))

    def loss(weight, images):
        return jnp.sum(jnp.sin(jax.vmap(eqx.tree_at(lambda l: l.weight, layer, weight))(images)))

    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(layer.weight, images).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.convolution(" in line]
    assert len(lines) == 3
    assert all("[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in line for line in lines)
    assert all("feature_group_count = 1 " in line and "batch_group_count = 1 " in line for line in lines)


@pytest.mark.parametrize("size", [1, 2, 3, 17])
def test_pooling_equals_reduce_window(size):
    """With both derivatives and curvature; the largest windows are reduced as a whole."""
    image, direction = jax.random.normal(KEY, (2, 34, 17, 2) if size == 17 else (2, 6, 12, 2))
    window = (size, size, 1)

    def highest(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")

    def summed(x):
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, window, "VALID")

    def soft(x):
        return summed(x * jnp.exp(1.5 * x)) / summed(jnp.exp(1.5 * x))

    pairs = [(maximum, highest), (average, lambda x: summed(x) / size**2), (SoftmaxPooling(1.5), soft)]
    for reduction, expected in pairs:
        ours = derivatives(Pool(size, reduction), (image,), (direction,))
        close(ours, derivatives(expected, (image,), (direction,)))


def test_pooling_takes_any_reduction_over_axes():
    """Oracle: the library's own reductions."""
    image = jax.random.normal(KEY, (6, 4, 2))
    close(Pool(2, jnp.max)(image), Pool(2, maximum)(image))
    close(Pool(2, jnp.mean)(image), Pool(2, average)(image))


@pytest.mark.parametrize("tied", [1, 2, 3, 4])
def test_the_largest_share_the_derivative_of_a_maximum(tied):
    """Oracle: a subgradient has shares that are not negative, add up to 1 and vanish off the maximum."""
    window = jnp.arange(4.0).at[4 - tied :].set(3.0)
    shares = jax.grad(lambda w: Pool(2, maximum)(w.reshape(2, 2, 1))[0, 0, 0])(window)
    np.testing.assert_allclose(shares, np.where(window == 3, 1 / tied, 0), rtol=1e-15)


def test_softmax_pooling_lies_between_mean_and_maximum():
    """Oracles: its two limits, and its definition in numpy."""
    windows = jax.random.normal(KEY, (5, 4))
    np.testing.assert_allclose(SoftmaxPooling(0.0)(windows), average(windows), rtol=1e-13)
    np.testing.assert_allclose(SoftmaxPooling(2000.0)(windows), maximum(windows), rtol=1e-12)
    raw = np.exp(1.5 * np.asarray(windows))
    expected = (raw * np.asarray(windows)).sum(1) / raw.sum(1)
    np.testing.assert_allclose(SoftmaxPooling(1.5)(windows), expected, rtol=1e-13)


def test_initial_weights_are_uniform_with_the_stated_limit():
    """Oracle: moments of U(-a, a), a = gain / sqrt(fan_in): largest below a, variance a^2 / 3."""
    for layer, fan_in in ((Linear(400, 300, gain=2.0, key=KEY), 400), (Conv2d(40, 80, 3, gain=2.0, key=KEY), 360)):
        limit = 2.0 / fan_in**0.5
        assert 0.999 * limit < float(jnp.max(jnp.abs(layer.weight))) <= limit
        assert abs(float(jnp.var(layer.weight)) / (limit**2 / 3) - 1) < 0.02
        assert float(jnp.max(jnp.abs(layer.bias))) <= limit


def test_small_layers():
    image = jax.random.normal(KEY, (2, 3, 4))
    np.testing.assert_array_equal(Flatten()(image), np.asarray(image).reshape(-1))
    np.testing.assert_array_equal(Identity()(image), image)
    np.testing.assert_allclose(mean_over_image(image), np.asarray(image).mean((0, 1)), rtol=1e-14)
    np.testing.assert_allclose(Chain((jnp.tanh, Flatten()))(image), np.tanh(np.asarray(image)).reshape(-1), rtol=1e-14)


def test_layers_refuse_shapes_they_do_not_take():
    with pytest.raises(ValueError, match=r"vector of 4 numbers, got shape \(5,\)"):
        Linear(4, 3, key=KEY)(jnp.zeros(5))
    with pytest.raises(ValueError, match=r"\(height, width, 2\), got shape \(6, 6, 1\)"):
        Conv2d(2, 3, 3, key=KEY)(jnp.zeros((6, 6, 1)))
    with pytest.raises(ValueError, match=r"multiples of 2, got shape \(5, 6, 1\)"):
        Pool(2, average)(jnp.zeros((5, 6, 1)))


def test_which_layers_are_analytic():
    assert is_analytic(Chain((Conv2d(1, 1, 3, key=KEY), jnp.tanh, Pool(2, average), Flatten())))
    assert is_analytic(Pool(2, SoftmaxPooling()))
    assert not is_analytic(Pool(2, maximum))
    assert not is_analytic(Chain((Identity(), jax.nn.relu)))
    assert not is_analytic(eqx.nn.PReLU())
    assert is_analytic(Analytic(lambda x: x**2))
