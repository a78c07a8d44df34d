"""The private parts of torch: each does what it is used for, and is used through one module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from fed_asi import torch_private
from fed_asi.errors import TorchMovedError
from fed_asi.memory.peak import StepMeter

HOME = Path(torch_private.__file__)
# Every nn.Module has them; see the module's docstring.
EVERYBODYS = {"_parameters", "_buffers", "_modules"}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return the names, attributes and imports of a file, read once."""
    kinds = (ast.ImportFrom, ast.Import, ast.Attribute)
    return tuple(node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds))


def parts_of_torch(path: Path) -> Iterator[str]:
    """Yield the private names that a file imports from torch or reaches through `torch.` and `nn.`."""
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "torch":
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            whole = [alias.name for alias in node.names if alias.name.split(".")[0] == "torch"]
        elif isinstance(node, ast.Attribute) and private(node.attr):
            whole = [name for name in [ast.unparse(node)] if name.split(".")[0] in {"torch", "nn", "F"}]
        else:
            continue
        yield from (name for name in whole if any(private(part) for part in name.split(".")))


def attributes(path: Path) -> set[str]:
    """Return the names of all attributes that a file reads or writes."""
    return {node.attr for node in nodes(path) if isinstance(node, ast.Attribute)}


OTHERS = sorted(path for path in HOME.parent.rglob("*.py") if path != HOME)


def test_the_rest_of_the_package_takes_nothing_private_from_torch() -> None:
    assert {str(path): found for path in OTHERS if (found := list(parts_of_torch(path)))} == {}


def test_what_has_its_home_here_is_reached_into_nowhere_else() -> None:
    kept = {name for name in attributes(HOME) if private(name)}
    assert {"_cdata", "_forward_hooks", "_reversed_padding_repeated_twice"} <= kept
    assert not kept & EVERYBODYS
    kept |= {"kineto_results", "experimental_event_tree", "alloc_size"}
    for path in OTHERS:
        text = path.read_text()
        assert not (any(name in text for name in kept) and attributes(path) & kept), path


def test_a_dispatch_mode_sees_the_backward() -> None:
    class Seen(torch_private.DispatchMode):
        def __torch_dispatch__(
            self, func: object, types: object, args: object = (), kwargs: object = None
        ) -> object:
            names.append(str(func))
            return func(*args, **(kwargs or {}))

    names: list[str] = []
    w = torch.ones(2, requires_grad=True)
    with Seen():
        torch.mul(w, 3).sum().backward()
    assert names.count("aten.mul.Tensor") == 2


def test_operations_say_what_they_write_into() -> None:
    aten, a, b = torch.ops.aten, torch.ones(2, 2), torch.ones(2, 2)
    assert torch_private.written_arguments(aten.add_.Tensor, (a, b), {}) == [a]
    assert torch_private.written_arguments(aten.mm.out, (a, a), {"out": b}) == [b]
    assert torch_private.written_arguments(aten.mm.default, (a, b), {}) == []
    assert torch_private.arguments_of(aten.mm.out) == (["self: Tensor", "mat2: Tensor"], ["out"])


def test_the_profiler_tells_allocations_in_their_order() -> None:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        a = torch.zeros(1000)
        address = a.data_ptr()
        del a
    found = sorted(torch_private.allocations(profiler))
    assert [size for _, place, size in found if place == address] == [4000, -4000]


def event(tag: str, extra: object, children: tuple[object, ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(
        tag=SimpleNamespace(name=tag), extra_fields=extra, children=children, start_time_ns=1
    )


def profiler_of(*events: object) -> SimpleNamespace:
    return SimpleNamespace(
        profiler=SimpleNamespace(kineto_results=SimpleNamespace(experimental_event_tree=lambda: events))
    )


@pytest.mark.parametrize(
    ("profiler", "name"),
    [
        (SimpleNamespace(profiler=SimpleNamespace(kineto_results=None)), "experimental_event_tree"),
        (SimpleNamespace(profiler=SimpleNamespace()), "kineto_results"),
        (profiler_of(event("Allocation", SimpleNamespace(ptr=1, size=4))), "alloc_size"),
        (profiler_of(event("TorchOp", None, (SimpleNamespace(kind="Allocation"),))), "tag"),
    ],
)
def test_a_profiler_of_another_form_is_an_error_that_names_what_moved(profiler: object, name: str) -> None:
    with pytest.raises(
        TorchMovedError, match=rf"the profiler's events in another form .*{name}.*install torch 2\.13"
    ):
        list(torch_private.allocations(profiler))


@pytest.mark.parametrize("tag", ["Alloc", "OutOfMemory"])
def test_a_profiler_that_no_longer_tells_allocations_is_not_0_bytes(
    monkeypatch: pytest.MonkeyPatch, tag: str
) -> None:
    """As where torch gives the event another name: before, a peak of 0 bytes came out."""
    tree = profiler_of(event(tag, SimpleNamespace(ptr=1, size=4)))
    monkeypatch.setattr("fed_asi.memory.peak.allocations", lambda _profiler: real(tree))
    real = torch_private.allocations
    meter = StepMeter(torch.device("cpu"))
    with pytest.raises(TorchMovedError, match="the profiler's memory events"), meter:
        torch.zeros(1000)


def test_a_node_of_a_python_function_is_told_from_torchs_own() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(_ctx, x):
            return 2 * x

        @staticmethod
        def backward(_ctx, g):
            return 2 * g

    x = torch.ones(2, requires_grad=True)
    assert isinstance(Twice.apply(x).grad_fn, torch_private.PYTHON_NODE)
    assert not isinstance((2 * x).grad_fn, torch_private.PYTHON_NODE)


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.BatchNorm1d(2), torch_private.BATCH_NORM),
        (nn.SyncBatchNorm(2), torch_private.BATCH_NORM),
        (nn.Dropout2d(), torch_private.DROPOUT),
        (nn.AlphaDropout(), torch_private.DROPOUT),
        (nn.ConvTranspose2d(1, 1, 1), torch_private.ConvNd),
    ],
)
def test_families_of_layers_are_known_by_their_root(module: nn.Module, kind: type) -> None:
    assert isinstance(module, kind)


