"""A notebook, as cells: jupytext --to notebook in_a_notebook.py, or copy them"""

# %%
import asyncio

from batchers import create_batcher


def squares(batch: list[int]) -> list[int]:
    print(f"a batch of {len(batch)}")
    return [number * number for number in batch]


batcher = create_batcher("asyncio", squares, max_batch_size=50)

# %% The loop of the notebook runs: await works in a cell, asyncio.run does not.
results = await asyncio.gather(*(batcher.process(number) for number in range(100)))  # noqa: F704, PLE1142

# %% A cell without await calls from the notebook's thread; call(item) would block the loop that has to answer.
futures = create_batcher("threading", squares).submit(3).result()

# %%
print(sum(results), futures)
await batcher.stop()  # noqa: F704, PLE1142
