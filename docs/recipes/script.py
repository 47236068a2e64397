"""A script: threads that share a model."""

from concurrent.futures import ThreadPoolExecutor

from batchers import create_batcher


def squares(batch: list[int]) -> list[int]:
    print(f"a batch of {len(batch)}")
    return [number * number for number in batch]


if __name__ == "__main__":
    with create_batcher("threading", squares, max_batch_size=50) as batcher, ThreadPoolExecutor(50) as pool:
        print(sum(pool.map(batcher.call, range(1000))))
