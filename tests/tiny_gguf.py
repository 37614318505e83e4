"""A tiny language model for tests, written from nothing: `python tests/tiny_gguf.py OUT`.

A llama of two layers with seeded random weights and a real tokenizer and chat template, about 300 KB, the same bytes
every time. What it says is nonsense, but it says it through the same code as a large model. It never ends by
itself: one dimension of every hidden state is constant, and the output row of each token that is not plain text
(end of sequence, bytes) weighs it so strongly that no sampling reaches that token. So an answer is as long as
``max_tokens``, which makes tests exact.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np

CONTEXT = 65536
WIDTH, LAYERS, HEADS, HIDDEN = 32, 2, 2, 64
BOS, EOS = 1, 2
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:\\n{% endif %}"
)
_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "on")]


def _vocabulary() -> tuple[list[bytes], list[float], list[gguf.TokenType]]:
    special = [(b"<unk>", gguf.TokenType.UNKNOWN), (b"<s>", gguf.TokenType.CONTROL), (b"</s>", gguf.TokenType.CONTROL)]
    raw = [(f"<0x{byte:02X}>".encode(), gguf.TokenType.BYTE) for byte in range(256)]
    texts = [chr(code) for code in range(33, 127)] + ["▁", *_SYLLABLES, *("▁" + each for each in _SYLLABLES)]
    normal = [(text.encode(), gguf.TokenType.NORMAL) for text in texts]
    tokens, types = zip(*(special + raw + normal), strict=True)
    scores = [0.0] * (len(special) + len(raw)) + [-float(rank) for rank in range(len(normal))]
    return list(tokens), scores, list(types)


def write(path: Path) -> Path:
    """Write the model to ``path`` and return it."""
    tokens, scores, types = _vocabulary()
    random = np.random.default_rng(20240229)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)

    def matrix(rows: int, columns: int) -> np.ndarray:
        weights: np.ndarray = random.standard_normal((rows, columns)) / np.sqrt(columns)
        return weights.astype(np.float32)

    def into_hidden(columns: int) -> np.ndarray:
        weights = matrix(WIDTH, columns)
        weights[0] = 0.0  # nothing adds to the constant dimension
        return weights

    embedding = matrix(len(tokens), WIDTH) * np.float32(3)
    embedding[:, 0] = 4.0
    output = matrix(len(tokens), WIDTH) * np.float32(2)
    output[:, 0] = [0.0 if kind == gguf.TokenType.NORMAL else -100.0 for kind in types]
    ones = np.ones(WIDTH, dtype=np.float32)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", ones)
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", matrix(WIDTH, WIDTH))
        writer.add_tensor(f"blk.{layer}.attn_output.weight", into_hidden(WIDTH))
        writer.add_tensor(f"blk.{layer}.ffn_gate.weight", matrix(HIDDEN, WIDTH))
        writer.add_tensor(f"blk.{layer}.ffn_up.weight", matrix(HIDDEN, WIDTH))
        writer.add_tensor(f"blk.{layer}.ffn_down.weight", into_hidden(HIDDEN))
        writer.add_tensor(f"blk.{layer}.attn_norm.weight", ones)
        writer.add_tensor(f"blk.{layer}.ffn_norm.weight", ones)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/tiny_gguf.py OUT")
    print(write(Path(sys.argv[1])))
