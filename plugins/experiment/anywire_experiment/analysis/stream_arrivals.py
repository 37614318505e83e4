"""How the pieces of streams arrived: between which tokens there is a time, and what it is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anywire_experiment.analysis.sample_rows import Floats, column

FEWEST_TOKENS = 3
"""Tokens of a stream from which on it can be told whether they came one after the other."""
MOMENT_NS = 50_000
"""Pieces that are less apart came at one moment: no engine takes less for a token."""


class Streams(NamedTuple):
    """How streams arrived, an entry each: tokens, pieces, the moments at which these came, and whether it was a burst:
    at fewer moments than half of its pieces, or faster than a token in 0.05 ms."""

    tokens: NDArray[np.int64]
    pieces: NDArray[np.int64]
    moments: NDArray[np.int64]
    burst: NDArray[np.bool_]


def streams_of(whole: pa.Table) -> Streams:
    """Of each stream in the rows of whole answers, of three tokens or more, how it arrived."""
    pieces = whole["piece_ns"].combine_chunks()
    at, offsets = pieces.values.to_numpy(), pieces.offsets.to_numpy()
    counts = np.diff(offsets)
    tokens = np.maximum(counts, column(whole, "tokens"))
    chosen = (counts > 0) & (tokens >= FEWEST_TOKENS)
    begins = np.diff(at, prepend=0) >= MOMENT_NS
    begins[offsets[:-1][counts > 0]] = True
    moments = np.diff(np.concatenate([[0], np.cumsum(begins)])[offsets])[chosen]
    span = at[offsets[1:][chosen] - 1] - at[offsets[:-1][chosen]]
    tokens, counts = tokens[chosen], counts[chosen]
    together = (counts >= FEWEST_TOKENS) & (2 * moments < counts)
    return Streams(tokens, counts, moments, together | (span < MOMENT_NS * (tokens - 1)))


def per_token_ms(whole: pa.Table) -> Floats:
    """Of each stream, the mean time between its tokens. Not the single gaps, which are zero where several came in
    one piece; and per token, for how many come in one is up to the transport."""
    pieces = whole["piece_ns"].combine_chunks()
    at, offsets = pieces.values.to_numpy(), pieces.offsets.to_numpy()
    counts = np.diff(offsets)
    several = counts > 1
    span = at[offsets[1:][several] - 1] - at[offsets[:-1][several]]
    tokens = np.maximum(counts, column(whole, "tokens"))[several]
    return np.asarray(span / (tokens - 1) / 1e6, dtype=np.float64)
