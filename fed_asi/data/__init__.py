"""Images and labels by name, cut into shards, and the features of a frozen trunk."""

from __future__ import annotations

from fed_asi.data.sources import Dataset, Split, load, names

__all__ = ["Dataset", "Split", "load", "names"]
