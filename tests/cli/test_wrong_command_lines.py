"""Wrong command lines, by kind: each ends in one line that says what is wrong, and exit code 2."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from energax import _interruption as interruption
from energax.cli import main
from energax.recipes import Settings, make_learner
from energax.training import RunFolder, checkpoint
from energax.training.learner import begin

LONG = "x" * 300
TWENTY = "9" * 20

WRONG = [
    # words that are no command
    ("", "expected one of {train, compare"),
    ("explode", "known: train, compare"),
    ("''", "known: train, compare"),
    ("train ep", "unrecognized"),
    ("--nosuch", "unrecognized"),
    ("-5", "energax"),
    ("train train", "unrecognized"),
    (LONG, "known: train, compare"),
    # options that are not there, and options without a value
    ("train --lerning-rate 1", "perhaps you meant --learning-rate"),
    ("train --learning_rate2 1", "perhaps you meant --learning-rate"),
    ("compare --resume x", "--resume"),
    ("train --seed", "--seed"),
    ("train --out", "--out"),
    ("train --hidden", "hidden=(): give one or more whole numbers"),
    ("compare --hidden", "hidden=(): give one or more whole numbers"),
    ("data --fetch", "--fetch"),
    ("reproduce --list --nosuch", "--nosuch"),
    ("reproduce millidge2023-fig2a --nosuch", "--nosuch"),
    # values of another type
    ("train --seed x", "--seed"),
    ("train --seed 1.5", "--seed"),
    ("train --seed ''", "--seed"),
    ("train --epochs many", "--epochs"),
    ("train --hidden a", "--hidden"),
    ("train --learning-rate fast", "--learning-rate"),
    ("train --learning-rate 1,5", "--learning-rate"),
    ("train --network transformer", "give one of conv, hfn, mlp"),
    ("train --standardise perhaps", "give one of False, True"),
    ("compare --seeds three", "--seeds"),
    # numbers out of range, of what they are for or of what computers hold
    ("train --seed -1", "seed=-1"),
    (f"train --seed {TWENTY}", f"seed={TWENTY}"),
    (f"train --epochs {TWENTY}", f"epochs={TWENTY}"),
    ("train --epochs 0", "epochs=0"),
    (f"train --hidden {TWENTY}", "hidden="),
    ("train --hidden -3", "hidden=(-3,)"),
    ("train --hidden 2147483647 2147483647", "hidden=(2147483647, 2147483647)"),
    ("train --hidden 2000000000", "this machine has"),
    (f"train --batch {TWENTY}", "batch="),
    (f"train --max-relaxation-steps {TWENTY}", "max_relaxation_steps="),
    (f"train --fixed-steps {TWENTY}", "fixed_steps="),
    ("train --fixed-steps 0", "fixed_steps=0"),
    (f"train --network scrn --length {TWENTY}", "length="),
    (f"train --network conv --kernel {TWENTY[:-1]}9", "kernel="),
    (f"train --lr-decay-steps {TWENTY}", "lr_decay_steps="),
    (f"train --recipe ep-holomorphic --nudge-points {TWENTY}", "nudge_points="),
    ("train --epochs abc", "error parsing --epochs: 'abc': give a whole number; see energax --help"),
    ("train --seed abc", "error parsing --seed: 'abc': give a whole number"),
    ("train --hidden 3 abc", "error parsing --hidden: '3', 'abc': give whole numbers"),
    ("train --learning-rate abc", "error parsing --learning-rate: 'abc': give a number"),
    ("train --learning-rate nan", "learning_rate=nan"),
    ("train --learning-rate inf", "learning_rate=inf"),
    ("train --learning-rate 1e400", "learning_rate=inf"),
    ("train --learning-rate 1e39", "learning_rate=1e+39"),
    ("train --learning-rate 1e-60", "learning_rate=1e-60"),
    ("train --beta nan", "beta=nan"),
    ("train --beta 1e300", "beta=1e+300"),
    ("train --relaxation-tol -1", "relaxation_tol=-1.0"),
    ("train --solver flow --step-size 0", "step_size=0.0"),
    ("train --momentum 1", "momentum=1.0"),
    ("train --weight-decay -inf", "weight_decay=-inf"),
    ("train --gain 0", "gain=0.0"),
    (f"train --learning-rate {'9' * 5000}", "learning_rate=inf"),
    (f"train --seed {'9' * 5000}", "--seed"),
    ("compare --seeds 0", "seeds=0"),
    (f"compare --epochs {TWENTY}", f"epochs={TWENTY}"),
    # names that nothing has
    ("train --recipe nosuch", "unknown recipe 'nosuch'"),
    ("train --recipe ''", "unknown recipe ''"),
    (f"train --recipe {LONG}", "unknown recipe"),
    ("train --recipe nosuch --help", "unknown recipe 'nosuch'"),
    ("train --data nosuch", "unknown data set 'nosuch'"),
    ("train --data ''", "unknown data set ''"),
    ("train --data ../../etc", "unknown data set '../../etc'"),
    ("train --optimiser 'a\nb'", "optimiser=a b"),
    ("train --state-optimiser lars --fixed-steps 3", "state_optimiser=lars"),
    ("compare --recipes backprop,nosuch", "unknown recipe 'nosuch'"),
    ("compare --recipes ''", "at least one"),
    ("data --fetch nosuch", "unknown data set 'nosuch'"),
    ("recipes nosuch", "unknown recipe 'nosuch'"),
    ("reproduce nosuch", "'nosuch'"),
    ("reproduce chen2025-table3 --rows -1", "rows=-1"),
    ("reproduce chen2025-table3 --width nan", "width=nan"),
    ("reproduce millidge2023-limits --sizes 4 0", "sizes=0"),
    ("reproduce", "give names of experiments or --all"),
    # folders that cannot be
    ("train --out ''", "'' is no name of a folder"),
    ("train --out ' '", "' ' is no name of a folder"),
    ("train --out file", "'file' is a file"),
    ("train --out file/below", "file/below"),
    (f"train --out {LONG}", "File name too long"),
    (f"compare --out {LONG}", "File name too long"),
    ("compare --out ''", "'' is no name of a folder"),
    ("compare --out file", "'file' is a file"),
    ("reproduce millidge2023-fig2a --small --out file", "'file' is a file"),
    (f"reproduce millidge2023-fig2a --out {LONG}", "File name too long"),
    ("train --resume ''", "'' is no name of a folder"),
    ("train --resume file", "'file' is a file"),
    ("train --resume nowhere", "nowhere: no such folder"),
    (f"train --resume {LONG}", "File name too long"),
    ("train --resume .", "config.json is missing"),
    ("train --resume . --out other", "only --epochs may be given"),
    # bytes that are no text
    ("train --out '\udcff'", "is no text in UTF-8"),
    ("'\udcff'", "is no text in UTF-8"),
    ("train --out 'a\0b'", "holds a NUL"),
]


def split(line: str) -> list[str]:
    """The words of a line, what stands in quotes as one; a shell's own rules stumble over control characters."""
    parts = enumerate(line.split("'"))
    return [word for at, part in parts for word in ([part] if at % 2 else part.split())]


