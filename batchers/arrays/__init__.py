"""Batch functions of arrays: rows are checked, stacked, padded and split again. Needs numpy (extra `arrays`).

    model = stacked(predict, rows((10,), "float32"))
    batcher = create_batcher("asyncio", model)

`predict` gets one array of shape (n, 10), and each caller its own row of what it returns. Items may be tensors of
torch, TensorFlow or JAX, too; none of these packages is imported here. This folder may import numpy and the top
level of `batchers`, but neither `core` nor `drivers`.
"""

from batchers.errors import RowError

try:
    import numpy as np  # noqa: F401 - to say which extra is missing
except ModuleNotFoundError as error:
    msg = "batchers.arrays needs numpy: install the extra `arrays`"
    raise ModuleNotFoundError(msg, name="numpy") from error

from .padding import Padding
from .rows import RowConverter, rows
from .stacked import Stacked, stacked

__all__ = ["Padding", "RowConverter", "RowError", "Stacked", "rows", "stacked"]
