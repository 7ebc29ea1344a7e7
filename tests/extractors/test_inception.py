"""Inception: how it resizes, what it refuses, and how its weights come."""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from inception_weights import EPSILON, tf_weights, torch_weights
from PIL import Image

from fae_jax.cli.program import main
from fae_jax.extractors import extractor_names, inception, load_extractor
from fae_jax.extractors.inception_files import _graph_shapes, read_params
from fae_jax.weights import hash_tree, open_tensors

sys.path[:0] = [str(Path(__file__).parents[1] / "weights")]

from graph_files import constant, graph  # noqa: E402
from pickle_files import Tensor, sequence  # noqa: E402
from test_releases import serving  # noqa: E402

TINY = [
    ("conv", "conv", "Conv2d_1a_3x3", (3, 3, 3, 4)),
    ("mixed", "mixed_conv", "Mixed_5b.branch1x1", (1, 1, 4, 2)),
    ("softmax", "softmax", "fc", (2, 5)),
]


def tiny(seed=0):
    """(torchvision's tensors, TensorFlow's folded ones) of three layers."""
    return torch_weights(seed, TINY)


def write_old_pickle(path, tensors):
    """As torch.save wrote it before version 1.6."""
    content, storages = {}, {}
    for number, (name, array) in enumerate(tensors.items()):
        kind = {"float32": "FloatStorage", "int64": "LongStorage"}[array.dtype.name]
        strides = tuple(step // array.itemsize for step in array.strides)
        content[name] = Tensor(str(number), array.shape, strides, storage=kind, count=array.size)
        storages[str(number)] = array.tobytes()
    sequence(path, content, storages, None, counts=[array.size for array in tensors.values()])


def test_batch_norms_are_folded_in_and_all_layouts_agree(tmp_path):
    published, folded = tiny()
    write_old_pickle(tmp_path / "a.pth", published)
    np.savez(tmp_path / "b.npz", **folded)
    norms = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    nodes = [constant("softmax/weights", folded["softmax/w"]), constant("softmax/biases", folded["softmax/b"])]
    for place, theirs in (("conv", "Conv2d_1a_3x3"), ("mixed/conv", "Mixed_5b.branch1x1")):
        kernel = published[f"{theirs}.conv.weight"].transpose(2, 3, 1, 0)
        nodes.append(constant(f"{place}/conv2d_params", kernel))
        nodes += [
            constant(f"{place}/batchnorm/{key}", published[f"{theirs}.bn.{norm}"]) for key, norm in norms.items()
        ]
    (tmp_path / "c.pb").write_bytes(graph(*nodes, constant("Sub/y", np.float32(128))))
    params, missing = read_params(tmp_path / "a.pth", TINY)
    from_graph, _ = read_params(tmp_path / "c.pb", TINY)
    assert hash_tree(from_graph) == hash_tree(params)
    assert missing == {} and list(params) == ["conv", "mixed_conv", "softmax"]
    for name, layer in params.items():
        np.testing.assert_allclose(layer["kernel"], folded[f"{name}/w"], rtol=1e-6)
        np.testing.assert_allclose(layer["bias"], folded[f"{name}/b"], rtol=1e-5, atol=1e-7)
    again, _ = read_params(tmp_path / "b.npz", TINY)
    np.testing.assert_array_equal(again["conv"]["kernel"], folded["conv/w"])
    # one channel by hand
    kernel, gamma = published["Conv2d_1a_3x3.conv.weight"], published["Conv2d_1a_3x3.bn.weight"]
    variance = published["Conv2d_1a_3x3.bn.running_var"]
    assert params["conv"]["kernel"][0, 1, 2, 3] == pytest.approx(
        kernel[3, 2, 0, 1] * gamma[3] / (variance[3] + EPSILON) ** 0.5, rel=1e-6
    )


def test_other_files_are_refused_in_a_line(tmp_path):
    published, folded = tiny()
    np.savez(tmp_path / "vgg.npz", **{"conv1_1/w": np.zeros(3)})
    with pytest.raises(ValueError, match=r"holds no weights of Inception .*fae weights pull inception"):
        read_params(tmp_path / "vgg.npz", TINY)
    write_old_pickle(
        tmp_path / "torchvision.pth", published | {"AuxLogits.conv0.conv.weight": np.zeros(3, np.float32)}
    )
    with pytest.raises(ValueError, match=r"1 extra: AuxLogits.conv0.conv.weight"):
        read_params(tmp_path / "torchvision.pth", TINY)
    np.savez(tmp_path / "thousand.npz", **folded | {"softmax/w": np.zeros((2, 4)), "softmax/b": np.zeros(4)})
    with pytest.raises(ValueError, match=r"2 misshapen: softmax/w \[2, 4\] instead of \[2, 5\]"):
        read_params(tmp_path / "thousand.npz", TINY)
    np.savez(tmp_path / "nan.npz", **folded | {"mixed_conv/b": np.full(2, np.nan)})
    with pytest.raises(ValueError, match="'mixed_conv.bias' holds NaN"):
        read_params(tmp_path / "nan.npz", TINY)
    whole = (tmp_path / "torchvision.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=r"cut.pth is not opened: storage \d+ is shorter than it says"):
        read_params(tmp_path / "cut.pth", TINY)
    with pytest.raises(FileNotFoundError, match="none.pth does not exist"):
        read_params(tmp_path / "none.pth", TINY)


def test_fae_weights_brings_converts_and_checks(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*words):
        code = main(["weights", *map(str, words), "--json"])
        out = capsys.readouterr()
        return code, json.loads(out.out.splitlines()[-1]) if code == 0 else out.err

    for name in ("inception", "inception_clean"):
        with pytest.raises(FileNotFoundError, match=f"bring them: fae weights pull {name}"):
            load_extractor(name)
    code, error = run("check", "inception")
    assert code == 2 and error.startswith(
        "fae: error: the weights of 'inception' are not on this machine; bring them"
    )
    published, folded = tiny()
    write_old_pickle(tmp_path / "net.pth", published)
    content = (tmp_path / "net.pth").read_bytes()
    with serving({"/net.pth": content}, []) as address, monkeypatch.context() as patch:
        digest = hashlib.sha256(content).hexdigest()
        patch.setattr(inception, "layers", lambda: iter(TINY))
        patch.setattr(
            inception,
            "RELEASE",
            dataclasses.replace(inception.RELEASE, urls=(f"{address}/net.pth",), sha256=digest),
        )
        code, result = run("pull", "inception")
    assert code == 0 and result["fetched"] == len(content)
    tensors = open_tensors(result["folder"])
    assert result["hash"] == tensors.hash()
    np.testing.assert_allclose(tensors.read("conv.kernel"), folded["conv/w"], rtol=1e-6)
    code, result = run("convert", tmp_path / "net.pth", "--out", tmp_path / "out")
    assert code == 0
    params, _ = read_params(tmp_path / "out", TINY)
    np.testing.assert_array_equal(params["conv"]["kernel"], tensors.read("conv.kernel"))
    code, error = run("pull", tmp_path / "net.pth", "--as", "dinov2_l14")
    assert code == 2 and "'dinov2_l14' is fetched by its name alone: fae weights pull dinov2_l14" in error
    code, result = run("list")
    assert code == 0 and result["extractors"]["inception"].endswith("pt_inception-2015-12-05-6726825d.pth")


def test_it_has_the_published_number_of_parameters():
    """torchvision's without its auxiliary head, with 8 classes more and one bias in place of each norm's two."""
    shapes = [shape for *_, shape in inception.layers()]
    assert len(shapes) == 95
    count = sum(int(np.prod(shape)) + shape[-1] for shape in shapes)
    assert count == 23_834_568 - sum(shape[-1] for shape in shapes[:-1]) + 8 * 2049


@pytest.fixture
def narrow(tmp_path, monkeypatch):
    """All layers with a channel each, in a cache of its own."""
    layers = [(*names, (*shape[:-2], 1, 1)) for *names, shape in inception.layers()]
    monkeypatch.setattr(inception, "layers", lambda: iter(layers))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tf_weights(0, layers)


def test_whole_weights_are_checked_and_partial_ones_give_what_they_reach(narrow, tmp_path, capsys):
    np.savez(tmp_path / "whole.npz", **narrow)
    assert main(["weights", "check", str(tmp_path / "whole.npz"), "--as", "inception", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["tensors"] == 2 * 95
    assert main(["weights", "pull", str(tmp_path / "whole.npz"), "--as", "inception", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["hash"] == result["hash"]
    assert load_extractor("inception_clean").weights_hash == result["hash"]
    without = ("mixed_9_tower_1_conv_1", "mixed_7_conv", "softmax")
    part = {name: array for name, array in narrow.items() if name.split("/")[0] not in without}
    np.savez(tmp_path / "part.npz", **part)
    extractor = load_extractor("inception", str(tmp_path / "part.npz"))
    assert extractor.lacks.keys() == {"768", "pool_3", "logits", "softmax"}
    assert extractor.lacks["768"].startswith("the weights lack mixed_7_conv: bring them whole by `fae weights pull")
    assert main(["weights", "check", str(tmp_path / "part.npz"), "--as", "inception"]) == 2
    assert "part.npz gives no '768': the weights lack mixed_7_conv" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["inception", "inception_clean"])
def test_other_things_than_images_are_refused(narrow, tmp_path, name):
    np.savez(tmp_path / "w.npz", **narrow)
    extractor = load_extractor(name, str(tmp_path / "w.npz"))
    images = np.zeros((1, 32, 32, 3), np.uint8)
    for wrong, why in (
        (images.astype(np.float32), "of uint8, got .* of float32"),
        (images[0], "of uint8, got"),
        (images[..., :1], "of uint8, got"),
        (images[:, :4], "at least 8×8 pixels, got 4×32"),
    ):
        with pytest.raises(ValueError, match=why):
            extractor.apply(extractor.params, wrong)


def test_each_layer_has_torchvisions_name():
    """Those that a shape alone would not tell apart; the rest follows from torch-fidelity's class, see the docs."""
    theirs = {name: published for _, name, published, _ in inception.layers()}
    for name, published in (
        ("conv_3", "Conv2d_3b_1x1"),
        ("mixed_2_tower_1_conv", "Mixed_5d.branch3x3dbl_1"),
        ("mixed_2_tower_2_conv", "Mixed_5d.branch_pool"),
        ("mixed_3_tower_conv_1", "Mixed_6a.branch3x3dbl_2"),
        ("mixed_5_tower_1_conv_1", "Mixed_6c.branch7x7dbl_2"),
        ("mixed_5_tower_1_conv_3", "Mixed_6c.branch7x7dbl_4"),
        ("mixed_8_tower_conv", "Mixed_7a.branch3x3_1"),
        ("mixed_8_tower_1_conv", "Mixed_7a.branch7x7x3_1"),
        ("mixed_9_tower_mixed_conv", "Mixed_7b.branch3x3_2a"),
        ("mixed_10_tower_1_mixed_conv_1", "Mixed_7c.branch3x3dbl_3b"),
        ("softmax", "fc"),
    ):
        assert theirs[name] == published
    in_graph = {name: next(iter(_graph_shapes(name, "", shape))) for _, name, _, shape in inception.layers()}
    assert in_graph["mixed_9_tower_mixed_conv_1"] == "mixed_9/tower/mixed/conv_1/conv2d_params"
    assert in_graph["mixed_10_tower_1_conv"] == "mixed_10/tower_1/conv/conv2d_params"
    assert in_graph["conv_4"] == "conv_4/conv2d_params" and in_graph["softmax"] == "softmax/weights"


def test_unknown_names():
    with pytest.raises(ValueError, match="'inceptoin' is none of the extractors; did you mean 'inception'"):
        load_extractor("inceptoin")
    assert {"inception", "inception_clean", "dinov2_l14", "clip_l14_336", "mae_l16"} <= {*extractor_names()}


def test_clean_fids_resize_is_pils():
    """Its own way: each channel as a float image, bicubic, clipped to 0 … 255 and not rounded."""
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 400, 3), dtype=np.uint8)
    images[1] = np.kron(np.indices((8, 50)).sum(0) % 2, np.ones((8, 8)))[..., None] * 255  # over and under shoots
    ours = np.asarray(inception._clean(jnp.asarray(images)))
    for image, got in zip(images, ours, strict=True):
        channels = [Image.fromarray(image[..., c].astype(np.float32)) for c in range(3)]
        resized = [channel.resize((299, 299), Image.Resampling.BICUBIC) for channel in channels]
        theirs = np.stack([np.asarray(each).clip(0, 255) for each in resized], axis=-1)
        assert np.abs(got - theirs).max() < 2e-4