def refused(done) -> str:
    """The one line that a refused command line ends in."""
    assert done.code == 2
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert line.startswith("energax: ")
    assert "Traceback" not in line
    return line


@pytest.mark.parametrize(("line", "part"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_command_line_is_one_line_and_exit_code_2(line, part, energax, folder):
    """Oracle: the exit code, one line on standard error that names what is wrong, and a folder left as it was."""
    (folder / "file").write_text("here")
    assert part in refused(energax(*split(line)))
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.parametrize("variable", ["ENERGAX_DATA", "ENERGAX_CACHE"])
@pytest.mark.parametrize("value", ["~nosuchuser/x", LONG, "file"])
def test_folders_of_data_that_cannot_be_are_named(variable, value, energax, folder, monkeypatch):
    """Oracle: the message, which names the variable or its value; nothing is downloaded into what is no folder."""
    (folder / "file").write_text("here")
    monkeypatch.setenv(variable, value)
    if variable == "ENERGAX_DATA" or value == "~nosuchuser/x":
        assert value in refused(energax("data", "--fetch", "mnist"))


CONFIG = {
    "recipe": "backprop",
    "data": "digits",
    "seed": 0,
    "epochs": 1,
    "settings": {"hidden": [16], "batch": 100, "standardise": False, "learning_rate": 0.05},
}


def changed(**values) -> str:
    """A run's settings, some of them replaced."""
    own = {key: value for key, value in values.items() if key in CONFIG["settings"] or key == "nosuch"}
    others = {key: value for key, value in values.items() if key not in own}
    return json.dumps({**CONFIG, "settings": {**CONFIG["settings"], **own}, **others})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "cannot be read as JSON"),
        ("null", "holds no object"),
        ("[1, 2]", "holds no object"),
        ('"text"', "holds no object"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"a": ' * 100_000, "cannot be read as JSON"),
        ("\xff", "cannot be read as JSON"),
        (" " * 2_000_000, "2000000 bytes, and such a file has at most 1048576"),
        ("{}", "lacks the settings"),
        (changed(settings="text"), "settings='text': give an object"),
        (changed(settings=[1]), "settings=[1]: give an object"),
        (changed(learning_rate="fast"), "learning_rate='fast': give a number, or null"),
        (changed(learning_rate=True), "learning_rate=True: give a number, or null"),
        (changed(learning_rate=[0.1]), "learning_rate=[0.1]: give a number, or null"),
        (changed(learning_rate={}), "learning_rate={}: give a number, or null"),
        (changed(learning_rate=1e39), "learning_rate=1e+39"),
        (changed(learning_rate=float("nan")), "learning_rate=nan"),
        (changed(hidden=16), "hidden=16: give a list of whole numbers, or null"),
        (changed(hidden=["16"]), "hidden=['16']: give a list of whole numbers, or null"),
        (changed(hidden="16"), "hidden='16': give a list of whole numbers, or null"),
        (changed(batch="100"), "batch='100': give a whole number, or null"),
        (changed(batch=10.5), "batch=10.5: give a whole number, or null"),
        (changed(standardise="no"), "standardise='no': give true or false, or null"),
        (changed(nosuch=1), "'nosuch' is no setting"),
        (changed(recipe=3), "recipe=3: give text"),
        (changed(recipe="nosuch"), "unknown recipe 'nosuch'"),
        (changed(data=None), "data=None: give text"),
        (changed(seed="0"), "seed='0': give a whole number"),
        (changed(epochs=1.5), "epochs=1.5: give a whole number"),
        (json.dumps({**CONFIG, "batch": 99}), "batch=99, and 100 among the settings"),
        (changed(epochs=2**64), f"epochs={2**64}: give a number from 1 to 2147483647"),
    ],
    ids=range(31),
)
def test_settings_of_a_run_that_are_none_are_refused_field_by_field(text, part, energax, folder):
    """Oracle: the message, which names the file, the field and its value."""
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text(text, encoding="latin-1")
    line = refused(energax("train", "--resume", "run"))
    assert "run/config.json" in line
    assert part in line


