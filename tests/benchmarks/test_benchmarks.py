"""The benchmark's own promises: workers answer, failures are told with their reason, figures mean what they say."""

import dataclasses
import json
import statistics
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import lines, reports, table
from benchmarks.client import ROOT, Client
from benchmarks.command import Options, main, planned
from benchmarks.controller import Plan, bench, machine
from benchmarks.devices import CPU, GPU
from benchmarks.environments import Absent, Environment, run
from benchmarks.measure import Measurement, Row, Size, difference
from benchmarks.picture import draw, styles_of
from benchmarks.systems import PEERS, WORKERS, System
from benchmarks.workers import by_hand, maker, own, reference
from benchmarks.workers.protocol import offered, read_arrays
from benchmarks.workload import LARGE, WORKLOADS, Workload
from energax.exceptions import SettingError

TINY = Workload("tiny", "mlp", (64, 8, 6, 10), "tanh", steps=5, batch=8)
TINY_RELU = Workload("tiny relu", "mlp", (64, 8, 6, 10), "relu", steps=5, batch=8)
TINY_EP = Workload("tiny EP", "hopfield", (64, 8, 10), "hard_sigmoid", steps=6, nudged=3, beta=0.5, batch=8)
TINY_CONV = Workload(
    "tiny conv", "conv", (3, 2, 3, 10), "tanh", steps=3, side=8, convolutions=((3, True), (3, True)), batch=4
)
TINY_MIXED = Workload(
    "tiny mixed", "conv", (3, 2, 4, 5, 10), "tanh", steps=3, side=8, convolutions=((3, True), (1, False)), batch=4
)
ECHO = "import sys, json\nfor line in sys.stdin: print(json.dumps({'heard': json.loads(line)['do']}), flush=True)"


@pytest.fixture
def problem(tmp_path):
    """Makes a problem and returns its file and its arrays."""

    def made(workload):
        path = tmp_path / "problem.npz"
        maker.make({"workload": vars(workload), "steps": 3, "out": path})
        return path, read_arrays(str(path))

    return made


def test_client_hears_answers_and_last_words():
    """Oracle: a worker of two lines, and one that dies with a message."""
    with Client([sys.executable, "-c", ECHO]) as client:
        assert client.ask("hello") == {"heard": "hello"}
    dying = [sys.executable, "-c", "raise SystemExit('no such library')"]
    with Client(dying) as client, pytest.raises(Absent, match="no such library"):
        client.ask("hello")


def test_a_worker_that_died_can_be_asked_and_closed():
    """Oracle: what it did not take is lost without another error."""
    with Client([sys.executable, "-c", "pass"]) as client:
        client.process.wait(timeout=60)
        for _ in range(2):
            with pytest.raises(Absent, match="no words"):
                client.ask("hello")


def test_worker_reports_a_failure_and_goes_on():
    """Oracle: an unknown row is refused by name; the next question is answered."""
    with Client(System("by hand", "by_hand", "jax", ()).command(Path())) as client:
        with pytest.raises(Absent, match="KeyError: 'nobody'"):
            client.ask("time", row="nobody", steps=1)
        assert client.ask("rows", workload=vars(TINY))["rows"][0]["role"] == "backprop"


def test_workers_start_wherever_the_controller_stands(tmp_path, monkeypatch):
    """Oracle: an answer; `python -m benchmarks.workers.by_hand` finds the package in the repository's root alone."""
    monkeypatch.chdir(tmp_path)
    with Client(System("by hand", "by_hand", "jax", ()).command(tmp_path)) as client:
        assert client.ask("rows", workload=vars(TINY))["rows"][0]["role"] == "backprop"


