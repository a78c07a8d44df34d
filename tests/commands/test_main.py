"""The command line: exit codes, one line per error, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fed_asi
from fed_asi.commands import main
from made_run import make


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "nothing.toml"], "fed-asi: no file nothing.toml"),
        (["run"], "fed-asi: run: give a fleet file, or --resume RUN"),
        (["run", "fleet.toml", "--resume", "x"], "fed-asi: run: --resume takes the settings of the run"),
        (["run", "--resume", "x"], "fed-asi: no run in x"),
        (["report", "nowhere"], "fed-asi: no run in nowhere"),
        (["compare", "a", "b"], "fed-asi: no run in a"),
        (["run", "fleet.toml", "--out", "fleet.toml"], "fed-asi: cannot make fleet.toml/small"),
    ],
)
def test_user_errors_are_one_line_and_exit_2(fleet_file, capsys, words, expected):
    assert main.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(expected)
    assert len(said.splitlines()) == 1


def test_our_own_mistakes_are_one_line_with_the_details_in_a_file(fleet_file, backend, capsys):
    def mistake(_store):
        raise ZeroDivisionError("seven")

    backend(mistake)
    assert main.main(["run", fleet_file]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("fed-asi: an error in this program: ZeroDivisionError: seven; details in ")
    details = Path(said.rpartition(" ")[2])
    assert "Traceback" in details.read_text()
    details.unlink()


def test_the_first_word_of_help_costs_no_torch():
    code = "import sys; from fed_asi.commands.main import main\ntry: main(['run', '--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'flwr', 'ray', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_with_debugging_on_our_own_mistakes_are_raised(fleet_file, backend, monkeypatch):
    def mistake(_store):
        raise ZeroDivisionError("seven")

    backend(mistake)
    monkeypatch.setenv("FED_ASI_DEBUG", "1")
    with pytest.raises(ZeroDivisionError, match="seven"):
        main.main(["run", fleet_file])


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_its_module_and_its_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main.main([name, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: fed-asi {name}")
    assert f"`fed-asi {name}" in text  # its module says what it does


def test_without_a_command_the_commands_are_named(capsys):
    with pytest.raises(SystemExit) as ended:
        main.main([])
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main.main(["--help"])
    said = capsys.readouterr().out
    for name, summary in main.COMMANDS.items():
        assert name in said
        assert summary in " ".join(said.split())


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit):
        main.main(["--version"])
    assert capsys.readouterr().out == f"fed-asi {fed_asi.__version__}\n"


@pytest.mark.slow  # a process of its own, as the buffer is flushed after the last line of ours
@pytest.mark.computes
def test_a_reader_that_has_gone_is_no_mistake(tmp_path):
    """As in `fed-asi compare A B | true`: little enough is printed that it waits in a buffer until the end."""
    make(tmp_path / "a")
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "fed_asi", "compare", "a", "a"]
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    options = {"cwd": tmp_path, "env": buffered, "stdout": writer, "stderr": subprocess.PIPE, "text": True}
    done = subprocess.run(command, check=False, **options)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_mistake_whose_details_find_no_place_is_one_line(fleet_file, backend, capsys, monkeypatch):
    def mistake(_store):
        raise ZeroDivisionError("seven")

    def full(*_words, **_options):
        raise OSError(28, "No space left on device")

    backend(mistake)
    monkeypatch.setattr(main.tempfile, "NamedTemporaryFile", full)
    assert main.main(["run", fleet_file]) == 1
    assert "ZeroDivisionError: seven; details in no file" in capsys.readouterr().err
