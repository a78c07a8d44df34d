"""Data sets of Hugging Face by name, on a stand-in for its library: columns, splits and natural shards."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Pillow

from fed_asi import data
from fed_asi.data import shards
from fed_asi.data.libraries.hf import Asked
from fed_asi.errors import ConfigError, MissingDataError
from stand_ins import installed, without_a_hub


class Image:
    dtype = "PIL.Image.Image"


class ClassLabel:
    dtype = "int64"

    def __init__(self, names: list[str]) -> None:
        self.names = names


class Value:
    def __init__(self, dtype: str) -> None:
        self.dtype = dtype


class Part:
    """A split, as datasets has them: columns by name, rows by `select`, and what each column is of."""

    def __init__(self, features, **columns) -> None:
        self.features, self.columns = features, columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, column):
        return self.columns[column]

    def select(self, rows):
        return Part(self.features, **{name: [one[row] for row in rows] for name, one in self.columns.items()})


FEATURES = {
    "img": Image(),
    "label": ClassLabel(["cat", "dog"]),
    "writer": Value("string"),
    "hour": Value("int32"),
    "width": Value("float32"),
}


def part(samples: int, features=FEATURES, mode="RGB", sizes=(8,)) -> Part:
    images = [Pillow.new(mode, (sizes[row % len(sizes)], 8), row) for row in range(samples)]
    columns = {
        "img": images,
        "label": [row % 2 for row in range(samples)],
        "writer": [None if row == 5 else f"w{row % 3}" for row in range(samples)],
        "hour": list(range(samples)),
        "width": [0.5] * samples,
    }
    return Part(features, **columns)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """What the hub has, by name, and what it was asked."""
    made = SimpleNamespace(sets={}, asked=[])
    constants = without_a_hub(monkeypatch)

    def load_dataset(name, config=None, *, revision=None, cache_dir=None):
        made.asked.append((name, config, revision, cache_dir, constants.HF_HUB_OFFLINE))
        return made.sets[name]

    def load_from_disk(name):
        return made.sets["disk"]

    installed(
        monkeypatch,
        tmp_path / "site",
        "datasets",
        "4.8.5",
        load_dataset=load_dataset,
        load_from_disk=load_from_disk,
    )
    made.constants = constants
    return made


def test_columns_are_found_by_what_they_are_of(hub):
    hub.sets["me/cats"] = {"train": part(12), "test": part(4)}
    found = data.load("hf@4.8.5:me/cats")
    assert found.name == "me/cats"
    assert (found.x_train.shape, found.x_test.shape) == ((12, 8, 8, 3), (4, 8, 8, 3))
    assert found.class_names == ("cat", "dog")
    assert list(found.y_test) == [0, 1, 0, 1]
    assert hub.asked == [("me/cats", None, None, None, True)]  # nothing answers: its cache alone is asked
    assert hub.constants.HF_HUB_OFFLINE is False


def test_further_columns_of_text_and_whole_numbers_come_along(hub):
    hub.sets["me/cats"] = {"train": part(12), "test": part(4)}
    columns = data.load("hf:me/cats").columns
    assert columns.keys() == {"writer", "hour"}
    assert list(columns["writer"][:6]) == ["w0", "w1", "w2", "w0", "w1", ""]
    assert list(columns["hour"]) == list(range(12))


def test_a_writers_images_are_on_one_device(hub):
    whole = part(30)
    whole.columns["writer"] = [f"w{row * 7 % 5}" for row in range(30)]
    hub.sets["me/letters"] = {"train": whole, "test": part(4)}
    found = data.load("hf:me/letters")
    natural = shards.make(found.y_train, 5, shards.ByColumn("writer"), 0, found.columns)
    for device, shard in enumerate(natural):
        assert set(found.columns["writer"][shard]) == {f"w{device}"}


def test_what_is_named_is_taken(hub):
    features = {"picture": Image(), "depth": Image(), "kind": Value("string")}
    pictures = [Pillow.new("L", (8, 8), row) for row in range(4)]
    whole = Part(features, picture=pictures, depth=pictures[::-1], kind=["b", "a", "c", "a"])
    hub.sets["me/rooms"] = {"all": whole, "dev": whole}
    name = "hf:me/rooms?image=depth&label=kind&train=all&test=dev&config=small&revision=abc"
    found = data.load(name)
    assert hub.asked[0][:3] == ("me/rooms", "small", "abc")
    assert found.class_names == ("a", "b", "c")
    assert list(found.y_train) == [1, 0, 2, 0]
    assert found.x_train[0, 0, 0].tolist() == [3, 3, 3]  # grey, in three channels


def test_a_share_is_held_back_where_there_is_no_part_to_judge(hub):
    hub.sets["me/cats"] = {"train": part(20)}
    found, again = data.load("hf:me/cats?test=0.2"), data.load("hf:me/cats?test=0.2")
    assert (len(found.y_train), len(found.y_test)) == (16, 4)
    both = [*found.x_train[:, 0, 0, 0], *found.x_test[:, 0, 0, 0]]
    assert sorted(both) == list(range(20))
    assert found.fingerprint == again.fingerprint


def test_images_of_several_sizes_become_squares(hub):
    hub.sets["me/cats"] = {"train": part(6), "validation": part(4, sizes=(8, 12))}
    found = data.load("hf:me/cats", size=16)
    assert (found.x_train.shape, found.x_test.shape) == ((6, 16, 16, 3), (4, 16, 16, 3))
    assert list(found.x_train[:, 3, 3, 0]) == list(range(6))


def test_a_folder_of_its_name_is_read_before_the_hub(hub, tmp_path):
    folder = tmp_path / "data"
    (folder / "me" / "cats").mkdir(parents=True)
    whole = {"train": part(12), "test": part(4)}
    hub.sets[str(folder / "me" / "cats")] = hub.sets["disk"] = whole
    assert len(data.load("hf:me/cats", folder).y_train) == 12
    assert hub.asked == [(str(folder / "me" / "cats"), None, None, None, False)]
    (folder / "me" / "cats" / "dataset_dict.json").write_text("{}")
    assert len(data.load("hf:me/cats", folder).y_train) == 12
    assert len(hub.asked) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "hf:me/gone",
            "hf:me/gone is not here and cannot be downloaded, or not read (KeyError: 'me/gone'): connect",
        ),
        (
            "hf:me/one",
            "has no split 'test' (there: train): name one, hf:me/one?test=NAME, or hold a share back",
        ),
        ("hf:me/cats?test=tset", "hf:me/cats has no split 'tset' (there: train, test)"),
        ("hf:me/cats?train=tran", "hf:me/cats has no split 'tran'; did you mean train?"),
        (
            "hf:me/cats?label=lable",
            "hf:me/cats has no column 'lable'; name one of label: hf:me/cats?label=COLUMN",
        ),
        (
            "hf:me/two",
            "hf:me/two has 2 columns of kind ClassLabel; name one of fine, coarse: hf:me/two?label=COLUMN",
        ),
        ("hf:me/none", "hf:me/none has 0 columns of kind Image; name one of text: hf:me/none?image=COLUMN"),
    ],
)
def test_what_cannot_be_found_is_one_line_that_says_what_to_write(hub, name, said):
    classes = ClassLabel(["cat", "dog"])
    two = Part({"img": Image(), "fine": classes, "coarse": classes}, img=[], fine=[], coarse=[])
    none = Part({"text": Value("string")}, text=["a"])
    hub.sets |= {
        "me/one": {"train": part(4)},
        "me/cats": {"train": part(4), "test": part(4)},
        "me/two": {"train": two, "test": two},
        "me/none": {"train": none, "test": none},
    }
    with pytest.raises(MissingDataError) as caught:
        data.load(name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_said_of_nothing_is_refused(hub):
    with pytest.raises(ConfigError, match=r"unknown 'lable' in hf:me/cats\?lable=x; did you mean label\?"):
        data.sources.find("hf:me/cats?lable=x")
    with pytest.raises(ConfigError, match="has characters that are not allowed in a name"):
        data.sources.find("hf:me/c\nats")
    with pytest.raises(ConfigError, match="hf: needs the name of a data set"):
        data.sources.find("hf:")
    assert [Asked("a", test=test).share for test in (None, "test", "0.1", "1", "0", "nan")] == [
        None, None, 0.1, None, None, None,
    ]  # fmt: skip


def test_columns_of_another_length_are_refused():
    images, labels = np.zeros((4, 8, 8, 3), dtype=np.uint8), np.arange(4) % 2
    with pytest.raises(
        MissingDataError, match=r"column 'writer' is \(3,\), expected one value for each of 4"
    ):
        data.Dataset("mine", images, labels, images, labels, ("a", "b"), "", {"writer": np.arange(3)})
