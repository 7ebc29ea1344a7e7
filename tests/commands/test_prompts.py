"""What `fae sample` reads of --prompt and of a file of prompts."""

import argparse
from pathlib import Path

import pytest

from fae_jax.commands.sample import read_prompts


def given(**words: object) -> argparse.Namespace:
    return argparse.Namespace(**{"prompt": None, "prompts": None, "classes": None, **words})


def test_prompts_of_any_script_come_in_order_and_an_empty_line_is_the_empty_text(tmp_path: Path):
    assert read_prompts(given(classes="0")) is None and read_prompts(given()) is None
    assert read_prompts(given(prompt=["", "a" * 10_000])) == ["", "a" * 10_000]
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffein Hund\r\n\r\n東京 🙂\u2028x\r\n".encode())  # as Windows saves it
    assert read_prompts(given(prompts=str(file))) == ["ein Hund", "", "東京 🙂\u2028x"]
    assert read_prompts(given(prompt=["first"], prompts=str(file)))[:2] == ["first", "ein Hund"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty: write one prompt in a line"), ("größe".encode("latin-1"), r"is not UTF-8 \(byte 2\)")],
)
def test_a_file_that_is_none_of_prompts(tmp_path: Path, content: bytes, message: str):
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_prompts(given(prompts=str(file)))
    with pytest.raises(ValueError, match="give --classes or prompts, not both"):
        read_prompts(given(prompt=["a"], classes="0"))
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        read_prompts(given(prompts=str(tmp_path / "none.txt")))
