"""Numbers as people read them."""

import math

import pytest

from fae_jax.report.words import (
    brief,
    duration,
    guidance_words,
    heading,
    millions,
    number,
    percent,
    points,
    shape,
    size,
    spoken,
    without_zeros,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (0, "0"),
        (0.98765, "0.988"),
        (0.00123, "0.00123"),
        (12.345, "12.3"),
        (-3.14159, "-3.14"),
        (1797, "1,797"),
        (123456.7, "123,457"),
        (0.0000012, "1.20e-06"),
        (5e12, "5.00e+12"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.84, "0.8 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (185, "3 min 05 s"),
        (300, "5 min"),
        (3599.7, "1 h 00 min"),
        (7800, "2 h 10 min"),
        (100_000, "1 d 3 h"),
    ],
)
def test_durations_are_said_as_a_person_says_them(seconds, text):
    assert duration(seconds) == text


def test_sizes_and_counts():
    assert [size(value) for value in (None, 512, 1.77e6, 9.8e9, 3e15)] == [
        "–",
        "512 bytes",
        "1.77 MB",
        "9.8 GB",
        "3e+03 TB",
    ]
    assert [millions(value) for value in (None, 812, 52_400, 38_166_592, 1.4e9)] == [
        "",
        "812",
        "52.4 k",
        "38.2 M",
        "1.4 B",
    ]
    assert percent(0.9234) == "92.3 %" and percent(None) == "–"
    assert shape([4, 4, 16]) == "4×4×16" and shape(None) == ""


def test_round_numbers_have_no_needless_zeros():
    assert [brief(value) for value in (0.0, 0.5, 20.0, 1000.0, 1e-5, 0.05)] == [
        "0",
        "0.5",
        "20",
        "1,000",
        "1e-05",
        "0.05",
    ]


def test_field_names_become_words():
    assert spoken("gradient_norm") == "gradient norm"
    assert spoken("decoder/kl_per_token") == "decoder · KL per token"
    assert spoken("psnr") == "PSNR"
    assert heading("fid_of_DINOv2") == "FID of DINOv2"
    assert heading("") == ""


def test_targets_lose_the_zeros_that_their_form_gives_them():
    texts = ("92.0 %", "1.50 points", "0.950", "20.0 dB", "5 min", "1,000", "100 %")
    assert [without_zeros(text) for text in texts] == [
        "92 %",
        "1.5 points",
        "0.95",
        "20 dB",
        "5 min",
        "1,000",
        "100 %",
    ]
    assert [points(value) for value in (None, 1, 0.279)] == ["–", "1 point", "0.279 points"]


@pytest.mark.parametrize(
    ("guidance", "words"),
    [
        (None, "none"),
        ("none", "none"),
        (1.0, "none"),
        (2.5, "2.5"),
        ([[0.7, 0.9, 1.0], [0.0, 0.7, 2.5]], "2.5 on [0, 0.7], 1 on [0.7, 0.9]"),
        ("strange", "strange"),
        ([1, 2], "[1, 2]"),
        ([["a", 0, 1]], "[['a', 0, 1]]"),
    ],
)
def test_guidance_in_words(guidance, words):
    assert guidance_words(guidance) == words
