"""A user's own code by name: pinned by content, run at most once, and only when it is asked for."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest

from fed_asi import data, models, own_code
from fed_asi.errors import ConfigError

FILE = '''
"""A network's neighbour."""
from dataclasses import dataclass

@dataclass(frozen=True, slots=True)
class Setting:
    size: int = 3

def build(num_classes, resolution, seed):
    return num_classes, resolution, seed
'''


@pytest.fixture
def write(tmp_path):
    def _write(text: str, name: str = "net.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return _write


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that can be imported, forgotten after the test."""
    name = f"own_package_of_{tmp_path.name}".replace("-", "_")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "nets.py").write_text(FILE)
    yield folder
    for one in [one for one in sys.modules if one.partition(".")[0] == name]:
        del sys.modules[one]
    own_code.package_digest.cache_clear()


@pytest.mark.parametrize(
    "name",
    ["./net.py:build", "net.py:build", "/a/b/net.py:Net.of", "a.b:c", "a:b", "net.py@0123456789abcdef:build"],
)
def test_what_is_a_name_of_code(name):
    assert own_code.is_own(name)


@pytest.mark.parametrize(
    "name",
    [
        "mcunet",
        "cifar10",
        "mine.npz",
        "",
        ":",
        "a:",
        ":b",
        "a b:c",
        "./net.py",
        "net.py:1",
        "a:b c",
        "m:X(a=1)",
        "./net.txt:build",
        "a..b:c",
        "net.py@0123:build",
    ],
)
def test_what_is_none(name):
    assert not own_code.is_own(name)


def test_names_of_other_libraries_are_theirs(tmp_path):
    assert data.load
    assert models.build  # both rooms say which prefixes are other libraries'
    for name in ("timm:resnet18", "timm:mobilenetv4_conv_small.e2400_r224_in1k", "hf:uoft-cs/cifar10"):
        assert not own_code.is_own(name)
        assert own_code.shown_name(name) == name
        with pytest.raises(ConfigError, match="does not name code"):
            own_code.load(name)
    assert own_code.shown_name("timm@1.0.31:resnet18") == "timm:resnet18"
    assert own_code.is_own("timm.models:resnet18")  # a module's object, as of any package


def test_the_line_of_a_file_that_fails_later_is_known(write, tmp_path):
    write("def build(a):\n    b = 2\n    return a / 0\n")
    pinned = own_code.pin("net.py:build", tmp_path)
    own_code.know(pinned.files)
    with pytest.raises(ZeroDivisionError) as caught:
        own_code.load(pinned.name)(1)
    assert own_code.place_of(caught.value) == ", net.py, line 3"
    assert own_code.place_of(ValueError("of nobody's")) == ""


def test_a_file_is_pinned_by_its_text_wherever_it_lies(write, tmp_path):
    write(FILE)
    write(FILE, "sub/net.py")
    here, there = (own_code.pin(name, tmp_path) for name in ("./net.py:build", "sub/net.py:build"))
    assert here == there
    assert own_code.is_own(here.name)
    assert here.name.endswith(":build")
    assert list(here.files.values()) == [FILE]
    write(FILE + "\n# other\n")
    assert own_code.pin("./net.py:build", tmp_path).name != here.name
    assert own_code.shown_name(here.name) == "net.py:build"


def test_line_ends_of_another_system_are_no_other_code(write, tmp_path):
    write(FILE)
    first = own_code.pin("net.py:build", tmp_path)
    (tmp_path / "net.py").write_bytes(b"\xef\xbb\xbf" + FILE.replace("\n", "\r\n").encode())
    assert own_code.pin("net.py:build", tmp_path) == first


def test_to_pin_and_to_know_runs_nothing(write, tmp_path):
    write(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\nx = 1\n")
    pinned = own_code.pin("net.py:x", tmp_path)
    own_code.know(pinned.files)
    assert not (tmp_path / "ran").exists()
    assert own_code.load(pinned.name) == 1
    assert (tmp_path / "ran").exists()


def test_code_is_loaded_from_what_is_known_not_from_its_file(write, tmp_path):
    path = write(FILE)
    pinned = own_code.pin("net.py:build", tmp_path)
    own_code.know(pinned.files)
    path.unlink()
    build = own_code.load(pinned.name)
    assert build(1, 2, 3) == (1, 2, 3)
    assert own_code.load(pinned.name) is build
    assert own_code.load(pinned.name.replace(":build", ":Setting"))().size == 3
    assert "num_classes" in inspect.getsource(build)


def test_two_versions_of_a_file_live_side_by_side(write, tmp_path):
    found = []
    for number in (1, 2):
        write(f"x = {number} * 10\n")
        pinned = own_code.pin("net.py:x", tmp_path)
        own_code.know(pinned.files)
        found.append(pinned.name)
    assert [own_code.load(name) for name in found] == [10, 20]


def test_what_is_known_is_what_its_name_says(write, tmp_path):
    write(FILE)
    (address,) = own_code.pin("net.py:build", tmp_path).files
    with pytest.raises(ConfigError, match="other code than its name says"):
        own_code.know({address: FILE + "#"})


def test_code_that_is_not_here_says_so():
    with pytest.raises(ConfigError, match=r"net\.py@0123456789abcdef: its code is not available here"):
        own_code.load("net.py@0123456789abcdef:build")


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (FILE, "net.py:bild", "net.py has no 'bild'; did you mean build?"),
        (FILE, "net.py:Setting.none", "net.py has no 'Setting.none'"),
        ("def build(:\n", "net.py:build", "net.py, line 1: SyntaxError: invalid syntax"),
        ("x = 1\n\ny = x / 0\n", "net.py:y", "net.py, line 3: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\n", "net.py:y", "net.py, line 2: SystemExit: 3"),
        ("raise ValueError('a\\nb')\n", "net.py:y", "net.py, line 1: ValueError: a"),
        ("import of_mine_beside\n", "net.py:y", "a file stands by itself"),
        ("from .beside import x\n", "net.py:y", "a file stands by itself"),
        ("x = __file__\n", "net.py:x", "without its folder"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(write, tmp_path, text, name, said):
    write(text)
    pinned = own_code.pin(name, tmp_path)
    own_code.know(pinned.files)
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            own_code.load(pinned.name)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.py:build", "no file none.py in"),
        ("./neet.py:build", "did you mean net.py?"),
        ("sub:build", "no module sub is installed here; a file is named ./sub.py:build"),
        ("__main__:build", "no module __main__"),
        ("net.py@0123456789abcdef:build", "net.py has changed: its code is now net.py@"),
    ],
)
def test_what_cannot_be_pinned_says_why(write, tmp_path, name, said):
    write(FILE)
    with pytest.raises(ConfigError) as caught:
        own_code.pin(name, tmp_path)
    assert said in str(caught.value)


def test_a_file_that_is_no_text_or_too_long(tmp_path):
    (tmp_path / "net.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        own_code.pin("net.py:x", tmp_path)
    (tmp_path / "net.py").write_text("#" * (own_code.MOST_BYTES + 1))
    with pytest.raises(ConfigError, match=r"is longer than 1\.0 MiB"):
        own_code.pin("net.py:x", tmp_path)


def test_a_module_is_pinned_by_all_of_its_package(package):
    name = f"{package.name}.nets:build"
    pinned = own_code.pin(name, Path())
    assert pinned.files == {}
    assert own_code.shown_name(pinned.name) == name
    assert own_code.load(pinned.name)(1, 2, 3) == (1, 2, 3)
    (package / "__init__.py").write_text("# another version\n")
    assert own_code.pin(name, Path()) == pinned  # what is imported stays
    own_code.package_digest.cache_clear()
    other = own_code.pin(name, Path()).name
    assert other != pinned.name
    (package / "__init__.py").write_text("# a third\n")
    own_code.package_digest.cache_clear()
    with pytest.raises(ConfigError, match="is another version here than the one that was named"):
        own_code.load(other)


def test_a_module_that_is_not_in_its_package(package):
    pinned = own_code.pin(f"{package.name}.none:build", Path())
    with pytest.raises(ConfigError, match="No module named"):
        own_code.load(pinned.name)


def test_a_name_that_nobody_pinned_is_looked_for_here(write, tmp_path, monkeypatch):
    write(FILE)
    monkeypatch.chdir(tmp_path)
    assert own_code.load("./net.py:build")(1, 2, 3) == (1, 2, 3)


def one(a): ...


def many(a, b, c): ...


def three(num_classes, resolution, *, seed=0): ...


def two(a, b): ...


class Callable3:
    def __init__(self, a, b): ...


@pytest.mark.parametrize("found", [three, two, Callable3, max])
def test_what_can_be_called_so_may(found):
    own_code.check_call("net.py:build", found, "def build(num_classes, resolution)", 10, 32)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (one, "takes (a); write it as def build(x, y)"),
        (many, "takes (a, b, c); write it"),
        (3, "is an int, not a function; write it as def build(x, y)"),
        (sys, "is a module, not a function"),
    ],
)
def test_what_cannot_be_called_so_is_shown_how(found, said):
    with pytest.raises(ConfigError) as caught:
        own_code.check_call("net.py@0123456789abcdef:build", found, "def build(x, y)", 1, 2)
    assert str(caught.value).startswith(f"net.py:build {said}"[:20])
    assert said in str(caught.value)


def test_classes_are_shown_their_base():
    own_code.check_class("net.py:x", bool, int, "class Mine(int)")
    for found, said in ((str, "is a class without the base int"), (3, "is an int, not a class")):
        with pytest.raises(ConfigError) as caught:
            own_code.check_class("net.py:x", found, int, "class Mine(int)")
        assert str(caught.value) == f"net.py:x {said}; write it as class Mine(int)"
