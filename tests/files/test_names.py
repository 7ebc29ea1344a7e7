"""What is suggested for a misspelt name."""

import pytest

from fae_jax.files.names import nearest


@pytest.mark.parametrize(
    ("name", "more", "hint"),
    [
        ("eulr", {}, "did you mean 'euler'?"),
        ("gan", {}, "choose one of euler, heun, euler_maruyama"),
        ("gan", {"limit": 2}, "choose one of euler, heun, …"),
        ("gan", {"otherwise": "see --help"}, "see --help"),
        ("eulr", {"otherwise": "see --help"}, "did you mean 'euler'?"),
        ("eun", {"cutoff": 0.0}, "did you mean 'heun'?"),
        ("eulr", {"cutoff": 0.95}, "choose one of euler, heun, euler_maruyama"),
    ],
)
def test_hints(name: str, more: dict, hint: str):
    assert nearest(name, iter(("euler", "heun", "euler_maruyama")), **more) == hint


def test_nothing_is_known():
    assert nearest("eulr", ()) == "there is none"
