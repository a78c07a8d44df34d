"""The private parts of Flower: each is where deploy/ looks for it, and is used through one module only."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from deploy import flwr_private

pytestmark = pytest.mark.filterwarnings("ignore")  # Flower's own imports warn

DEPLOY = Path(flwr_private.__file__).parent
PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp"}


@pytest.mark.parametrize("name", sorted(flwr_private.HOMES))
def test_the_part_is_where_this_version_has_it(name):
    assert getattr(flwr_private, name) is not None


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("create_app", ["config", "superlink_lifespan_class"]),
        ("_parse_superlink_lifespan_config", []),
        ("get_uvicorn_log_config", ["log_level"]),
        ("try_load_public_key", ["public_key_path"]),
        ("pull_task_input", ["client"]),
        ("push_message", ["client", "message", "context"]),
        ("push_task_output", ["client", "context", "sub_status", "details"]),
        ("install_from_fab", ["fab_file", "skip_prompt"]),
        ("get_load_client_app_fn", ["default_app_ref", "app_path", "multi_app"]),
        ("HeartbeatSender", ["heartbeat_fn"]),
        ("make_simple_http_retry_invoker", []),
    ],
)
def test_the_part_takes_what_it_is_given(name, parameters):
    found = inspect.signature(getattr(flwr_private, name)).parameters
    assert set(parameters) <= set(found)
    needed = {key for key, value in found.items() if value.default is value.empty}
    assert needed <= set(parameters)


def test_a_part_that_moved_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setitem(flwr_private.HOMES, "create_app", "flwr.superlink.nowhere")
    with pytest.raises(
        flwr_private.FlowerMovedError, match=r"no flwr\.superlink\.nowhere\.create_app .* flwr 1"
    ):
        _ = flwr_private.create_app
    with pytest.raises(ImportError, match=r"nowhere\.create_app"):
        from deploy.flwr_private import create_app  # noqa: F401


def test_other_names_are_not_looked_up():
    with pytest.raises(AttributeError, match="no attribute 'creat_app'"):
        _ = flwr_private.creat_app


def imports_of_flower(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "flwr"}


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.py")), ids=lambda path: path.stem)
def test_what_flower_does_not_publish_is_asked_for_here_alone(path):
    if path.stem == "flwr_private":
        named = {f"{node.module}.{alias.name}" for node in ast.walk(ast.parse(path.read_text()))
                 if isinstance(node, ast.ImportFrom) and str(node.module).startswith("flwr.")
                 for alias in node.names}  # fmt: skip
        assert named == {f"{home}.{name}" for name, home in flwr_private.HOMES.items()}
    else:
        assert imports_of_flower(path) <= PUBLIC
