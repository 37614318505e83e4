"""Headers of model files: what they say, what a file without its end or with lies does, and the memory they need."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import gguf as reference
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.long_form import examples
from tests.models.gguf_bytes import ARRAY, LLAMA, STRING, Tensor, gguf_bytes, text, typed

from anywire.errors import ConfigError
from anywire_engine_models.model_files import gguf_header, memory
from anywire_engine_models.model_files.file_names import NameParts, name_parts, shard_name
from anywire_engine_models.model_files.ggml_types import BLOCKS
from anywire_engine_models.model_files.gguf import read
from anywire_engine_models.model_files.shards import shards_of
from anywire_engine_models.model_files.whole import check_whole
from anywire_engine_models.registry.file import DEFAULT, Registry
from anywire_engine_models.registry.model_paths import model_file
from tests import tiny_gguf


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    path.write_bytes(gguf_bytes())
    return path


def test_what_a_header_says_is_told(small: Path) -> None:
    file = read(small)
    assert (file.architecture, file.name, file.kind) == ("llama", "Small", "model")
    assert (file.context_length, file.embedding_length, file.vocabulary, file.layers) == (2048, 64, 3, 3)
    assert (file.kv_heads, file.key_length, file.value_length) == ((2, 2, 2), 16, 16)
    assert file.size == file.needed == small.stat().st_size
    assert (file.tensors, file.shard, file.shards) == (1, 1, 1)
    check_whole(small)
    small.write_bytes(gguf_bytes({**LLAMA, "general.name": "Another"}))
    assert read(small).name == "Another"


async def test_real_files_are_read_as_their_own_library_reads_them(tmp_path: Path) -> None:
    registry = Registry(DEFAULT)
    await registry.read()
    for path in (tiny_gguf.write(tmp_path / "tiny.gguf"), model_file(registry.entries[0])):
        theirs = reference.GGUFReader(path)
        ours = read(path)

        def field(name: str, theirs: reference.GGUFReader = theirs) -> object:
            found = theirs.fields.get(f"llama.{name}")
            return 0 if found is None else found.contents()

        assert ours.architecture == "llama"
        assert ours.context_length == field("context_length")
        assert ours.layers == len(ours.kv_heads) == field("block_count")
        assert set(ours.kv_heads) == {field("attention.head_count_kv")}
        assert ours.vocabulary == len(theirs.fields["tokenizer.ggml.tokens"].data)
        assert ours.tensors == len(theirs.tensors)
        # A file ends with its last tensor, or is filled up behind it.
        assert 0 <= ours.size - ours.needed < 32
        check_whole(path)


def test_sizes_of_types_are_those_of_ggml() -> None:
    known = {kind.value: sizes for kind, sizes in reference.GGML_QUANT_SIZES.items()}
    assert {kind: BLOCKS[kind] for kind in known if kind in BLOCKS} == {k: v for k, v in known.items() if k in BLOCKS}
    assert BLOCKS.keys() >= known.keys()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b"GG", "begins with b'GG'; was it downloaded whole"),
        (b"<!DOCTYPE html><html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "run `git lfs pull`"),
        (b"GGUF", "it is cut off: it has 4 bytes"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(16), "the other order of bytes"),
        (gguf_bytes(version=1), "version 1 of the format"),
        (gguf_bytes(counts=(2**63, 1)), "it claims 9223372036854775808 tensors"),
        (gguf_bytes(counts=(1, 2**40)), "it claims 1099511627776 key-value pairs"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**60), "a key has 1152921504606846976 bytes"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IQ", STRING, 2**62), "it is cut off"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", ARRAY, STRING, 2**61), "is cut off"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", ARRAY, 4, 2**62), "is cut off"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", ARRAY, ARRAY, 1), "have the type 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<I", 99), "the unknown type 99"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + 2 * (text("a") + typed(1)), "the key 'a' is there twice"),
        (gguf_bytes(tensors=(Tensor(), Tensor())), "is there twice"),
        (gguf_bytes(tensors=(Tensor(dimensions=(1,) * 5),)), "5 dimensions"),
        (gguf_bytes({"general.alignment": 33}), "its alignment is 33"),
        (gguf_bytes({"general.alignment": 0}), "its alignment is 0"),
    ],
)
def test_what_is_no_gguf_file_is_told_as_such(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"the model file .*bad\.gguf") as refused:
        check_whole(path)
    assert says in str(refused.value)


def test_what_is_no_file_is_told_as_such(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, says in (("fifo", "is no file"), ("", "is no file"), ("missing", "No such file"), ("\0", "null")):
        with pytest.raises(ConfigError, match=says):
            read(tmp_path / name)


def test_tensors_that_go_beyond_the_file_are_told_with_both_sizes(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    whole = gguf_bytes(tensors=(Tensor(), Tensor("b", (256, 2), 12, 288)))
    path.write_bytes(whole)
    check_whole(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(ConfigError, match=rf"cut off: it has {len(whole) - 1} of {len(whole)} bytes; download it"):
        check_whole(path)
    path.write_bytes(gguf_bytes(tensors=(Tensor(dimensions=(2**63, 2**63)),)))
    with pytest.raises(ConfigError, match="cut off"):
        check_whole(path)
    later = tmp_path / "later.gguf"
    later.write_bytes(gguf_bytes(tensors=(Tensor(kind=77),)))  # a type that came later
    check_whole(later)


NUMBERS = count()


@contextmanager
def written(folder: Path, content: bytes) -> Iterator[Path]:
    """A file of its own for each case: what was read of a file is remembered."""
    path = folder / f"case-{next(NUMBERS)}.gguf"
    path.write_bytes(content)
    try:
        yield path
    finally:
        path.unlink()


@given(st.data())
@hypothesis_settings(max_examples=examples(60), deadline=None)
def test_a_file_cut_off_anywhere_is_refused(folder: Path, data: st.DataObject) -> None:
    whole = gguf_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    with written(folder, whole[:at]) as path, pytest.raises(ConfigError, match=path.name):
        check_whole(path)


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), max_size=8), st.binary(max_size=40))
@hypothesis_settings(max_examples=examples(150), deadline=None)
def test_no_file_makes_reading_fail_in_another_way(folder: Path, changes: list[tuple[int, int]], behind: bytes) -> None:
    content = bytearray(gguf_bytes({key: value for key, value in LLAMA.items() if "template" not in key}))
    for at, byte in changes:
        content[at % len(content)] = byte
    with written(folder, bytes(content[: len(content) - len(behind)]) + behind) as path:
        try:
            check_whole(path)
        except ConfigError as error:
            said = str(error)
        else:
            said = path.name
            assert 0 <= memory.needed(path, 4096, 4) <= memory.MOST
        assert path.name in said


def test_a_header_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_header, "MAX_HEADER", 2**16)
    path = tmp_path / "endless.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", ARRAY, STRING, 2**30))
    os.truncate(path, 2**34)  # a file with holes: it has these bytes, all zero
    with pytest.raises(ConfigError, match="its header is longer than"):
        read(path)


def test_a_large_vocabulary_is_read_quickly(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    path.write_bytes(gguf_bytes({**LLAMA, "tokenizer.ggml.tokens": ["token"] * 300_000}))
    began = time.process_time()
    assert read(path).vocabulary == 300_000
    first = time.process_time() - began
    began = time.process_time()
    read(path)
    assert time.process_time() - began < max(first / 10, 0.001), "it is remembered until the file changes"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", NameParts("SmolLM2-135M-Instruct", "Q4_1")),
        ("Qwen3-8B-UD-Q4_K_XL.gguf", NameParts("Qwen3-8B", "UD-Q4_K_XL")),
        ("m-IQ3_XXS-00002-of-00012.GGUF", NameParts("m", "IQ3_XXS", 2, 12)),
        ("gpt-oss-20b-mxfp4.gguf", NameParts("gpt-oss-20b", "mxfp4")),
        ("gemma-bf16.gguf", NameParts("gemma", "bf16")),
        ("plain.gguf", NameParts("plain")),
        ("Q4_0.gguf", NameParts("Q4_0")),
        (".gguf", NameParts(".gguf")),
    ],
)
def test_the_parts_of_a_name(name: str, parts: NameParts) -> None:
    assert name_parts(name) == parts


def test_a_model_in_several_files_is_one_and_a_missing_one_is_named(tmp_path: Path) -> None:
    names = [f"big-Q8_0-{shard:05}-of-00003.gguf" for shard in (1, 2, 3)]
    for name in names:
        (tmp_path / name).write_bytes(gguf_bytes(LLAMA if name == names[0] else {"split.no": 1}))
    first = tmp_path / names[0]
    assert [path.name for path in shards_of(first)] == names == [shard_name(names[1], shard) for shard in (1, 2, 3)]
    check_whole(first)
    one = read(first).size
    assert memory.needed(first, 64, 1) > sum((tmp_path / name).stat().st_size for name in names) > one
    with pytest.raises(ConfigError, match=r"part 2 of 3: give the first, big-Q8_0-00001-of-00003\.gguf"):
        check_whole(tmp_path / names[1])
    os.truncate(tmp_path / names[2], 100)
    with pytest.raises(ConfigError, match=r"00003-of-00003\.gguf .*cut off"):
        check_whole(first)
    (tmp_path / names[2]).unlink()
    with pytest.raises(ConfigError, match=r"the files big-Q8_0-00003-of-00003\.gguf are missing"):
        check_whole(first)


def kv(layers: list[int] | int, **others: int) -> dict[str, object]:
    return {**LLAMA, "llama.attention.head_count_kv": layers, **{f"llama.{k}": v for k, v in others.items()}}


@pytest.mark.parametrize(
    ("values", "of_a_token"),
    [
        (LLAMA, 3 * 2 * (16 + 16) * 2),
        ({k: v for k, v in LLAMA.items() if "kv" not in k}, 3 * 4 * (16 + 16) * 2),  # no grouped heads: one for each
        (kv([0, 2, 0]), 2 * (16 + 16) * 2),  # a layer of three has attention
        ({**LLAMA, "llama.attention.key_length": 128, "llama.attention.value_length": 64}, 3 * 2 * (128 + 64) * 2),
        ({**LLAMA, "general.architecture": "other"}, 0),
    ],
)
def test_the_cache_grows_with_context_and_slots(tmp_path: Path, values: dict[str, object], of_a_token: int) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(values))
    buffers = memory.BATCH * 4  # the mask
    for context, slots in ((1024, 1), (1024, 4), (4096, 1)):
        more = memory.needed(path, context * 2, slots) - memory.needed(path, context, slots)
        assert more == context * slots * (of_a_token + buffers)
    small = memory.needed(path, 64, 1)
    assert small > path.stat().st_size + memory.FLOOR
    length = read(path).context_length
    assert memory.needed(path, 0, 2) == memory.needed(path, length, 2)


def test_recurrent_states_count_for_each_slot(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    ssm = {"llama.ssm.inner_size": 128, "llama.ssm.state_size": 16, "llama.ssm.conv_kernel": 4}
    path.write_bytes(gguf_bytes({**LLAMA, **ssm}))
    file = read(path)
    assert memory.cache_bytes(file, 0, 5) == 5 * 3 * 128 * (16 + 3) * 4


def test_absurd_numbers_give_an_absurd_need_and_no_failure(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    most = 2**31 - 1
    huge = dict.fromkeys(("llama.attention.key_length", "llama.attention.value_length", "llama.context_length"), most)
    path.write_bytes(gguf_bytes({**LLAMA, **huge, "llama.attention.head_count_kv": [most] * 3}))
    assert memory.needed(path, 0, 256) == memory.MOST
    path.write_bytes(gguf_bytes({**LLAMA, "llama.block_count": 2**40, "llama.context_length": 1.5}))
    assert read(path).layers == read(path).context_length == 0
