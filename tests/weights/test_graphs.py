"""A TensorFlow graph is read as a message of constants."""

import numpy as np
import pytest
from graph_files import constant, graph, message

from fae_jax.weights.graphs import read_graph

VALUES = np.arange(400, dtype=np.float32).reshape(20, 4, 5)


def test_only_parameters_are_taken(tmp_path):
    other = message((1, b"conv"), (2, b"Conv2D"), (3, b"x"), (5, message((1, b"strides"), (2, message((3, 300))))))
    nodes = [constant("a/w", VALUES), other, constant("a/b", VALUES[0, 0]), constant("Sub/y", np.float32(128))]
    (tmp_path / "g.pb").write_bytes(graph(*nodes, constant("size", np.array([299, 299], np.int32)), (4, 21)))
    got = read_graph(tmp_path / "g.pb")
    assert got.keys() == {"a/w", "a/b"}
    np.testing.assert_array_equal(got["a/w"], VALUES)
    np.testing.assert_array_equal(got["a/b"], [0, 1, 2, 3, 4])


def test_other_and_damaged_files(tmp_path):
    path = tmp_path / "g.pb"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_graph(path)
    whole = graph(constant("a/w", VALUES))
    rng = np.random.default_rng(0)
    wrong = [b"", b"\xff" * 40, b"PK\3\4 something else", graph(constant("n", np.int32([1])))]
    wrong += [whole[: int(rng.integers(len(whole)))] for _ in range(50)]
    for content in wrong:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no frozen graph of TensorFlow") as raised:
            read_graph(path)
        assert "\n" not in str(raised.value)
    for _ in range(200):
        flipped = bytearray(whole)
        flipped[int(rng.integers(40))] = int(rng.integers(256))
        path.write_bytes(flipped)
        try:
            assert all(array.nbytes <= len(whole) for array in read_graph(path).values())
        except ValueError as error:
            assert "\n" not in str(error)
