"""`fed-asi completion`: what a shell completes with the printed script."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fed_asi.commands.completion import SHELLS
from fed_asi.commands.main import COMMANDS, main


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The programs of both shells, as files."""
    home = tmp_path_factory.mktemp("completion")
    with pytest.MonkeyPatch.context() as patch:
        for shell in SHELLS:
            lines: list[str] = []
            patch.setattr("sys.stdout.write", lines.append)
            assert main(["completion", shell]) == 0
            patch.undo()
            (home / shell).write_text("".join(lines))
    return {shell: home / shell for shell in SHELLS}


def completed(program: Path, *words: str) -> list[str]:
    """Return what bash offers after these words, the last of which is being typed."""
    code = f"source {program}; COMP_WORDS=({' '.join(map(repr, words))}); COMP_CWORD={len(words) - 1}; "
    code += '$(complete -p fed-asi | sed "s/.*-F \\([^ ]*\\).*/\\1/") >/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", code], capture_output=True, text=True, check=True, cwd=program.parent
    )
    return done.stdout.split()


def test_bash_completes_commands_options_choices_and_files(printed: dict[str, Path]) -> None:
    bash = printed["bash"]
    (bash.parent / "my-fleet.toml").touch()
    assert sorted(completed(bash, "fed-asi", "co")) == sorted(one for one in COMMANDS if one.startswith("co"))
    assert completed(bash, "fed-asi", "plan", "--bud") == ["--budget"]
    assert completed(bash, "fed-asi", "run", "--backend", "") == ["flower", "loop"]
    assert completed(bash, "fed-asi", "run", "my-") == ["my-fleet.toml"]


def test_zsh_reads_its_program(printed: dict[str, Path]) -> None:
    text = printed["zsh"].read_text()
    assert text.startswith("#compdef fed-asi")
    for name, summary in COMMANDS.items():
        assert f"    {name}:'{summary[:20].partition(chr(39))[0]}" in text
    if shutil.which("zsh"):
        subprocess.run(["zsh", "-n", str(printed["zsh"])], check=True)
