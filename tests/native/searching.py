"""Random codes, lists and pools, and what searching makes of them; without other test modules."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native


def random_codes(
    rng: np.random.Generator, rows: int, width: int, values: list[int] | None = None
) -> native.Codes:
    """Codes of any int8, or of some values only, with small biases."""
    if values is None:
        codes = rng.integers(-128, 128, (rows, width), dtype=np.int8)
    else:
        codes = rng.choice(np.array(values, np.int8), (rows, width))
    return native.Codes(codes, rng.integers(-9, 10, rows, dtype=np.int32))


def random_pools(rng: np.random.Generator, rows: int, width: int, scores: int = 4) -> native.Pools:
    """Pools best first, some with room left, some of whose entries have equal scores."""
    pools = native.Pools(
        np.full((rows, width), -1, np.int32),
        np.full((rows, width), np.iinfo(np.int32).min, np.int32),
    )
    for row in range(rows):
        count = min(rows, width if rng.random() < 0.5 else int(rng.integers(0, width + 1)))
        numbers = rng.choice(rows, count, replace=False)
        found = rng.integers(-scores, scores + 1, count)
        order = np.lexsort((numbers, -found))
        pools.entries[row, :count] = 2 * numbers[order] + rng.integers(0, 2, count)
        pools.scores[row, :count] = found[order]
    return pools


def random_encoder(
    rng: np.random.Generator, dimension: int, scale: float = 200.0, mean_length: float = 0.5
) -> native.Encoder:
    mean = rng.normal(size=dimension)
    mean *= mean_length / np.linalg.norm(mean)
    signs = rng.choice(np.array([-1, 1], np.float32), native.code_width(dimension))
    return native.Encoder(mean.astype(np.float32), signs, scale)


def search_results() -> Iterator[NDArray[Any]]:
    """Every function that searches, once with many rows and with few."""
    rng = np.random.default_rng(3)
    for rows, dimension, n_queries in ((3000, 100, 600), (1500, 64, 17_000), (40, 300, 3)):
        vectors = rng.normal(size=(rows, dimension)).astype(np.float32)
        codes, inverse_lengths = native.encode(random_encoder(rng, dimension), vectors)
        yield from (*codes, inverse_lengths)
        near = random_encoder(rng, dimension, 20.0)._replace(euclidean=True)
        yield from native.encode(near, vectors)[0]
        chosen = np.arange(n_queries) % rows
        # Large codes and small ones, too, and -128.
        values = rng.integers(-128, 128, codes.values.shape, dtype=np.int8)
        values[: rows // 2] = codes.values[: rows // 2]
        codes = native.Codes(values, codes.biases)
        offsets = np.concatenate([[0], np.sort(rng.integers(0, rows, 19)), [rows]])
        members = rng.permutation(rows).astype(np.int32)
        probes = rng.permuted(np.tile(np.arange(-2, 20, dtype=np.int32), (n_queries, 1)), axis=1)
        probes = np.maximum(probes[:, :7], -1).astype(np.int32)
        for lists in (native.Lists(offsets), native.Lists(offsets, members)):
            found = native.search_lists(codes, lists, values[chosen], probes, 12)
            yield from found
        floors = np.ascontiguousarray(found[1][:, 5])
        yield from native.search_lists(codes, lists, values[chosen], probes, 12, floors)
        limits = rng.integers(-1, rows // 10, probes.shape, dtype=np.int32)
        # Where codes are 64 wide, without a prefix.
        for share in (0.3, 0.6, 1.0):
            prefix = native.Prefix(codes.biases[chosen], share)
            yield from native.search_lists(
                codes, lists, values[chosen], probes, 12, floors, prefix, limits
            )
        prefix = native.Prefix(codes.biases[chosen], 0.6, 2)
        yield from native.search_lists(codes, lists, values[chosen], probes, 12, prefix=prefix)
        centroids = codes.part(offsets[:-1] % rows)
        some = codes.part(chosen)
        bounds = rng.integers(-(10**5), 10**5, n_queries, dtype=np.int32)
        for shares in ((0.3, 1.0), (1.0, 0.6)):
            yield from native.search_lists_in_reach(
                codes, offsets, centroids, some, bounds, floors, 12, shares
            )
            yield from native.search_points_in_reach(
                some, centroids, offsets, codes, bounds[np.arange(rows) % n_queries],
                floors[np.arange(rows) % n_queries], 12, shares,
            )  # fmt: skip
        yield native.take_vectors(vectors, inverse_lengths, members[::3].copy())
        queries = (vectors * inverse_lengths[:, None])[chosen]
        yield from native.rank_candidates(vectors, inverse_lengths, queries, found[0], 8)
        yield from native.rank_candidates(vectors, None, queries, found[0], 8)
        parts = native.VectorParts([queries[:7], queries[7:]])
        numbers = rng.permutation(len(queries)).astype(np.int32)
        among_queries = np.where(found[0] < len(queries), found[0], np.int32(-1))
        yield from native.rank_candidates(
            parts, None, queries, among_queries, 8, numbers=numbers, normalized=True
        )
        copies = np.empty((rows, dimension), np.float32)
        places = np.argsort(members)
        native.copy_rows(vectors, inverse_lengths, members, places, copies)
        factors = rng.integers(0, 2**64, dimension, np.uint64, endpoint=False)
        yield from (copies, native.checksum_rows(vectors, factors))
        yield native.checksum_rows(vectors, factors, euclidean=True)
        pools = random_pools(rng, rows, 12)
        sampled = native.sample_links(pools, 5, 6, 0, rows)
        yield from (sampled, *native.join_neighbors(codes, pools, sampled, 0, rows))


def digests(results: Iterator[NDArray[Any]]) -> list[str]:
    return [hashlib.sha256(array.tobytes()).hexdigest() for array in results]
