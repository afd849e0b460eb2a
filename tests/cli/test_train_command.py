"""`energax train`: the result, the run folder, resumption, and errors in one line."""

import json
import math

import pytest
from PIL import Image
from safetensors.numpy import load_file

from energax.cli import train as command

ANSWERED = (
    "test_accuracy",
    "validation_accuracy",
    "converged_fraction",
    "stalled_fraction",
    "residual",
    "gradient_cosine",
    "reference",
    "seconds",
)


def test_a_run_answers_in_json_and_leaves_a_folder(energax, read, folder):
    """Oracle: the files against each other: one result, told in four places, in the same numbers."""
    done = energax("train", "--recipe", "pc-nudge", "--epochs", 2, "--json", small=True)
    assert done.code == 0
    answer = read(done.out.splitlines()[-1])
    assert set(ANSWERED) <= set(answer)
    assert (answer["recipe"], answer["data"], answer["seed"], answer["epochs"]) == ("pc-nudge", "digits", 0, 2)
    assert answer["reference"] == "backprop"
    assert answer["gradient_cosine"] > 0.9999
    assert answer["test_accuracy"] > 0.25
    assert 0 <= answer["converged_fraction"] + answer["stalled_fraction"] <= 1 + 1e-9

    run = folder / "runs" / "pc-nudge-digits-0"
    assert str(run.relative_to(folder)) == answer["folder"]
    assert {path.name for path in run.iterdir()} == {
        ".lock",
        "config.json",
        "metrics.jsonl",
        "last.ckpt",
        "best.ckpt",
        "curve.png",
        "summary.md",
        "result.json",
    }
    result = read(run / "result.json")
    assert {name: result[name] for name in ANSWERED} == {name: answer[name] for name in ANSWERED}
    rows = [read(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[-1]["gradient_cosine"] == answer["gradient_cosine"]
    assert sum(row["seconds"] for row in rows) == answer["seconds"]
    config = read(run / "config.json")
    assert (config["epochs"], config["batch"], config["settings"]["hidden"]) == (2, 100, [16])
    assert {"jax", "device", "python", "origin"} <= set(config)

    image = Image.open(run / "curve.png")
    image.verify()
    assert image.format == "PNG"
    assert min(image.size) > 200
    summary = (run / "summary.md").read_text()
    for name in ("test_accuracy", "selected_test_accuracy", "validation_accuracy", "converged_fraction"):
        assert f"{100 * result[name]:.2f} %" in summary
        assert f"{100 * result[name]:.2f} %" in done.out
    for name in ("residual", "gradient_cosine"):
        assert f"{result[name]:.4g}" in summary
    assert f"(epoch {result['selected_epoch']})" in summary
    assert "epoch   2" in done.err


def test_a_setting_that_json_has_no_number_for_is_kept(energax, read, folder):
    """Oracle: what was asked for; null would be the recipe's own value, and another run."""
    options = ("train", "--recipe", "asym-ep", "--feedback-radius", "inf", "--epochs", 1, "--out", "run")
    assert energax(*options, small=True).code == 0
    assert read(folder / "run" / "config.json")["settings"]["feedback_radius"] == "inf"
    assert energax("train", "--resume", "run", "--epochs", 2).code == 0
    assert len((folder / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_resumed_on_the_command_line_equals_uninterrupted(energax, read, folder):
    """Oracle: the run of four epochs in one go: the same checkpoint but for the seconds, the same result."""
    options = ("train", "--recipe", "backprop", "--seed", 3)
    assert energax(*options, "--epochs", 4, "--out", "whole", small=True).code == 0
    assert energax(*options, "--epochs", 2, "--out", "parts", small=True).code == 0
    resumed = energax("train", "--resume", "parts", "--epochs", 4, "--json")
    assert resumed.code == 0
    assert read(resumed.out.splitlines()[-1])["epochs"] == 4
    assert read(folder / "parts" / "config.json")["epochs"] == 4

    def arrays(name):
        return {tensor: array.tobytes() for tensor, array in load_file(folder / name / "last.ckpt").items()}

    def rows(name):
        lines = (folder / name / "metrics.jsonl").read_text().splitlines()
        return [{**json.loads(line), "seconds": 0, "compile_seconds": 0} for line in lines]

    assert sum(map(len, arrays("whole").values())) > 1000
    assert arrays("whole") == arrays("parts")
    assert rows("whole") == rows("parts")
    results = [
        {**read(folder / name / "result.json"), "seconds": 0, "compile_seconds": 0} for name in ("whole", "parts")
    ]
    assert results[0] == results[1]


def test_a_rule_that_relaxes_nothing_answers_null_and_a_dash(energax, read):
    """Oracle: the JSON standard. Backprop has no residual, which is null and no NaN; a person reads a dash."""
    done = energax("train", "--recipe", "backprop", "--epochs", 1, "--json", small=True)
    answer = read(done.out.splitlines()[-1])
    assert answer["residual"] is answer["converged_fraction"] is None
    assert math.isclose(answer["gradient_cosine"], 1, abs_tol=1e-6)
    assert next(line for line in done.out.splitlines() if "residual" in line).split()[-2] == "-"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--recipe", "nosuch"), ("'nosuch'", "known: backprop, pc,")),
        (("--data", "nosuch"), ("'nosuch'", "known: digits, mnist")),
        (("--epochs", "0"), ("epochs=0", "at least 1")),
        (("--epochs", "-2"), ("epochs=-2", "at least 1")),
        (("--batch", "0"), ("batch=0", "at least 1")),
        (("--batch", "2000"), ("batch=2000", "between 1 and the 1297 training rows")),
        (("--optimiser", "rprop"), ("optimiser=rprop", "give sgd, nesterov, adam, adamw, lars, lamb or lalr")),
        (("--freeze", "layer1,head"), ("'head'", "the model has: activation1, activation2, layer1")),
        (("--fixed-steps", "20", "--solver", "cg-errors"), ("solver=cg-errors", "leave the solver out, or give flow")),
        (("--fixed-steps", "20", "--max-relaxation-steps", "5"), ("max_relaxation_steps=5", "does not read it")),
        (("--fixed-steps", "20", "--state-optimiser", "lars"), ("state_optimiser=lars", "give sgd, nesterov, adam")),
        (("--solver", "flow", "--state-optimiser", "adam"), ("state_optimiser=adam", "does not read it")),
        (("--seed", "-1"), ("seed=-1", "at least 0")),
        (("--learning-rate", "-1"), ("learning_rate=-1.0", "positive")),
        (("--learning-rate", "nan"), ("learning_rate=nan", "positive")),
        (("--beta", "0"), ("beta=0.0", "positive")),
        (("--hidden", "0"), ("hidden=(0,)", "at least 1")),
        (("--resume", "nowhere"), ("nowhere", "no such folder")),
        (("--resume", ".", "--seed", "3"), (".", "config.json is missing")),
        (("--resume", ".", "--hidden", "3"), ("--resume", "only --epochs")),
    ],
)
def test_errors_are_one_line_that_names_the_value_and_the_remedy(words, parts, energax, folder):
    """Oracle: the message. Exit code 2, nothing on standard output, no traceback, and no folder left behind."""
    done = energax("train", *words)
    assert done.code == 2
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert line.startswith("energax: ")
    for part in parts:
        assert part in line
    assert list(folder.iterdir()) == []


def test_a_data_folder_that_is_not_there_is_named(energax, monkeypatch, folder):
    """Oracle: the message, which names the variable or the folder that it holds."""
    monkeypatch.setenv("ENERGAX_DATA", str(folder / "elsewhere"))
    done = energax("train", "--data", "mnist", "--epochs", 1)
    assert done.code == 2
    assert done.err.startswith("energax: ")
    assert "ENERGAX_DATA" in done.err
    assert "elsewhere" in done.err
    assert "Traceback" not in done.err
    assert not (folder / "runs").exists()


def test_folders_that_cannot_be_used_are_refused(energax, folder):
    """Oracle: the message. A path below a file (as root, permissions are no obstacle), and a folder with a run."""
    (folder / "file").write_text("here")
    below = energax("train", "--recipe", "backprop", "--epochs", 1, "--out", "file/run", small=True)
    assert below.code == 2
    assert below.err.startswith("energax: cannot make the run folder file/run: Not a directory; choose another (--out)")
    assert energax("train", "--recipe", "backprop", "--epochs", 1, "--out", "run", small=True).code == 0
    again = energax("train", "--recipe", "backprop", "--epochs", 1, "--out", "run", small=True)
    assert again.code == 2
    assert "energax: run holds a run already: continue it (resume=True; --resume run), or choose another" in again.err
    fewer = energax("train", "--resume", "run", "--epochs", 0)
    assert fewer.code == 2
    assert "epochs=0" in fewer.err
    (folder / "run" / "config.json").write_text('{"recipe": "backprop"}')
    lacking = energax("train", "--resume", "run")
    assert lacking.code == 2
    assert "config.json lacks the settings of a recipe ('settings'); start the run anew" in lacking.err
    (folder / "run" / "config.json").write_text("{")
    damaged = energax("train", "--resume", "run")
    assert damaged.code == 2
    assert "config.json: cannot be read as JSON" in damaged.err


def test_a_damaged_checkpoint_stops_a_resumption(energax, folder):
    """Oracle: the message, which names the file and the remedy."""
    assert energax("train", "--recipe", "backprop", "--epochs", 1, "--out", "run", small=True).code == 0
    file = folder / "run" / "last.ckpt"
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    done = energax("train", "--resume", "run", "--epochs", 2)
    assert done.code == 2
    assert "energax: run/last.ckpt is damaged" in done.err
    assert "restore it from a copy or start anew" in done.err


def test_an_interruption_says_how_to_go_on(energax, monkeypatch):
    """Oracle: exit code 130, 128 + SIGINT as shells have it, and one line without a traceback."""

    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "epochs_of", lambda *_: interrupted(None))
    done = energax("train")
    assert done.code == 130
    assert done.err.splitlines() == ["energax: interrupted; finished epochs are kept, continue with --resume FOLDER"]


def test_resuming_refuses_other_choices_and_says_when_nothing_is_left(energax):
    """Oracle: a run goes on as what it was started as; a finished one has nothing to train."""
    assert energax("train", "--recipe", "backprop", "--epochs", 1, "--out", "run", small=True).code == 0
    for option, value in (("--recipe", "ep"), ("--data", "mnist"), ("--seed", "7")):
        done = energax("train", "--resume", "run", option, value)
        assert done.code == 2
        assert f"{option} {value}" in done.err
        assert "leave the option out" in done.err
    finished = energax("train", "--resume", "run")
    assert finished.code == 0
    assert "has its 1 epochs; give a larger --epochs" in finished.err


def test_the_same_command_twice_keeps_both_runs(energax, folder):
    """Oracle: nothing is lost and nothing is refused where no folder was asked for."""
    for _ in range(2):
        assert energax("train", "--recipe", "backprop", "--epochs", 1, small=True).code == 0
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["backprop-digits-0", "backprop-digits-0-2"]