def test_storages_are_told_apart_also_where_they_have_no_address() -> None:
    x = torch.zeros(4, 4)
    key = torch_private.storage_id(x.untyped_storage())
    assert torch_private.storage_id(x[1:].untyped_storage()) == key
    assert torch_private.storage_id(x.clone().untyped_storage()) != key
    empty = [torch.empty(0), torch.empty(0)]
    assert len({torch_private.storage_id(one.untyped_storage()) for one in empty}) == 2


def test_changes_in_place_are_counted_also_those_of_views() -> None:
    x = torch.zeros(4)
    before = torch_private.changes_of(x)
    _ = x + 1
    assert torch_private.changes_of(x) == before
    x[1:].add_(1)
    assert torch_private.changes_of(x) == before + 1


def test_parts_of_a_sparse_tensor_are_its_own() -> None:
    indices, values = torch.tensor([[0, 0, 1]]), torch.ones(3)
    sparse = torch.sparse_coo_tensor(indices, values, (4,), check_invariants=True)  # not coalesced
    found = torch_private.sparse_parts(sparse)
    assert [torch_private.storage_id(part.untyped_storage()) for part in found] == [
        torch_private.storage_id(part.untyped_storage()) for part in (indices, values)
    ]


@pytest.mark.parametrize(
    ("padding", "kernel", "expected"),
    [("same", (4, 3), (1, 1, 1, 2)), ((1, 2), 3, (2, 2, 1, 1)), ("valid", 3, (0, 0, 0, 0))],
)
def test_paddings_are_amounts_for_torchs_pad(
    padding: object, kernel: object, expected: tuple[int, ...]
) -> None:
    assert torch_private.padding_amounts(nn.Conv2d(2, 2, kernel, padding=padding)) == expected


def test_a_backward_is_told_from_a_forward() -> None:
    seen: list[bool] = []

    class Looks(torch.autograd.Function):
        @staticmethod
        def forward(_ctx, x):
            seen.append(torch_private.backward_is_running())
            return x.clone()

        @staticmethod
        def backward(_ctx, g):
            seen.append(torch_private.backward_is_running())
            return g

    Looks.apply(torch.ones(1, requires_grad=True)).backward()
    assert seen == [False, True]
    assert not torch_private.backward_is_running()


def test_every_sort_of_hook_is_found() -> None:
    module = nn.Linear(1, 1)
    hooks = [lambda *_: None for _ in range(5)]
    assert not torch_private.has_hooks(module)
    module.register_forward_pre_hook(hooks[0])
    assert torch_private.has_hooks(module)
    assert torch_private.hooks_of(module, inputs_too=False) == []
    assert torch_private.hooks_of(module, inputs_too=True) == [hooks[0]]
    module.register_forward_hook(hooks[1])
    module.register_full_backward_hook(hooks[2])
    module.register_full_backward_pre_hook(hooks[3])
    assert torch_private.hooks_of(module, inputs_too=False) == hooks[1:4]
    assert torch_private.hooks_of(module, inputs_too=True) == [*hooks[1:4], hooks[0]]


def test_a_batch_norm_refuses_other_dimensions_in_torchs_words() -> None:
    torch_private.check_input_dim(nn.BatchNorm2d(2), torch.ones(1, 2, 3, 3))
    with pytest.raises(ValueError, match="expected 4D input"):
        torch_private.check_input_dim(nn.BatchNorm2d(2), torch.ones(1, 2))


def test_an_adaptive_pools_gradient_needs_no_values() -> None:
    x, grad = torch.randn(1, 2, 6, 6, requires_grad=True), torch.randn(1, 2, 3, 3)
    (expected,) = torch.autograd.grad(nn.functional.adaptive_avg_pool2d(x, 3), x, grad)
    stand_in = torch.empty(1).expand(x.shape)
    assert torch.equal(torch_private.adaptive_avg_pool2d_backward(grad, stand_in), expected)


@pytest.mark.filterwarnings("ignore")
def test_a_function_outside_graphs_is_called_as_it_is() -> None:
    seen: list[bool] = []

    def eager(x: Tensor) -> Tensor:
        seen.append(torch.compiler.is_compiling())
        return x + 1

    outside = torch_private.outside_graphs(eager)
    compiled = torch.compile(lambda x: outside(2 * x), backend="eager")
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 3.0))
    assert seen == [False]
