"""Captions → token numbers, as each family's own tokenizer makes them, through the libraries `tokenizers` and
`sentencepiece`.

Read are `tokenizer.json` (any family), CLIP's `vocab.json` with `merges.txt` or its `bpe_simple_vocab_16e6.txt.gz`,
and SentencePiece models (`spiece.model`: T5, SigLIP). A caption is cut to the length asked for and keeps its end.

| family | text before | ends with | padded with | length |
|---|---|---|---|---|
| CLIP | lower case | <|endoftext|> | the same | 77 |
| SigLIP | lower case, no punctuation | </s> | the same | 64 |
| SigLIP2 | lower case | <eos> | <pad> | 64 |
| T5 | as it is | </s> | <pad>, masked | free |
| BERT | as its `tokenizer.json` says | [SEP] | [PAD], masked | 128 here |
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import os
import re
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from fae_jax.files.writing import read_json

CLIP_MERGES = 49152 - 256 - 2  # the published file lists more than are used
CLIP_PATTERN = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
START, END = "<|startoftext|>", "<|endoftext|>"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Captions → token numbers and which of them are not padding, both (b, length).

    Attributes:
      encode: a caption → all its token numbers, the end included.
      length: tokens of the result.
      padding: the token that fills the rest.
      end: the last token of a caption, kept when it is cut.
      before: what is done to a caption first.
      left: whether the padding stands in front.
    """

    encode: Callable[[str], list[int]]
    length: int
    padding: int
    end: int
    before: Callable[[str], str] = str
    left: bool = False

    def count(self, caption: str) -> int:
        """Tokens of a caption before it is cut, its end included."""
        return len(self.encode(self.before(caption)))

    def __call__(self, captions: Sequence[str]) -> tuple[Int[np.ndarray, "b n"], Bool[np.ndarray, "b n"]]:
        if isinstance(captions, str):
            raise ValueError("captions are a list of texts; put the one text into a list")
        tokens = np.full((len(captions), self.length), self.padding, np.int32)
        mask = np.zeros((len(captions), self.length), bool)
        for i, caption in enumerate(captions):
            numbers = self.encode(self.before(caption))
            if len(numbers) > self.length:
                numbers = [*numbers[: self.length - 1], self.end]
            place = slice(self.length - len(numbers), None) if self.left else slice(0, len(numbers))
            tokens[i, place], mask[i, place] = numbers, True
        return tokens, mask


def without_punctuation(text: str) -> str:
    """SigLIP's canonical form: lower case, no ASCII punctuation, single spaces."""
    kept = text.translate(str.maketrans("", "", string.punctuation)).lower()
    return re.sub(r"\s+", " ", kept).strip()


def _clip(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    import tokenizers as t

    model = t.models.BPE(
        vocab=vocabulary, merges=merges, end_of_word_suffix="</w>", unk_token=END, continuing_subword_prefix=""
    )
    tokenizer = t.Tokenizer(model)
    spaces = t.normalizers.Replace(t.Regex(r"\s+"), " ")
    tokenizer.normalizer = t.normalizers.Sequence([t.normalizers.NFC(), spaces, t.normalizers.Lowercase()])
    words = t.pre_tokenizers.Split(t.Regex(CLIP_PATTERN), behavior="removed", invert=True)
    letters = t.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = t.pre_tokenizers.Sequence([words, letters])
    tokenizer.post_processor = t.processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
    )
    return tokenizer


def _clip_published(path: Path) -> Any:
    """CLIP's own file: a list of merges from which the vocabulary follows."""
    import tokenizers as t

    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : CLIP_MERGES + 1]
    merges = [(first, second) for first, second in map(str.split, lines)]
    letters = sorted(t.pre_tokenizers.ByteLevel.alphabet())  # GPT-2's printable stand-ins for bytes, in CLIP's order
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    return _clip({word: number for number, word in enumerate(words)}, merges)


Encode, Number = Callable[[str], list[int]], Callable[[str], int | None]


def _sentencepiece(path: Path) -> tuple[Encode, Number]:
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor()
    try:
        pieces.LoadFromSerializedProto(path.read_bytes())
    except RuntimeError:
        raise ValueError(f"{path} is not a SentencePiece model, or it is damaged; fetch it again") from None

    def number(word: str) -> int | None:
        nearest = pieces.piece_to_id(word)  # an unknown word has that of <unk>
        return nearest if pieces.id_to_piece(nearest) == word else None

    return functools.partial(pieces.encode, add_eos=True), number


def _opened(path: Path) -> tuple[Encode, Number]:
    """A caption → its token numbers, a token → its number; by a file, or by what lies in a folder."""
    import tokenizers as t

    if path.is_dir():
        for name in ("tokenizer.json", "spiece.model", "vocab.json", "bpe_simple_vocab_16e6.txt.gz"):
            if (path / name).is_file():
                return _opened(path / name)
        raise FileNotFoundError(
            f"{path} holds no tokenizer (tokenizer.json, spiece.model, or vocab.json and merges.txt)"
        )
    if not path.is_file():
        raise FileNotFoundError(f"the tokenizer {path} does not exist")
    if path.name.endswith(".model"):
        return _sentencepiece(path)
    if path.name.endswith(".txt.gz"):
        raw = _clip_published(path)
    else:
        try:
            if path.name == "vocab.json":
                raw = _clip(*t.models.BPE.read_file(str(path), str(path.with_name("merges.txt"))))
            else:
                raw = t.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises a bare Exception
            raise ValueError(f"{path} is not a {path.name} ({error}); fetch it again") from None
    raw.no_padding()
    raw.no_truncation()
    return lambda text: raw.encode(text).ids, raw.token_to_id


def load_tokenizer(path: str | os.PathLike[str], family: str, *, length: int) -> Tokenizer:
    """The tokenizer of a family (`clip`, `siglip`, `t5` or `bert`), from a file or a folder.

    Raises:
      FileNotFoundError: there is none.
      ValueError: the file is damaged, or is not one for that family.
    """
    path = Path(path)
    encode, known = _opened(path)

    def number(*words: str) -> int:
        for word in words:
            if (token := known(word)) is not None:
                return token
        raise ValueError(f"{path} is not a tokenizer for {family}: it knows none of {', '.join(words)}")

    config = path / "tokenizer_config.json" if path.is_dir() else path.with_name("tokenizer_config.json")
    fields = read_json(config, "fetch it again") if config.is_file() else {}
    left = fields.get("padding_side") == "left"
    if family == "clip":
        end = number(END)
        return Tokenizer(encode=encode, length=length, padding=end, end=end, left=left)
    if family == "t5":
        return Tokenizer(encode=encode, length=length, padding=number("<pad>"), end=number("</s>"), left=left)
    if family == "bert":
        return Tokenizer(encode=encode, length=length, padding=number("[PAD]"), end=number("[SEP]"), left=left)
    end = number("<eos>", "</s>")
    second = known("<eos>") is not None  # SigLIP2 speaks Gemma's language

    def ended(text: str) -> list[int]:
        numbers = encode(text)
        return numbers if numbers[-1:] == [end] else [*numbers, end]

    return Tokenizer(
        encode=ended,
        length=length,
        padding=number("<pad>") if second else end,
        end=end,
        before=str.lower if second else without_punctuation,
        left=left,
    )