@pytest.mark.parametrize("name", ["recipe", "data", "seed", "epochs", "network", "optimiser", "batch", "hidden", "any"])
@pytest.mark.parametrize("value", ["n" * 70_000, ["n" * 70_000], [2**31] * 10_000], ids=["text", "texts", "numbers"])
def test_what_a_file_says_at_length_is_told_in_short(name, value, energax, folder):
    """Oracle: the length of the line; whoever made the file chose that of its texts."""
    (folder / "run").mkdir()
    config = json.loads(changed())
    if name == "any":
        config["settings"]["n" * 70_000] = value
    else:
        (config if name in config else config["settings"])[name] = value
    (folder / "run" / "config.json").write_text(json.dumps(config))
    assert len(refused(energax("train", "--resume", "run"))) < 1_000


def test_things_that_are_no_files_are_refused(energax, folder):
    """Oracle: the message. Opening a pipe to which nobody writes would wait for ever."""
    (folder / "run").mkdir()
    os.mkfifo(folder / "run" / "config.json")
    assert "run/config.json: cannot be read (it is a" in refused(energax("train", "--resume", "run"))
    (folder / "other" / "config.json").mkdir(parents=True)
    assert "other/config.json: cannot be read (it is a" in refused(energax("train", "--resume", "other"))


@pytest.mark.parametrize(
    ("history", "part"),
    [
        ([{"epoch": 1, "validation_accuracy": 0.5}], "is of 1 epochs, and says epoch=None"),
        ("text", "holds no log of a run"),
        ([3], "holds no log of a run"),
    ],
)
def test_a_log_of_an_older_version_is_refused_clearly(history, part, energax, folder):
    """Oracle: the message names the file, the row and what it lacks, where there was a bare KeyError."""
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text(changed())
    settings = {"hidden": (16,), "batch": 100}
    learner, _ = make_learner("backprop", (8, 8, 1), 10, settings=Settings(**settings))
    checkpoint.save(RunFolder("run").last, begin(learner), {"history": history})
    line = refused(energax("train", "--resume", "run", "--epochs", "2"))
    assert "run/last.ckpt" in line
    assert part in line


