"""Images and labels by name, cut into shards, and the features of a frozen trunk."""

from __future__ import annotations

from fed_asi.data import libraries as libraries
from fed_asi.data.dataset import Dataset, Split, from_arrays, from_samples, halves
from fed_asi.data.folders import class_folders as from_folders
from fed_asi.data.sources import from_npz, load, names, register

__all__ = [
    "Dataset",
    "Split",
    "from_arrays",
    "from_folders",
    "from_npz",
    "from_samples",
    "halves",
    "load",
    "names",
    "register",
]
