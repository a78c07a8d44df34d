"""Lines that a solver prints itself, at the level of the operating system."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import ctypes, os, sys
from fed_asi.planning.solver_output import beside_the_result
libc = ctypes.CDLL(None)
print("before")
with beside_the_result():
    libc.puts(b"of C's own buffer")
    os.write(1, b"unbuffered\\n")
    libc.puts(b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();")
print("after")
libc.puts(b"of C, later")
libc.fflush(None)
"""


def test_what_c_prints_inside_goes_to_standard_error_without_the_solver_s_chatter() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert sorted(done.stderr.splitlines()) == ["of C's own buffer", "unbuffered"]
    assert sorted(done.stdout.splitlines()) == ["after", "before", "of C, later"]


def test_without_a_standard_output_the_block_is_done_all_the_same() -> None:
    code = "import os; os.close(1); " + (
        "from fed_asi.planning.solver_output import beside_the_result as b\n"
        "with b(): pass\n"
        "os.write(2, b'done')"
    )
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=True)
    assert done.stderr == "done"