def test_the_command_line_is_told_where_to_run(tmp_path, monkeypatch, capsys):
    """Oracle: exit code 2, one line that names both folders, and nothing written."""
    monkeypatch.chdir(tmp_path)
    assert main(["--quick"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"benchmarks: the current folder is {tmp_path}: run `python -m benchmarks` in {ROOT}")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_option_is_one_line(monkeypatch, capsys):
    """Oracle: the plan's own message, exit code 2."""
    monkeypatch.chdir(ROOT)
    assert main(["--workloads", "W9"]) == 2
    assert capsys.readouterr().err.startswith("benchmarks: workloads: unknown 'W9'; known: all, W1")


def test_single_measurements_replace_committed_figures_only_when_told(tmp_path, monkeypatch, capsys):
    """Oracle: the folder that git ignores; with --out the folder given, and the report read back."""
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    monkeypatch.setattr(sys, "argv", ["measurement"])
    assert f"{reports.options_of('', epochs=5).out.parts[0]}/" in ignored
    monkeypatch.setattr(sys, "argv", ["measurement", "--out", str(tmp_path / "there"), "--epochs", "7"])
    options = reports.options_of("", epochs=5)
    assert options.epochs == 7
    reports.write(options.out, "figures", {"a": 1.5})
    assert json.loads((tmp_path / "there" / "figures.json").read_text()) == {"a": 1.5}
    assert "written to" in capsys.readouterr().err


ABSENT = {"a": "not on the index", "b": "needs Python 2.0"}


def list_absent():
    """Two systems that cannot be had, by name."""
    environments = (Environment("a", absent=ABSENT["a"]), Environment("b", python="2.0"))
    return tuple(System(one.name, "peer", "jax", (), one) for one in environments)


def test_absent_peers_give_their_reasons(tmp_path):
    """Oracle: the reason given, and the version asked for."""
    for system in list_absent():
        with pytest.raises(Absent, match=ABSENT[system.name]):
            system.command(tmp_path)


def test_a_failed_installation_is_told_in_its_own_words_without_folders():
    """Oracle: what a command wrote before it failed."""
    failing = "import sys; sys.exit('ERROR: no matching distribution for thing in /some/where/index\\nhint: none')"
    with pytest.raises(Absent, match="cannot be installed: ERROR: no matching distribution for thing in index"):
        run([sys.executable, "-c", failing])


def test_own_rows_compute_what_the_hand_written_ones_do(problem):
    """Oracle: independent code without the library; float64 here, so the weights agree to rounding."""
    for workload in (TINY, TINY_EP, TINY_CONV, TINY_MIXED):
        path, given = problem(workload)
        after = {}
        for worker in (by_hand, own):
            for row in worker.offer(vars(workload)):
                if row["same"]:
                    trained = worker.prepare(row["name"], vars(workload), given)
                    trained.run(2)
                    after.setdefault(row["role"], []).append(trained.weights())
        for one, *others in after.values():
            assert others
            for other in others:
                assert difference(given, one, other) < 1e-4, path


@pytest.mark.parametrize("workload", [TINY, TINY_RELU, TINY_EP], ids=lambda workload: workload.name)
def test_quality_of_a_fully_converged_row_is_zero(problem, tmp_path, workload, monkeypatch):
    """Oracle: the reference, found another way (L-BFGS on errors), against 20,000 steps of the solver itself."""
    path, given = problem(workload)
    given = {name: array.astype(float) for name, array in given.items()}
    line = next(line for line in lines.LINES if workload.kind in line.kinds and line.same and not line.backprop)
    row = own.Own(line, workload, 20_000, given)
    gradient, states = row.equilibrium()
    np.savez(tmp_path / "found.npz", **gradient, **states)
    verbs = reference.answers()
    asked = {"workload": vars(workload), "problem": str(path), "out": tmp_path / "reference.npz"}
    assert verbs["solve"]({**asked, "evaluations": 400})["uncertainty"] < 1e-3
    judged = verbs["judge"]({"arrays": str(tmp_path / "found.npz")})
    exact = 1e-5 if workload is not TINY_RELU else 1e-2  # a fixed step chatters at kinks
    assert judged["error"] < exact
    assert abs(judged["gap"]) < exact


@pytest.mark.parametrize(("whole", "expected"), [(True, [0, 1, 2, 2, 1]), (False, [0, 0, 0, 0, 0])])
def test_lines_do_not_share_a_worker_where_they_are_swept(tmp_path, whole, expected):
    """Oracle: which of the workers, in the order of their start, was asked; the first lists the rows."""

    class Worker:
        def __init__(self, system):
            started.append(self)

        def ask(self, do, **message):
            names = [("a", 1), ("a", 9), ("b", 1)]
            asked.append(started.index(self))
            return {"rows": [offered(line, steps, same=True) for line, steps in names]}

    started: list[Worker] = []
    asked: list[int] = []
    system = System("own", "own", "jax", ())
    measurement = Measurement(TINY, Size(1, 0.0, 1, whole), {}, [system], Worker, tmp_path, lambda _: None)
    rows = measurement.offered(system)
    for row in (rows[0], rows[2], rows[2], rows[1]):
        measurement.ask(row, "time")
    assert asked == expected


def test_every_worker_file_of_a_peer_is_there():
    """Oracle: the folder; a peer that is known to be absent needs none."""
    for peer in PEERS:
        assert peer.environment is not None
        assert peer.environment.absent or (WORKERS / f"{peer.worker}.py").is_file()


def results_of(**row) -> dict:
    """Results with one workload and one row."""
    empty = dict.fromkeys(("ratio", "error", "gap", "difference", "failure"))
    plain = {"name": "a x5", "line": "a", "role": "relaxation", "framework": "jax", "note": "", "milliseconds": 1.0}
    facts = {"data": "digits", "reference": {"residual": 1e-9, "uncertainty": 0.0}}
    workload = {**vars(TINY), "title": TINY.title}
    return {
        "machine": {"cpu": "a processor", "cores": 2, "accelerator": None, "conditions": CPU.conditions},
        "warm": 3,
        "versions": {"energax": {"jax": "0.10"}},
        "absent": {"jpc": "too old"},
        "workloads": [{"workload": workload, **facts, "rows": [{**empty, **plain, **row}]}],
    }


def test_table_says_what_was_measured_and_what_was_not(tmp_path):
    """Oracle: the cells written out by hand."""
    page = table.markdown(results_of(ratio=1.444, error=0.0104, gap=2e-6, difference=3e-7))
    assert "| a x5 | 1 | 1.44 | 1 % | 0.0002 % | 3.0e-07 |  |" in page
    assert "jpc (too old)" in page
    failed = results_of(milliseconds=None, failure="out of memory")
    assert "| a x5 | - | - | - | - | - | out of memory |" in table.markdown(failed)
    for name, results in (("one", results_of(error=0.1)), ("none", failed)):
        draw(tmp_path / f"{name}.png", results)
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


def test_every_line_of_the_picture_has_a_colour_and_a_marker_of_its_own():
    """Oracle: as many different ones as lines in the committed results; of more lines, as many pairs with dashes."""
    rows = [
        row for part in json.loads((ROOT / "results/bench/bench.json").read_text())["workloads"] for row in part["rows"]
    ]
    names = sorted({row["line"] for row in rows if row["error"]})
    styles = [styles_of(names)[name] for name in names]
    assert len({style["color"] for style in styles}) == len(names)
    assert len({(style["marker"], style.get("fillstyle")) for style in styles}) == len(names)
    many = styles_of([f"energax {index}" for index in range(20)]).values()
    assert len({(style["color"], style["linestyle"]) for style in many}) == 20


def test_options_become_a_plan_and_wrong_names_are_told():
    """Oracle: the lists of workloads and peers."""
    assert [w.name for w in planned(Options(workloads="W4,W1")).workloads] == ["W4", "W1"]
    assert planned(Options()).workloads == WORKLOADS
    assert [s.name for s in planned(Options(peers="torch")).systems] == ["by hand", "energax", "torch"]
    with pytest.raises(SettingError, match="unknown 'W9'; known: all, W1"):
        planned(Options(workloads="W9"))
    assert planned(Options(device="gpu")).workloads == (*WORKLOADS, *LARGE)
    outs = [planned(Options(device=name)).out for name in ("cpu", "gpu")]
    assert outs == [Path("runs/bench"), Path("runs/bench-gpu")]  # runs/ is ignored by git; results/ is committed
    with pytest.raises(SettingError, match="unknown 'HFN'"):
        planned(Options(workloads="HFN"))
    with pytest.raises(SettingError, match="device='tpu': give one of cpu, gpu"):
        planned(Options(device="tpu"))
    with pytest.raises(SettingError, match="rounds=0"):
        planned(Options(rounds=0))


def test_a_whole_run_in_processes_writes_numbers_table_and_picture(tmp_path):
    """Oracle: the promises of the page: all files, every row timed, the same computation agrees in float32, and who is
    absent with the reason.

    The workers compute on the processor under a GPU's conditions, where elapsed time counts. Resumed, the run measures
    nothing again; with results of another machine it refuses.
    """
    stand_in = dataclasses.replace(GPU, name="cpu", variables={**GPU.variables, "JAX_PLATFORMS": "cpu"})
    systems = (System("by hand", "by_hand", "jax", ("jax",)), *list_absent())
    plan = Plan((TINY,), systems, Size(2, 0.001, 3), tmp_path, tmp_path)
    plan = dataclasses.replace(plan, device=stand_in)
    bench(plan, lambda _: None)
    results = json.loads((tmp_path / "bench.json").read_text())
    for name, reason in ABSENT.items():
        assert reason in results["absent"][name]
        assert reason in table.markdown(results)
    (found,) = results["workloads"]
    for row in found["rows"]:
        assert row["failure"] is None
        assert len(row["cpu"]) == 2
        assert row["ratio"] > 0
        assert row["milliseconds"] == pytest.approx(1e3 * statistics.median(row["wall"]))
    assert (tmp_path / "bench.png").stat().st_size > 1000
    assert "tiny" in (tmp_path / "table.md").read_text()
    assert "elapsed time" in (tmp_path / "table.md").read_text()
    again = dataclasses.replace(plan, resume=True)
    assert bench(again, pytest.fail) == results
    (tmp_path / "bench.json").write_text(json.dumps({**results, "machine": {**results["machine"], "cpu": "abacus"}}))
    with pytest.raises(SettingError, match="measured with cpu = 'abacus'"):
        bench(again, pytest.fail)
    (tmp_path / "bench.json").write_text("{}")
    with pytest.raises(SettingError, match=r"bench.json holds no results .*KeyError.* move it away"):
        bench(again, pytest.fail)


@pytest.mark.parametrize(("device", "expected"), [(CPU, 2.0), (GPU, 5.0)])
def test_seconds_are_those_of_the_device(device, expected):
    """Oracle: processor time on a processor, elapsed time on a GPU."""
    row = Row("s", "jax", "r", "l", 1, "relaxation", False, "", clock=device.clock, cpu=[0.002], wall=[0.005])
    assert row.milliseconds == pytest.approx(expected)


def test_a_gpu_that_is_not_there_is_told():
    """Oracle: the words of JAX, where the tests run without one; where they run with one, its name."""
    if jax.default_backend() == "gpu":
        assert machine(GPU)["accelerator"]
    else:
        with pytest.raises(SettingError, match=r"device='gpu': .*cuda.* leave --device out"):
            machine(GPU)


def test_rounded_kinks_are_the_kinks_in_the_limit():
    """Oracle: maximum and relu themselves."""
    values = jax.random.normal(jax.random.key(0), (5, 4))
    np.testing.assert_allclose(reference.RoundMaximum(np.asarray(0.0))(values, (1,)), values.max(-1), atol=1e-15)
    np.testing.assert_allclose(reference.RoundRelu(np.asarray(0.0))(values), jax.nn.relu(values), atol=1e-15)
