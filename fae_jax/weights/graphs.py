"""Parameters of a frozen TensorFlow 1 graph (.pb), a GraphDef message, without TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

SUFFIX = ".pb"


def read_graph(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The float32 constants of a graph that have dimensions, by name.

    Raises:
      FileNotFoundError: it does not exist.
      ValueError: it is damaged, or no graph.
    """
    from google.protobuf.message import DecodeError  # here: the next one brings PyTorch where that is installed
    from tensorboardX.proto.graph_pb2 import GraphDef
    from tensorboardX.proto.types_pb2 import DT_FLOAT

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    arrays = {}
    try:
        for node in GraphDef.FromString(path.read_bytes()).node:
            tensor = node.attr["value"].tensor
            shape = [dimension.size for dimension in tensor.tensor_shape.dim]
            if node.op == "Const" and tensor.dtype == DT_FLOAT and shape:
                arrays[node.name] = np.frombuffer(tensor.tensor_content, "<f4").reshape(shape)
    except (DecodeError, ValueError) as error:
        raise ValueError(f"{path} is damaged, truncated or no frozen graph of TensorFlow ({error})") from error
    if not arrays:
        raise ValueError(f"{path} holds no parameters, or is no frozen graph of TensorFlow")
    return arrays
