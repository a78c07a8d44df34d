"""Families: variants that differ in one size only are one line."""

from __future__ import annotations

from fed_asi.studies.families import families, text


def told(settings):
    return {one.label: [step.label for step in one.steps] for one in families(settings)}


def grid(**keys):
    """The variants of a grid of two keys, named by their values."""
    (a, firsts), (b, seconds) = keys.items()
    return {f"{x} {y}": {a: x, b: y} for x in firsts for y in seconds}


def test_a_size_makes_the_steps_and_the_rest_the_lines():
    settings = grid(method=["asi", "head"], budget=["unlimited", "1 MiB", "64 KiB", 8192])
    assert told(settings) == {
        "asi": ["8192", "64 KiB", "1 MiB", "unlimited"],
        "head": ["8192", "64 KiB", "1 MiB", "unlimited"],
    }
    (asi, _) = families(settings)
    assert [step.variant for step in asi.steps] == ["asi 8192", "asi 64 KiB", "asi 1 MiB", "asi unlimited"]


def test_of_two_sizes_the_one_with_more_values_makes_the_steps():
    settings = grid(layers=[2, 4], budget=["8 KiB", "16 KiB", "64 KiB"])
    assert told(settings) == {
        "layers 2": ["8 KiB", "16 KiB", "64 KiB"],
        "layers 4": ["8 KiB", "16 KiB", "64 KiB"],
    }
    assert told(grid(warm=[True, False], alpha=[1.0, 0.1])) == {
        "warm true": ["0.1", "1.0"],
        "warm false": ["0.1", "1.0"],
    }


def test_bytes_that_follow_from_the_size_are_on_one_line_with_it():
    devices = [("256 KiB", "1 MiB"), ("320 KiB", "1 MiB"), ("1 MiB", "4 MiB")]
    settings = {
        f"{name} {ram}": {"variant": name, "ram": ram, "flash": flash}
        for name in ("a", "b")
        for ram, flash in devices
    }
    assert told(settings) == {name: [ram for ram, _ in devices] for name in "ab"}
    more = {**settings, "a, more flash": {"variant": "a", "ram": "256 KiB", "flash": "4 MiB"}}
    assert len(told(more)) > 2  # flash does not follow from RAM here


def test_without_a_size_every_variant_is_alone():
    settings = {"a": {"method": "asi"}, "b": {"method": "head"}, "c": {}}
    assert told(settings) == {"a": ["a"], "b": ["b"], "c": ["c"]}
    assert told({}) == {}
    assert told({"one": {"budget": "4 KiB"}}) == {"one": ["one"]}


def test_a_variant_beside_the_grid_is_alone_under_its_own_name():
    settings = {**grid(method=["asi"], budget=["8 KiB", "4 KiB"]), "head": {"method": "head"}}
    assert told(settings) == {"asi": ["4 KiB", "8 KiB"], "head": ["head"]}


def test_a_single_ladder_is_called_by_its_key():
    assert told({"x": {"budget": 2}, "y": {"budget": 1}}) == {"budget": ["1", "2"]}


def test_no_two_lines_have_one_label():
    settings = {
        f"{odd} {size}": {"odd": odd, "size": size} for odd in ("1", 1) for size in (1, 2, 3)
    }  # "1" and 1 are told apart, and read alike
    settings["x"] = {"odd": "odd 1", "size": 1}
    settings["y"] = {"odd": "odd 1", "size": 2}
    labels = [one.label for one in families(settings)]
    assert len(set(labels)) == len(labels)


def test_settings_read_as_in_the_file():
    assert [text(one) for one in (True, None, 0.5, 3, "x y")] == ["true", "", "0.5", "3", "x y"]
