"""Models in files: what is loaded is what was saved, in a process that knows nothing of it but the library."""

import enum
import functools
import subprocess
import sys
from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import energax as ex
from energax.activations import Box, Sigmoid, Tanh, rectifier
from energax.exceptions import RunError, SettingError
from energax.graph import EdgeList, round_products
from energax.graph.structure import Nodes
from energax.layers import Analytic, Chain, Conv2d, Dropout, Flatten, Linear, Pool, SoftmaxPooling, Sparse
from energax.saving import container as files
from energax.saving import registry
from energax.saving.arrays import Store
from energax.saving.container import Container
from energax.saving.structure import Encoder, decode
from energax.training import RunFolder

KEY = jax.random.key(0)
networks = ex.networks


def predictor(graph, dynamics=None, solver=None) -> ex.Predictor:
    return ex.Predictor(graph, dynamics or ex.PredictiveCoding(), solver or ex.GradientFlow())


def chain(*layers, shape=(6,)):
    return networks.sequential(layers, shape)


def equal(a, b) -> bool:
    """The same structure, static fields and functions included, and the same bits of the same dtypes."""
    first, second = jax.tree.leaves(a), jax.tree.leaves(b)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(first, second, strict=True):
        assert type(x) is type(y)
        assert getattr(x, "dtype", None) == getattr(y, "dtype", None)
        assert getattr(x, "weak_type", None) == getattr(y, "weak_type", None)
        if callable(x):
            assert x is y or repr(x) == repr(y)  # partial functions have no equality
            continue
        if jnp.issubdtype(getattr(x, "dtype", int), jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()
    return True


def there_and_back(tree):
    store = Store()
    structure = Encoder(store, strict=True).encode(tree, "tree")
    return decode(structure, Container({"arrays": store.specs}, store.tensors).array)


def wired():
    edges = EdgeList(np.asarray(["a", "b", "c"]), np.asarray([0, 1, 0, 2]), np.asarray([1, 0, 2, 0]))
    return networks.from_edges(edges, (2,), 2, reading=[0, 1], shown=[2], key=KEY)


NETWORKS = {
    "sequential": lambda: chain((Linear(6, 4, key=KEY), jax.nn.relu), Linear(4, 2, key=KEY)),
    "mlp": lambda: networks.mlp([4, 5, 3], jnp.tanh, key=KEY),
    "convolutional": lambda: networks.convolutional((4, 4, 1), [2], 3, Tanh(), pool=ex.layers.average, key=KEY),
    "residual": lambda: networks.residual((4, 4, 1), [2], 3, rectifier(), key=KEY),
    "residual_mlp": lambda: ex.mupc(networks.residual_mlp((4,), 3, 2, 2, jnp.tanh, key=KEY), key=KEY),
    "hierarchical": lambda: networks.hierarchical((16, 16, 1), 3, jax.nn.silu, width=0.01, key=KEY),
    "recurrent_simple": lambda: networks.recurrent_simple((8, 8, 1), 3, jax.nn.gelu, length=6, width=0.02, key=KEY),
    "recurrent_dense": lambda: networks.recurrent_dense((4, 4, 1), 3, jax.nn.softplus, length=6, width=0.1, key=KEY),
    "recurrent_complex": lambda: networks.recurrent_complex((8, 8, 1), 3, jax.nn.elu, length=9, width=0.01, key=KEY),
    "directed_mlp": lambda: networks.directed_mlp(
        (2, 4, 2), functools.partial(jax.nn.leaky_relu, negative_slope=0.2), key=KEY
    ),
    "directed_complete": lambda: networks.directed_complete(2, 3, 2, key=KEY),
    "from_edges": wired,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_comes_back_bit_for_bit(name):
    """Oracle: the network that was saved: structure, static fields, functions, dtypes and bits."""
    model = predictor(NETWORKS[name]())
    assert equal(there_and_back(model), model)


def test_the_list_of_networks_is_complete():
    """Oracle: what the room shows."""
    assert set(NETWORKS) == {name for name, one in vars(networks).items() if callable(one)}


PARTS = {
    "dynamics": lambda: predictor(
        NETWORKS["mlp"](),
        ex.PredictiveCoding(
            ex.CrossEntropy(),
            precisions={"output": 2.0},
            learned={"hidden1": ex.LearnedPrecision(1.5, bounds=(0.5, 2.0))},
            priors={"input": ex.dynamics.LaplacePrior(0.5)},
        ),
        ex.ConjugateGradient(ex.Stopping(1e-6, 50), ex.ErrorCoordinates()),
    ),
    "hopfield": lambda: predictor(
        networks.mlp([4, 5, 3], Sigmoid(2.0, 0.5), key=KEY), ex.Hopfield(feedback_scale=0.5), ex.FixedPoint()
    ),
    "bidirectional": lambda: predictor(NETWORKS["mlp"](), ex.BalancedFeedback(0.2), ex.GradientFlow(0.1, momentum=0.5)),
    "leaky flow": lambda: predictor(
        NETWORKS["directed_complete"](), ex.LeakyFlow({"hidden": 0.1, "output": 0.2}), ex.solvers.certified_flow()
    ),
    "optimistix": lambda: predictor(NETWORKS["mlp"](), None, ex.Optimistix(optimistix.BFGS(1e-6, 1e-6))),
    "newton": lambda: predictor(NETWORKS["mlp"](), None, ex.Optimistix(optimistix.Newton(1e-6, 1e-6))),
    "diffrax": lambda: predictor(NETWORKS["mlp"](), None, ex.Diffrax(diffrax.Tsit5())),
    "rounded": lambda: predictor(round_products(NETWORKS["residual_mlp"](), "bfloat16")),
    "unrolled": lambda: predictor(ex.unroll(NETWORKS["residual_mlp"](), "layers")),
    "layers": lambda: predictor(
        chain(
            Chain([Conv2d(1, 2, 3, padding=1, key=KEY), Pool(2, SoftmaxPooling(3.0)), Dropout(0.1)]),
            (Chain([Flatten(), Sparse([0, 1, 5], [0, 1, 1], 8, 6, key=KEY)]), Box(-1.0, float("inf"))),
            Analytic(jnp.sin),
            ex.layers.Identity(),
            shape=(4, 4, 1),
        )
    ),
    "equinox": lambda: predictor(
        chain(
            eqx.nn.MLP(6, 4, 5, 1, activation=jax.nn.mish, key=KEY),
            Chain([eqx.nn.LayerNorm(4), eqx.nn.Lambda(jnp.sin), eqx.nn.Dropout(0.2)]),
            eqx.nn.PReLU(),
            eqx.nn.Linear(4, "scalar", key=KEY),
        )
    ),
    "several ends": lambda: predictor(
        ex.Graph(
            [ex.Node("x", (2,)), ex.Node("u", (2,)), ex.Node("h", (3,), axes=(ex.Axis("deep", 2),))],
            [ex.Edge("x", ex.At("h", deep=0), "f"), ex.Edge("u", ex.At("h", deep=ex.EVERY), "f")],
            {"f": Linear(2, 3, key=KEY)},
            input=["x", "u"],
            output=[ex.At("h", deep=-1)],
        )
    ),
    "no graph": lambda: predictor(Nodes([ex.Node("x", (2,)), ex.Node("u", (2,))], {"w": jnp.ones(2)}, "x", "u")),
}


@pytest.mark.parametrize("name", PARTS)
def test_every_kind_of_part_comes_back_bit_for_bit(name, tmp_path):
    """Oracle: the model that was saved."""
    model = PARTS[name]()
    ex.save(tmp_path / "model.safetensors", model)
    assert equal(ex.load(tmp_path / "model.safetensors"), model)


def test_predictions_are_the_same_bits(tmp_path):
    """Oracle: the feed-forward pass of the model that was saved. Of a learner the predictor is kept."""
    graph = NETWORKS["mlp"]()
    learner = ex.Learner(graph, ex.PredictiveCoding(), ex.GradientFlow(), ex.Backprop(), optax.sgd(0.1))
    ex.save(str(tmp_path / "model"), learner)
    found = ex.load(str(tmp_path / "model"))
    x = jax.random.normal(KEY, (3, 4))
    assert type(found) is ex.Predictor
    np.testing.assert_array_equal(found.graph.sweep(x)["output"], graph.sweep(x)["output"])


class Colour(enum.Enum):
    RED = 1


class Pair(NamedTuple):
    left: jax.Array
    right: int = 3


KINDS = {
    "numbers": (None, True, 3, -(2**80), 1.5, float("inf"), -float("inf"), complex(0, float("inf")), "\ud800 é\n"),
    "containers": {"a": [1, (2, {(0, "a"): (), (1, "b"): {}})], "b": []},
    "functions": (
        jnp.tanh,
        jax.nn.relu,
        functools.partial(jnp.clip, min=0.0),
        jax.tree_util.Partial(jnp.add, jnp.ones(2)),
    ),
    "dtypes": (np.dtype("float32"), jnp.dtype("bfloat16"), jnp.float32),
    "weak": (jnp.asarray(0.1), jnp.asarray(3), jnp.asarray(1j), jnp.asarray(0.1, "float32")),
    "keys": (jax.random.key(3), jax.random.split(jax.random.key(1, impl="rbg"), 3)),
    "numpy": (
        np.float32(3),
        np.arange(6).reshape(2, 3)[:, ::2],
        np.asarray(3.0),
        np.bool_(True),
        np.ones(2, ">f4") * 3,
    ),
    "enumerations": (ex.dynamics.FreeGradient.OWN, ex.Verdict.STALLED),
    "empty": (jnp.zeros((0, 3)), jnp.zeros((3, 0), "bfloat16"), np.zeros((0,), complex)),
}
DTYPES = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 bfloat16 float32 float64 complex64 complex128 "
DTYPES += "float8_e4m3fn float8_e5m2"


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_value_comes_back(name):
    """Oracle: the value; its `repr` too, which tells 1 from True and 1.0."""
    found = there_and_back(KINDS[name])
    if name == "numpy":  # the order of bytes is the machine's
        assert found[-1].dtype == np.float32
        assert [type(one) for one in found] == [type(one) for one in KINDS[name]]
        for one, other in zip(found, KINDS[name], strict=True):
            np.testing.assert_array_equal(one, other, strict=other.dtype.byteorder != ">")
    else:
        assert equal(found, KINDS[name])
        assert name == "functions" or repr(found) == repr(KINDS[name])


@pytest.mark.parametrize("dtype", DTYPES.split())
def test_every_dtype_comes_back(dtype, tmp_path):
    """Oracle: the bits, and safetensors' own reader of the file."""
    array = (jnp.arange(-3, 3).reshape(2, 3) / 3).astype(dtype)
    layer = {"a": array, "b": array[0, 0], "c": np.asarray(array)}
    assert equal(there_and_back(layer), layer)
    store = Store()
    store.add("a", array)
    files.write_container(tmp_path / "x", "test", store, {})
    with safe_open(tmp_path / "x", "numpy") as file:
        assert list(file.keys()) == ["a"]
        assert file.get_slice("a").get_shape()[:2] == [2, 3]


@pytest.fixture
def fresh_registry(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


class Doubled(eqx.Module):
    """A user's layer whose constructor must not run again: it would double once more."""

    weight: jax.Array
    note: str = eqx.field(static=True, default="a note")

    def __init__(self, weight):
        self.weight = 2 * weight
        self.note = "made"

    def __check_init__(self):
        if self.weight.shape != (2,):
            raise ValueError(f"weight of shape {self.weight.shape}")

    def __call__(self, x):
        return self.weight * x


def cube(x):
    return x**3


def own_model():
    return predictor(chain(Doubled(jnp.ones(2)), (ex.layers.Identity(), cube), shape=(2,)))


@pytest.mark.usefixtures("fresh_registry")
def test_layers_of_the_users_own_are_known_by_name(tmp_path):
    """Oracle: the model that was saved; the messages name class, place and remedy."""
    path, model = tmp_path / "own", own_model()
    with pytest.raises(
        RunError, match=r"graph\.functions\['layer1'\] is a Doubled, .*not registered.*@energax\.register"
    ):
        ex.save(path, model)
    assert ex.register(Doubled) is Doubled
    with pytest.raises(RunError, match=r"graph\.functions\['activation2'\] is 'cube', .*energax\.register\(cube\)"):
        ex.save(path, model)
    assert not path.exists()
    assert ex.register(name="lab.cube")(cube) is cube
    ex.save(path, model)
    assert equal(ex.load(path), model)
    registry._registered.clear()
    with pytest.raises(RunError, match=r"own cannot be loaded: it is made of Doubled, lab\.cube, .*energax\.register"):
        ex.load(path)
    ex.register(cube, "lab.cube")
    with pytest.raises(RunError, match=r"it is made of Doubled, which is not known here"):
        ex.load(path)


@pytest.mark.usefixtures("fresh_registry")
def test_a_lambda_cannot_be_named():
    """Oracle: the messages."""
    with pytest.raises(RunError, match=r"functions\['layer1'\] is '<lambda>'.*write it with def"):
        ex.save("nowhere", predictor(chain(lambda x: x)))
    with pytest.raises(SettingError, match=r"register: name='<lambda>': give a name"):
        ex.register(lambda x: x)


@pytest.mark.usefixtures("fresh_registry")
def test_names_are_taken_once():
    """Oracle: the messages; the same class defined again, as in a notebook, takes the place of the first."""
    ex.register(Doubled, "layer")
    with pytest.raises(SettingError, match=r"the name 'layer' is taken by the class Doubled of .*test_saving"):
        ex.register(Pair, "layer")
    with pytest.raises(SettingError, match=r"the name 'energax\.layers\.Linear' is taken by the class Linear"):
        ex.register(Doubled, "energax.layers.Linear")
    with pytest.raises(SettingError, match=r"register: the class int has no fields"):
        ex.register(int, "whole")
    again = type("Doubled", (eqx.Module,), {"__module__": __name__, "__qualname__": "Doubled"})
    ex.register(again, "layer")
    assert registry.find_thing("layer") is again


@pytest.mark.usefixtures("fresh_registry")
def test_named_tuples_and_enumerations_of_the_users_own():
    """Oracle: the value that was written."""
    ex.register(Pair)
    ex.register(Colour)
    value = (Pair(jnp.ones(2)), Colour.RED)
    assert equal(there_and_back(value), value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), r"functions\['layer1'\]\.layers\[0\]\.note is a object, whose contents a file cannot hold"),
        (np.asarray(["a"]), r"note: arrays of dtype str\d* cannot be saved"),
        ({1, 2}, r"note is a set, whose contents a file cannot hold"),
        (functools.reduce(lambda x, _: [x], range(500), 1), r"nested more than 60 levels deep"),
        (10**5000, r"this model cannot be written"),
    ],
    ids=["object", "text", "set", "deep", "large"],
)
@pytest.mark.usefixtures("fresh_registry")
def test_what_no_file_can_hold_is_refused(value, message, tmp_path):
    """Oracle: the message names the place; nothing is written."""
    ex.register(Doubled)
    layer = Doubled(jnp.ones(2))
    object.__setattr__(layer, "note", value)
    with pytest.raises(RunError, match=message):
        ex.save(tmp_path / "x", predictor(chain(Chain([layer]), shape=(2,))))
    assert not list(tmp_path.iterdir())


