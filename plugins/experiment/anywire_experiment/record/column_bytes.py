"""Whole numbers as bytes of equal weight, packed by LZMA, and back."""

from __future__ import annotations

import lzma
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from anywire_experiment.record.column_form import Ints

_PRESET = 9 | lzma.PRESET_EXTREME
_DICTIONARY = 1 << 26
"""Bytes that LZMA looks back at most: more memory is not needed to unpack a stream."""


def packed_stream(stream: NDArray[np.generic]) -> bytes:
    """Packed by LZMA, without a head of its own."""
    # To make a large table for a short stream takes longer than to pack it.
    filters = _filters(min(_DICTIONARY, max(4096, stream.nbytes)))
    return lzma.compress(stream.tobytes(), lzma.FORMAT_RAW, filters=filters)


def streams_of(sizes: Sequence[int], data: bytes, most_bytes: int) -> Iterator[bytes]:
    """The streams that are packed one after the other in ``data``. Raises ValueError for what is none, or is more than
    ``most_bytes`` when unpacked."""
    start, left = 0, most_bytes
    for size in sizes:
        packer = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_filters(_DICTIONARY))
        try:
            stream = packer.decompress(data[start : start + size], max_length=left + 1)
        except lzma.LZMAError as error:
            raise ValueError(f"a stream of its tables cannot be unpacked: {error}") from error
        start, left = start + size, left - len(stream)
        if left < 0:
            raise ValueError(f"its tables have more than {most_bytes} bytes")
        yield stream


def planes_of(numbers: Ints) -> NDArray[np.uint8]:
    """How many bytes each has, then the lowest byte of each, then the next."""
    folded = ((numbers << 1) ^ (numbers >> 63)).view(np.uint64)
    wide = max(1, (int(folded.max()).bit_length() + 7) // 8) if folded.size else 1
    planes = np.ascontiguousarray(folded.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :wide].T)
    return np.concatenate([np.array([wide], np.uint8), planes.ravel()])


def numbers_of(stream: NDArray[np.uint8], most_bytes: int) -> Ints:
    """What `planes_of` was given. Raises ValueError for bytes that are no numbers, or too many."""
    wide = int(stream[0]) if stream.size else 0
    if not 1 <= wide <= 8 or (stream.size - 1) % wide:
        raise ValueError("a stream of its tables holds no numbers")
    if (stream.size - 1) // wide * 8 > most_bytes:
        raise ValueError(f"the numbers of a stream of its tables have more than {most_bytes} bytes")
    planes = stream[1:].reshape(wide, -1)
    whole = np.zeros((planes.shape[1], 8), np.uint8)
    whole[:, :wide] = planes.T
    folded = whole.view("<u8").ravel().astype(np.uint64)
    return ((folded >> np.uint64(1)).view(np.int64)) ^ -(folded & np.uint64(1)).view(np.int64)


def _filters(dictionary: int) -> list[dict[str, int]]:
    return [{"id": lzma.FILTER_LZMA2, "preset": _PRESET, "dict_size": dictionary, "lc": 4, "lp": 0, "pb": 0}]
