"""`first-step` follows backprop through a training: one batch in float32, a whole epoch in float64."""

import equinox as eqx
import jax
import jax.numpy as jnp

import energax as ex
from energax.diagnostics.regime import flat
from energax.recipes import make_learner
from energax.training.rows import make_device_split
from oracles import gradient


def sides(data):
    """Both recipes, from the same parameters."""
    return {name: make_learner(name, data.image_shape, data.classes)[0] for name in ("first-step", "backprop")}


def test_one_batch_in_float32_is_backprops_gradient():
    """Oracle: backprop on the same batch; 1e-6 is a few roundings of float32."""
    data = ex.load_data("digits")
    learners = jax.tree.map(
        lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, sides(data), is_leaf=eqx.is_array
    )
    batch = make_device_split(data, data.train, standardise=False).batch(jnp.arange(64))
    batch = ex.Batch(batch.x.astype(jnp.float32), batch.y.astype(jnp.float32))
    step, exact = (flat(gradient(one.rule, one.dynamics, one.graph, batch, one.solver)) for one in learners.values())
    assert step.dtype == jnp.float32
    assert float(jnp.linalg.norm(step - exact)) < 1e-6 * float(jnp.linalg.norm(exact))


def test_one_epoch_in_float64_ends_at_backprops_parameters():
    """Oracle: the same epoch by backprop; float64 leaves 1e-8 a million times the room it needs."""
    data = ex.load_data("digits")
    ends = [ex.fit(learner, data, epochs=1).learner.graph for learner in sides(data).values()]
    start = make_learner("backprop", data.image_shape, data.classes)[0].graph
    assert flat(ends[0]).dtype == jnp.float64
    assert float(jnp.max(jnp.abs(flat(ends[0]) - flat(ends[1])))) < 1e-8
    assert float(jnp.max(jnp.abs(flat(ends[0]) - flat(start)))) > 1e-2