def test_something_else_than_a_model_is_refused(tmp_path):
    """Oracle: the message names the argument and the remedy."""
    with pytest.raises(SettingError, match=r"save: model=a Graph: give a Predictor"):
        ex.save(tmp_path / "x", NETWORKS["mlp"]())


def test_a_dynamics_that_does_not_fit_its_graph_is_refused_by_name(tmp_path, monkeypatch):
    """Oracle: the message, when it is saved, and when a file holds it all the same."""
    prior = {"hidden1": ex.dynamics.GaussianPrior()}
    model = eqx.tree_at(lambda m: m.dynamics.priors, predictor(NETWORKS["mlp"]()), prior)
    with pytest.raises(SettingError, match="node 'hidden1' is predicted: a prior is for nodes that"):
        ex.save(tmp_path / "x", model)
    with monkeypatch.context() as patch:
        patch.setattr(ex.PredictiveCoding, "require_fit", lambda *_: None)
        ex.save(tmp_path / "x", model)
    with pytest.raises(RunError, match=r"x cannot be loaded: .*node 'hidden1' is predicted: a prior is for nodes that"):
        ex.load(tmp_path / "x")


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_parameters_that_are_no_numbers_are_refused_by_name(bad, tmp_path, monkeypatch):
    """Oracle: the message, when the model is saved, and when a file holds them all the same."""
    model = eqx.tree_at(lambda m: m.graph.functions["layer2"].bias, PARTS["dynamics"](), replace_fn=lambda b: b * bad)
    with pytest.raises(RunError, match=r"x was not written: parameters of 'layer2' \(\.bias\) are not finite"):
        ex.save(tmp_path / "x", model)
    with monkeypatch.context() as patch:
        patch.setattr("energax.saving.model.require_finite", lambda *_: None)
        ex.save(tmp_path / "x", model)
    with pytest.raises(RunError, match=r"x cannot be loaded: parameters of 'layer2' \(\.bias\) are not finite"):
        ex.load(tmp_path / "x")


