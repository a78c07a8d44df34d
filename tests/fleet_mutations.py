"""Fleet files, CSVs and data sets with mistakes, drawn by hypothesis.

The draws are what a careless or a careful user could write; tests/fleets/test_mutated_files.py says what must happen.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from fleet_file import Raw, toml

Draw = Callable[[st.SearchStrategy[Any]], Any]

BASE: dict[str, Any] = {
    "name": "mutated",
    "seed": 1,
    "rounds": 1,
    "cohort": 2,
    "budgets_csv": "own.csv",
    "model": {"name": "tiny", "weights": "none", "resolution": 8},
    "data": {
        "source": "mine.npz",
        "public": 8,
        "limit": 24,
        "validation": 0,
        "test_limit": 8,
        "holdout": 0.2,
    },
    "sharding": {"scheme": "iid", "alpha": 0.5, "minimum": 2},
    "method": {"name": "vanilla", "layers": 1, "calibration_images": 8},
    "train": {"epochs": 1, "lr": 0.05},
    "pretrain": {"epochs": 1, "batch_size": 4},
    "compute": {"threads": 1},
    "groups": [{"name": "a", "count": 3, "budget": "1 MiB", "batch_size": 4, "micro_batch": 2}],
    "devices": [{"partition_id": 1, "budget": "unlimited"}],
    "budgets": {"2": "2 MiB"},
}
CSV = "partition_id,budget\n# one more\n0,512 KiB\n"
ENDLESS = {"rounds", "epochs", "threads", "resolution", "count", "workers"}  # what one may ask for, and wait
HUGE = Raw("9" * 5000)
WORDS = [
    *(
        "",
        " ",
        "x",
        "all",
        "any",
        "off",
        "none",
        "public",
        "imagenet",
        "unlimited",
        "0",
        "-1",
        "64 KiB",
        "1 B",
    ),
    *("9" * 400 + " GiB", "a\nb", "[/edge]", r"$\frac{$", "\0", "asi", "planner", "head", "digits", "folder"),
    *(
        "mcunet",
        "tinny",
        "mine",
        "mine.npz",
        "none.npz",
        "own.csv",
        "../mine",
        "classes",
        "dirichlet",
        "device",
    ),
    *("federated", "server", "lower-ranks", "smaller-micro-batch", "float16", "loop", "published", "é" * 300),
]
NUMBERS = [
    *(0, -1, 1, 2, 3, 5, 16, 64, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, True, False, HUGE),
    *(0.0, -0.5, 0.5, 1.0, 1.5, 1e-300, 1e38, 1e308, float("inf"), float("nan")),
]
OTHERS = [
    *(
        [],
        [1],
        [""],
        ["nope"],
        ["pool"],
        ["blocks.2"],
        ["classifier", "blocks"],
        ["blocks.2.depth_conv.bn"],
        {},
    ),
    *({"x": 1}, [{}], [{"round": 1, "budget": 1}], {"0": "1 KiB"}, {"1_0": 5, "x": 3}, Raw("[" * 2000)),
    *([{"name": "b", "count": 1, "budget": 4096}] * 2, [{"partition_id": 0, "budget": 9000}] * 2),
]
VALUES = st.sampled_from([*WORDS, *NUMBERS, *OTHERS])
KEYS = [
    *(
        "version",
        "centered",
        "objective",
        "covers",
        "over_budget",
        "calibration",
        "calibration_devices",
        "methods",
    ),
    *(
        "selection",
        "epsilon",
        "patch",
        "balanced",
        "classes_per_device",
        "momentum",
        "weight_decay",
        "clip_norm",
    ),
    *(
        "update",
        "min_fidelity",
        "weights",
        "schedule",
        "features",
        "features_limit",
        "deadline_seconds",
        "workers",
    ),
    *("lr_schedule", "final_lr_ratio", "side_by_side", "gradients_at", "batch_size", "micro_batch", "colour"),
]


PLAUSIBLE: dict[str, dict[str, list[Any]]] = {
    "": {"cohort": [1, 2, 3, 4], "seed": [0, 2**63 - 1, 2**63], "rounds": [2, 3]},
    "model": {
        "name": ["tiny", "mcunet", "squeezenet1_1", "shufflenet_v2_x0_5", "tinny"],
        "weights": ["public", "none", "imagenet", "imagnet", "own.csv", "mine.npz"],
        "resolution": [8, 9, 16, 30, 32],
    },
    "data": {
        "source": ["mine", "./mine.npz", "none.npz", "digits", "folder", "cifar10"],
        "public": [0, 1, 2, 5, 16, 37, 38, 39, 40, 41],
        "limit": [1, 2, 3, 5, 32, 2**40],
        "validation": [0, 1, 5, 28, 29, 32, 40],
        "test_limit": [1, 9, 2**40],
        "holdout": [0.0, 0.5, 0.999],
    },
    "sharding": {
        "scheme": ["iid", "dirichlet", "classes"],
        "alpha": [1e-300, 1e-3, 1e300],
        "minimum": [1, 5, 8, 9, 100],
        "classes_per_device": [1, 2, 3, 4],
        "balanced": [True, False],
    },
    "method": {
        "name": [
            *("asi", "asi-published", "vanilla", "bias", "quantized", "head", "hosvd", "fixed-subspace"),
            *("gradient-filter", "checkpointing", "planner"),
        ],
        "methods": [["asi"], ["mean"], ["bias", "vanilla"], ["quantized"], []],
        "layers": [
            *(2, 9, 10, 999, "all", "any", ["classifier"], ["blocks.2"], ["blocks"], ["pool"], ["nope"]),
            *(
                ["blocks.2.depth_conv.conv", "blocks.1"],
                ["blocks.2.depth_conv.bn"],
                ["first_conv.conv.weight"],
            ),
        ],
        "calibration": ["server", "device", "federated"],
        "calibration_images": [1, 2, 3, 100],
        "calibration_devices": [1, 2, 3, 100],
        "selection": ["published", "exact"],
        "centered": [True, False],
        "objective": ["captured", "perplexity", "relative-error"],
        "covers": ["saved", "published", "training"],
        "over_budget": ["exclude", "fewer-layers", "smaller-micro-batch", "lower-ranks"],
        "epsilon": [1e-9, 0.5, 1.0],
        "patch": [1, 2, 3, 100],
    },
    "train": {
        "epochs": [2],
        "lr": [1e-30, 1.0, 1e6, 1e12, 1e300],
        "momentum": [0.9, 0.999999],
        "weight_decay": [0, 1e12, 1e300],
        "clip_norm": ["off", 1e-300, 1e300],
        "lr_schedule": ["constant"],
        "final_lr_ratio": [1.0, 1e-300],
        "update": ["micro-batch", "step"],
    },
    "pretrain": {
        "epochs": [2],
        "head_epochs": [1],
        "lr": [1e-9, 1.0, 1e12],
        "momentum": [0.0, 0.99],
        "batch_size": [1, 2, 3, 7, 8, 9],
    },
    "aggregate": {"weights": ["captured", "examples"], "min_fidelity": [0.5, 1.0]},
    "compute": {
        "threads": [1, 2],
        "features": ["off", "float16", "float32"],
        "features_limit": [1, 4096, "1 MiB"],
        "side_by_side": [True, False],
        "gradients_at": ["batch", "micro-batch", 4],
        "deadline_seconds": [1e-9, 1e9],
    },
    "storage": {"trained": ["float16", "float32"], "trunk_by": ["layer", "channel"]},
    "groups": {
        "count": [1, 2, 8, 12, 13, 24, 25, 2**40],
        "budget": [1, 100, "2 KiB", "8 KiB", "64 KiB", "unlimited", 2**63 - 1, 2**63],
        "batch_size": [1, 3, 64, 2**62],
        "micro_batch": [1, 3, 4, 8, 9, 16],
        "schedule": [[{"round": 1, "budget": 9000}], [{"round": 2, "budget": 1}]],
    },
}
PLAUSIBLE["devices"] = {**PLAUSIBLE["groups"], "partition_id": [0, 2, 3, 25]}


def mutate_value_(draw: Draw, raw: dict[str, Any], *, plausible: bool) -> None:
    """Change, add or leave out a key of some table; a plausible value is of the right type."""
    where = draw(st.sampled_from([*PLAUSIBLE, "method", "method"] if plausible else [*PLAUSIBLE, "budgets"]))
    table = raw if where == "" else raw.setdefault(where, {})
    table = draw(st.sampled_from(table)) if isinstance(table, list) and table else table
    if not isinstance(table, dict):
        return
    if plausible:
        key = draw(st.sampled_from([one for one in PLAUSIBLE[where] if one != "count" or where == "groups"]))
        table[key] = draw(st.sampled_from(PLAUSIBLE[where][key]))
        return
    key = draw(st.sampled_from([*table, *PLAUSIBLE.get(where, ()), *KEYS]))
    if draw(st.integers(0, 7)) == 0:
        table.pop(key, None)
    else:
        value = draw(VALUES)
        endless = key in ENDLESS and isinstance(value, int) and 5 < value < 2**63
        table[key] = 5 if endless else value


LETTERS = st.sampled_from([*"=,;.[]{}\"'#-0O9\n\r\t \0²é", "\ufeff", "\u2028", "\x85"])


def mutated_text(draw: Draw, text: str) -> str:
    """Return text with a few letters lost, doubled or new."""
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        middle = draw(st.sampled_from(["", text[start:end] * 2]) | LETTERS)
        text = text[:start] + middle + text[end:]
    return text


LINES = [
    *(
        "O,64 KiB",
        "-1,64 KiB",
        "0;64 KiB",
        "1",
        "1,2,3",
        "id,budget",
        "l,unlimitd",
        "partition_id,budget",
        "²,5",
    ),
    *(
        "9" * 5000 + ",1",
        "1," + "x" * 200_000,
        "1," + "9" * 5000,
        '1,"2',
        "99,1 KiB",
        "2,1 KiB",
        "0,unlimited",
        '"1","2"',
    ),
]


def mutated_csv(draw: Draw) -> str:
    lines = CSV.split("\n")
    for line in draw(st.lists(st.sampled_from(LINES), max_size=2)):
        lines.insert(draw(st.integers(0, len(lines))), line)
    return mutated_text(draw, "\n".join(lines))


def images(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *(shape or (8, 8, 3))), dtype=np.uint8)


def arrays() -> dict[str, Any]:
    labels = np.arange(40) % 3
    return {"x_train": images(40), "y_train": labels, "x_test": images(9), "y_test": labels[:9]}


X = [
    *(images(40).astype(t) for t in (np.float32, np.int64, bool, complex, object, "U3", np.int8, ">u2")),
    *(
        images(0),
        images(1),
        images(39),
        images(40, 8, 8),
        images(40, 8, 8, 1),
        images(40, 3, 8, 8),
        images(40, 0, 8, 3),
    ),
    *(
        images(40, 5, 9, 3),
        images(40, 1, 1, 3),
        images(40)[::-1],
        np.asfortranarray(images(40)),
        np.uint8(3),
        None,
    ),
]
Y = [
    *(
        (np.arange(40) % 3).astype(t)
        for t in (np.float32, np.uint8, np.uint64, bool, complex, object, "U3", ">i2")
    ),
    *(
        np.zeros(0, int),
        np.zeros(1, int),
        np.zeros(40, int),
        np.arange(40),
        np.arange(40) - 1,
        np.arange(40)[:, None],
    ),
    *(np.full(40, 2**62), np.full(40, 10**6), np.full(40, np.nan), np.array("cat"), np.int64(3), None),
]
NAMES = [
    *(
        np.array(["a", "b", "c"]),
        np.array(["a"]),
        np.array([]),
        np.array("a"),
        np.array([b"x"] * 40),
        np.arange(10**6),
    ),
]


def write_data_(draw: Draw, path: Path) -> None:
    """Write the data set, one or two of its arrays another, or a file that is none."""
    found = arrays()
    for _ in range(draw(st.integers(0, 2))):
        key = draw(st.sampled_from(["x_train", "y_train", "x_test", "y_test", "class_names"]))
        found[key] = draw(st.sampled_from(X if key[0] == "x" else Y if key[0] == "y" else NAMES))
        if (
            key.endswith("_test")
            and isinstance(found[key], np.ndarray)
            and found[key].ndim
            and draw(st.booleans())
        ):
            found[key] = found[key][:9]
    given = {key: value for key, value in found.items() if value is not None}
    how = draw(st.sampled_from(["npz"] * 6 + ["npy", "cut", "flip", "none", "empty", "folder"]))
    if how == "folder":
        path.mkdir()
    elif how == "npy":
        with path.open("wb") as file:
            np.save(file, images(3))
    elif how != "none":
        np.savez(path, **given)
        content = bytearray(path.read_bytes())
        at = draw(st.integers(0, len(content) - 1))
        if how == "flip":
            content[at] ^= 1 << draw(st.integers(0, 7))
        path.write_bytes(content[:at] if how == "cut" else b"" if how == "empty" else content)


def write_case_(draw: Draw, folder: Path, *, own_networks: bool = False) -> None:
    """Write a fleet file, its CSV and its data set, with a mistake or two in some of them.

    own_networks: leave [model] as it is, so that torchvision, seconds to import, is not asked for names.
    """
    raw = copy.deepcopy(BASE)
    which = draw(st.sampled_from(["plausible"] * 4 + ["values", "text", "csv", "data", "all"]))
    if which == "plausible":
        for _ in range(draw(st.integers(1, 5))):
            mutate_value_(draw, raw, plausible=True)
    if which in {"values", "all"}:
        mutate_value_(draw, raw, plausible=False)
    if own_networks:
        raw["model"] = BASE["model"]
    text = "\n".join(f"{toml(key)} = {toml(value)}" for key, value in raw.items())
    csv = mutated_csv(draw) if which in {"csv", "all"} else CSV
    text = mutated_text(draw, text) if which in {"text", "all"} else text
    (folder / "fleet.toml").write_text(text, encoding="utf-8")
    (folder / "own.csv").write_text(csv, encoding="utf-8")
    if which in {"data", "all"}:
        write_data_(draw, folder / "mine.npz")
    else:
        np.savez(folder / "mine.npz", **arrays())
