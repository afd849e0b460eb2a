"""Rules of directed nets against the adjoint, by the order of what is left, and against dense formulas."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energax import Adjoint, Batch, LeakyDirected, LeakyFlow, Stopping, VectorFieldRule
from energax.activations import Box
from energax.exceptions import SettingError
from energax.graph.networks import directed_complete, directed_mlp
from energax.rules import AsymEP, Deep2020, DyadicEP, Homeostasis, one_sided
from energax.rules.homeostasis import estimate_asymmetry
from energax.solvers import certified_flow
from oracles import gradient, informed, numbers, relative, slope

pytestmark = pytest.mark.usefixtures("strict")

FLOW = certified_flow(Stopping(1e-13, 20_000, check_every=20))


def doubled(graph):
    """The same net in float64."""
    return jax.tree.map(lambda a: a.astype(jnp.float64) if eqx.is_inexact_array(a) else a, graph)


def batch(seed=0, outputs=2, key=None):
    """Three rows."""
    rng = np.random.default_rng(seed)
    return Batch(jnp.asarray(rng.uniform(0, 1, (3, 2))), jnp.asarray(rng.uniform(0, 1, (3, outputs))), key)


NETS = {
    "flow": (LeakyFlow(3.0, box=Box()), doubled(directed_complete(2, 4, 2, key=jax.random.key(0)))),
    "walls": (LeakyFlow(0.5), doubled(directed_complete(2, 4, 2, gain=0.5, key=jax.random.key(1)))),
    "additive": (LeakyDirected(1.5), doubled(directed_complete(2, 4, 2, jnp.tanh, key=jax.random.key(2)))),
    "layers": (LeakyDirected(1.5), doubled(directed_mlp((2, 5, 4, 2), jnp.tanh, key=jax.random.key(3)))),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("rule", [AsymEP, DyadicEP])
def test_corrected_responses_are_the_exact_gradient(net, rule):
    """Oracle: the adjoint; AsymEP to second order in beta, DyadicEP at any."""
    dynamics, graph = NETS[net]
    exact = gradient(Adjoint(), dynamics, graph, batch(), FLOW)
    if rule is DyadicEP:
        assert relative(gradient(rule(1e-3), dynamics, graph, batch(), FLOW), exact) < 1e-8
        return
    small = 0.1 if net == "walls" else 1.0  # beyond .02 a unit there reaches the wall
    betas = [small * beta for beta in (0.1, 0.07, 0.05, 0.035, 0.025, 0.018, 0.0125)]
    errors = [relative(gradient(rule(beta), dynamics, graph, batch(), FLOW), exact) for beta in betas]
    assert abs(slope(betas, errors) - 2) < 0.1


def test_one_sided_responses_are_of_first_order():
    """Oracle: the adjoint; without a negative nudge the error falls as beta."""
    dynamics, graph = NETS["layers"]
    exact = gradient(Adjoint(), dynamics, graph, batch(), FLOW)
    betas = [0.02, 0.014, 0.01, 0.007, 0.005, 0.0035, 0.0025]
    errors = [relative(gradient(AsymEP(one_sided(beta)), dynamics, graph, batch(), FLOW), exact) for beta in betas]
    assert abs(slope(betas, errors) - 1) < 0.1
    assert relative(gradient(DyadicEP(one_sided(1.0)), dynamics, graph, batch(), FLOW), exact) < 1e-8


@pytest.mark.parametrize("rule", [VectorFieldRule(1e-3), Deep2020(1e-3)])
def test_uncorrected_responses_are_not(rule):
    """On nets that are not symmetric there is an error that no small beta takes away."""
    dynamics, graph = NETS["additive"]
    exact = gradient(Adjoint(), dynamics, graph, batch(), FLOW)
    assert relative(gradient(rule, dynamics, graph, batch(), FLOW), exact) > 0.01


def test_the_rule_of_2020_reads_the_target_alone():
    """Oracle: dW_ij = s_i nu_j by hand from the two nudged phases; R1 takes s_i nu_i away, and both agree on inputs."""
    dynamics, graph = NETS["flow"]
    rows = batch()
    deep, _ = informed(Deep2020(1e-3), dynamics, graph, rows, FLOW)
    consistent, _ = informed(VectorFieldRule(1e-3), dynamics, graph, rows, FLOW)
    for name in ("input_to_hidden", "input_to_output"):
        np.testing.assert_allclose(deep.functions[name].weight, consistent.functions[name].weight, atol=1e-9)
    own = consistent.functions["hidden_to_output"].weight - deep.functions["hidden_to_output"].weight
    # what is left is s_i nu_i, the same for all targets of a unit
    np.testing.assert_allclose(own, np.repeat(own[:, :1], 2, axis=1), atol=1e-9)
    assert np.abs(own).max() > 1e-4
    none = LeakyFlow(3.0, box=Box())
    assert relative(deep, gradient(Adjoint(), none, graph, rows, FLOW)) > 0.01


def test_homeostasis_is_the_asymmetry():
    """Oracle: 2 |A|^2 / n of W written out; its estimate's mean over many samples, and a descent of its gradient."""
    _, graph = NETS["additive"]
    maps = graph.functions
    w = np.zeros((6, 6))
    w[np.asarray(maps["hidden_to_hidden"].sources), np.asarray(maps["hidden_to_hidden"].targets)] = maps[
        "hidden_to_hidden"
    ].weight
    w[4 + np.asarray(maps["output_to_output"].sources), 4 + np.asarray(maps["output_to_output"].targets)] = maps[
        "output_to_output"
    ].weight
    w[:4, 4:], w[4:, :4] = maps["hidden_to_output"].weight, maps["output_to_hidden"].weight
    expected = 2 * np.sum(((w - w.T) / 2) ** 2) / 6
    estimates = [float(estimate_asymmetry(graph, jax.random.key(seed), 4000)) for seed in range(3)]
    np.testing.assert_allclose(np.mean(estimates), expected, rtol=0.03)
    dynamics = LeakyDirected(1.5)
    keyed = batch(key=jax.random.key(5))
    plain = gradient(VectorFieldRule(0.1), dynamics, graph, keyed, FLOW)
    added = gradient(Homeostasis(VectorFieldRule(0.1), 2.0, 2000), dynamics, graph, keyed, FLOW)
    pull = (numbers(added) - numbers(plain)) / 2
    across = added.functions["hidden_to_output"].weight - plain.functions["hidden_to_output"].weight
    exact = 2 * (maps["hidden_to_output"].weight - maps["output_to_hidden"].weight.T) / 6 * 2
    np.testing.assert_allclose(across, exact, atol=0.15 * np.abs(exact).max())
    assert np.linalg.norm(pull) > 0
    inputs = numbers([added.functions["input_to_hidden"]]) - numbers([plain.functions["input_to_hidden"]])
    assert np.all(inputs == 0)


def test_bad_directed_rules_are_refused():
    """Every message says what to give."""
    with pytest.raises(SettingError, match="must be positive"):
        AsymEP(0.0)
    with pytest.raises(SettingError, match="Homeostasis: rule"):
        Homeostasis(0.1)
