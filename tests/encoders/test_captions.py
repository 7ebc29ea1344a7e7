"""Tokenizers against the published vocabularies and an independent statement of CLIP's byte-pair encoding."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor

from fae_jax.encoders.captions import Tokenizer, load_tokenizer, without_punctuation

TEXTS = [
    "a photo of 2 cats",
    "Two  dogs' bowls, 1990s-style: it's CAFÉ time!!",
    "naïve façade — 東京 🙂 \t end",
    "",
    " ".join(["word"] * 200),
]


@pytest.fixture(scope="module")
def published():
    root = os.environ.get("FAE_REAL_DATA")
    if not root:
        pytest.skip("FAE_REAL_DATA is not set")
    return Path(root) / "tokenizers"


def slow_clip(path):
    """CLIP's encoding as its paper's code states it: merge the best-ranked pair until none is left."""
    regex = pytest.importorskip("regex")
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    merges = {tuple(line.split()): rank for rank, line in enumerate(lines)}
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    letters |= {byte: chr(256 + i) for i, byte in enumerate(b for b in range(256) if b not in letters)}
    symbols = list(letters.values())
    words = symbols + [s + "</w>" for s in symbols] + ["".join(pair) for pair in merges]
    numbers = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    pattern = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE)

    def encode(text):
        out = [numbers["<|startoftext|>"]]
        for token in pattern.findall(" ".join(text.split()).lower()):
            parts = [letters[byte] for byte in token.encode()]
            parts[-1] += "</w>"
            while len(parts) > 1:
                ranked = [(merges.get(pair, 10**9), i) for i, pair in enumerate(zip(parts, parts[1:], strict=False))]
                rank, _ = min(ranked)
                if rank == 10**9:
                    break
                pair, merged, i = lines[rank].split(), [], 0
                while i < len(parts):
                    if parts[i : i + 2] == pair:
                        merged.append(parts[i] + parts[i + 1])
                        i += 2
                    else:
                        merged.append(parts[i])
                        i += 1
                parts = merged
            out += [numbers[part] for part in parts]
        return [*out, numbers["<|endoftext|>"]]

    return encode


@pytest.mark.real_data
def test_clip(published):
    path = published / "clip_bpe_simple_vocab_16e6.txt.gz"
    tokenizer, reference = load_tokenizer(path, "clip", length=77), slow_clip(path)
    tokens, mask = tokenizer(TEXTS)
    assert tokens.shape == mask.shape == (5, 77) and tokens.dtype == np.int32
    for text, row, used in zip(TEXTS, tokens, mask, strict=True):
        want = reference(text)
        want = want if len(want) <= 77 else [*want[:76], 49407]
        np.testing.assert_array_equal(row[: len(want)], want, err_msg=text)
        assert np.all(row[len(want) :] == 49407) and used.sum() == len(want)
    assert tokens[0, :8].tolist() == [
        49406,
        320,
        1125,
        539,
        273,
        3989,
        49407,
        49407,
    ]


@pytest.mark.real_data
def test_clip_from_vocabulary_and_merges(published, tmp_path):
    path = published / "clip_bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")[1:48895]
    from fae_jax.encoders.captions import _clip_published

    whole = _clip_published(path)
    (tmp_path / "vocab.json").write_text(json.dumps(whole.get_vocab()), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]), encoding="utf-8")
    whole.save(str(tmp_path / "tokenizer.json"))
    expected = load_tokenizer(path, "clip", length=20)(TEXTS)[0]
    for name in ("vocab.json", "tokenizer.json", "."):
        np.testing.assert_array_equal(load_tokenizer(tmp_path / name, "clip", length=20)(TEXTS)[0], expected)


@pytest.mark.real_data
def test_t5_is_sentencepiece(published):
    tokenizer = load_tokenizer(published / "t5-base.spiece.model", "t5", length=60)
    tokens, mask = tokenizer(TEXTS)
    # "translate English to German: The house is wonderful." of the T5 paper's own examples
    known = tokenizer(["The house is wonderful."])[0][0, :6]
    assert known.tolist() == [37, 629, 19, 1627, 5, 1]
    assert tokens[3, :2].tolist() == [1, 0] and mask[3].sum() == 1
    assert tokens[4, 59] == 1 and mask[4].all()
    with pytest.raises(ValueError, match="is not a tokenizer for clip: it knows none of"):
        load_tokenizer(published / "t5-base.spiece.model", "clip", length=60)
    reference = SentencePieceProcessor(str(published / "t5-base.spiece.model"))
    for text, row, used in zip(TEXTS, tokens, mask, strict=True):
        want = [*reference.encode(text), 1]
        want = want if len(want) <= 60 else [*want[:59], 1]
        np.testing.assert_array_equal(row[used], want, err_msg=text)


def test_siglip_text_is_made_canonical():
    assert without_punctuation("A photo, of  two\tCATS!") == "a photo of two cats"


def test_padding_on_the_other_side_and_the_cut():
    tokenizer = Tokenizer(encode=lambda text: [ord(c) for c in text] + [9], length=4, padding=0, end=9, left=True)
    tokens, mask = tokenizer(["a", "abcdef"])
    assert tokens.tolist() == [[0, 0, 97, 9], [97, 98, 99, 9]] and mask.sum(axis=1).tolist() == [2, 4]
    with pytest.raises(ValueError, match="put the one text into a list"):
        tokenizer("abc")


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        load_tokenizer(tmp_path, "clip", length=8)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_tokenizer(tmp_path / "tokenizer.json", "clip", length=8)
    for damaged in (b"\x0a\xff\xff\xff", b""):
        (tmp_path / "spiece.model").write_bytes(damaged)
        with pytest.raises(ValueError, match="not a SentencePiece model"):
            load_tokenizer(tmp_path, "t5", length=8)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="not a tokenizer.json"):
        load_tokenizer(tmp_path, "t5", length=8)