def test_remedies_are_of_the_command_at_hand(energax, folder):
    """Oracle: `compare` has no --resume; what it cannot go on from is to be removed, or another folder given."""
    (folder / "both" / "backprop-0").mkdir(parents=True)
    (folder / "both" / "backprop-0" / "metrics.jsonl").write_text("{}\n")
    done = energax("compare", "--recipes", "backprop", "--seeds", "1", "--epochs", "1", "--out", "both", small=True)
    assert done.code == 2
    assert "no checkpoint to go on from: remove it, or choose another folder (--out)" in done.err
    assert "--resume" not in done.err


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (("train", "--recipe", "backprop"), "continue with --resume FOLDER"),
        (("compare", "--recipes", "backprop", "--seeds", "1"), "the same command continues"),
    ],
)
def test_a_run_that_fails_on_its_way_ends_with_code_1(command, remedy, energax, monkeypatch):
    """Oracle: a disk that takes nothing more, and the table of exit codes in docs/commands.md."""

    def full(file):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    done = energax(*command, "--epochs", "1", small=True)
    assert done.code == 1
    assert "No space left on device" in done.err.splitlines()[-1]
    assert done.err.splitlines()[-1].endswith(remedy)


def start(*words, **options) -> subprocess.Popen:
    """The command line as a process of its own."""
    command = [sys.executable, "-m", "energax", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def full_device() -> int:
    """A device that is always full."""
    return os.open("/dev/full", os.O_WRONLY)


def closed_pipe() -> int:
    """Where nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize(
    ("output", "code", "told"),
    [(full_device, 1, "No space left on device"), (closed_pipe, 141, None)],
    ids=["full", "closed"],
)
@pytest.mark.parametrize("words", [["--version"], ["data", "--help"], ["data"]])
def test_output_that_goes_nowhere_is_one_line_or_none(output, code, told, words, monkeypatch, capsys):
    """Oracle: a device that is always full, and a pipe whose reader has gone, as `| head` leaves it."""
    with os.fdopen(output(), "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        found = main(words)
    lines = capsys.readouterr().err.splitlines()
    assert found == code
    assert len(lines) == (0 if told is None else 1)
    assert all(told in line for line in lines)


@pytest.mark.parametrize("module", ["jax", "tyro"])
def test_an_interruption_while_importing_is_one_line(module, folder):
    """Oracle: exit code 130, one line, no traceback: in the library's own imports, and in those of its command line.

    A module of that name stands before the real one, says that it is being imported, and takes its time.
    """
    marker = folder / "imported"
    (folder / f"{module}.py").write_text(f"import time; open({str(marker)!r}, 'w').close(); time.sleep(60)")
    path = os.pathsep.join([str(folder), *sys.path])
    process = start("data", env={**os.environ, "PYTHONPATH": path})
    while not marker.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1].splitlines() == ["energax: interrupted"]
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("given", "original", "is_command"),
    [
        (["/usr/bin/energax", "data"], ["python", "/usr/bin/energax", "data"], True),
        (["-m", "data"], ["python", "-X", "dev", "-m", "energax", "data"], True),
        (["-m", "energax"], ["python", "-m", "mine", "energax"], False),
        (["mine.py", "energax"], ["python", "mine.py", "energax"], False),
        (["-c"], ["python", "-c", "import energax"], False),
        ([""], ["python"], False),
    ],
)
def test_only_the_command_line_watches_for_interruptions(given, original, is_command, monkeypatch):
    """Oracle: the documentation of sys.argv; a program of somebody else's keeps Python's own handler."""
    monkeypatch.setattr(sys, "argv", given)
    monkeypatch.setattr(sys, "orig_argv", original)
    assert interruption.is_command() is is_command
    before = signal.getsignal(signal.SIGINT)
    interruption.watch_imports()
    assert (signal.getsignal(signal.SIGINT) is interruption.leave) is (is_command and before is not signal.SIG_IGN)
    interruption.watch_no_more()
    assert signal.getsignal(signal.SIGINT) is before