def test_a_fresh_process_needs_no_code_of_the_users(tmp_path):
    """Oracle: the bits in this process; a process without 64 bits says that it would lose them."""
    model = predictor(NETWORKS["mlp"]())
    ex.save(tmp_path / "m", model)
    program = (
        "import sys, jax, energax as ex\n"
        "try: ex.load(sys.argv[1])\n"
        "except ex.exceptions.RunError as error: print(error)\n"
        "jax.config.update('jax_enable_x64', True)\n"
        "for leaf in jax.tree.leaves(ex.load(sys.argv[1])):\n"
        "    if hasattr(leaf, 'dtype'): print(leaf.dtype, leaf.tobytes().hex())\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "m"], capture_output=True, text=True, check=True)
    refused, *found = done.stdout.splitlines()
    assert "arrays of dtype float64, and this process computes in float32" in refused
    leaves = [leaf for leaf in jax.tree.leaves(model) if eqx.is_array(leaf)]
    assert found == [f"{leaf.dtype} {leaf.tobytes().hex()}" for leaf in leaves]


@pytest.mark.usefixtures("fresh_registry")
def test_the_checkpoint_of_a_run_is_a_model(learner, progress, tmp_path):
    """Oracle: the learner that the run folder restores."""
    folder, given = RunFolder(tmp_path), learner("pc-nudge")
    folder.start({"data": "none", "epochs": 1})
    folder.save(progress(given), {"history": [{"epoch": 1, "seconds": 0.0, "compile_seconds": 0.0}]}, best=1)
    assert not [name for name in load_file(folder.best) if name.startswith("predictor")]  # no array is there twice
    found = folder.load(given, best=True)
    expected = ex.Predictor(found.graph, found.dynamics, found.solver)
    for path in (folder.path, folder.best, folder.last):
        assert equal(ex.load(path), expected)
    ex.save(tmp_path / "x", expected)
    with pytest.raises(RunError, match=r"x is not a checkpoint of energax: it holds a model alone"):
        ex.training.checkpoint.restore(tmp_path / "x", {})


@pytest.mark.usefixtures("fresh_registry")
def test_a_checkpoint_is_written_before_its_classes_are_registered(tmp_path):
    """Oracle: the arrays that were saved, and once the names are registered, the model."""
    save, restore = ex.training.checkpoint.save, ex.training.checkpoint.restore
    model = own_model()
    save(tmp_path / "x", model.graph, {"epoch": 1}, model)
    found, facts = restore(tmp_path / "x", model.graph)
    assert equal(found, model.graph)
    assert facts == {"epoch": 1}
    with pytest.raises(RunError, match=r"x cannot be loaded: it is made of Doubled, cube, which is not known here"):
        ex.load(tmp_path / "x")
    ex.register(Doubled)
    ex.register(cube)
    assert equal(ex.load(tmp_path / "x"), model)
    save(tmp_path / "y", model.graph, {})
    with pytest.raises(RunError, match=r"y cannot be loaded: it holds no model, only arrays"):
        ex.load(tmp_path / "y")
    lost = predictor(chain(lambda x: x))
    save(tmp_path / "z", lost.graph, {}, lost)
    with pytest.raises(RunError, match=r"z cannot be loaded: it is made of <lambda>, which is not known here"):
        ex.load(tmp_path / "z")
