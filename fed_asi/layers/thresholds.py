"""Sizes at which another way to the same result becomes quicker.

`experiments/benchmarks/kernel_choices.py` measures both ways around each of them.
"""

from __future__ import annotations

from typing import Final

# A pointwise convolution as a matrix product: with more rows (pixels of all samples), oneDNN's kernel is as quick.
FEW_ROWS: Final = 1024

# dW of a pointwise layer as two thin matrices: with more columns, multiplying out costs more than it saves passes.
THIN: Final = 32

# dW of a depthwise convolution as matrix products: with fewer taps torch's own kernel is quicker, with more pairs of
# input and output pixels the products take as long. Up to so many samples, pairs are added up one sample at a time.
FEWEST_TAPS: Final = 16
MOST_PAIRS: Final = 1024
ADDED_SAMPLES: Final = 8

# Elements of a mask packed at once: with more, the temporary that packing needs is kept small, plane by plane.
AT_ONCE: Final = 1 << 16

# Elements of a product of two weights that fit a core's cache whole: larger ones are multiplied and summed in parts.
PRODUCTS_IN_CACHE: Final = 1 << 17
