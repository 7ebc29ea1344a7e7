import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_files import DINOV2, SIGLIP, arrays, write
from running import QUICK

from fae_jax.encoders import create, names
from fae_jax.encoders.pretrained import build, find_files, input_side
from fae_jax.encoders.published import ENCODERS, Published
from fae_jax.weights import write_tensors

PROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": 80},
    "do_center_crop": True,
    "crop_size": {"height": 70, "width": 70},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    return write(tmp_path_factory.mktemp("dinov2"), DINOV2, processor=PROCESSOR)


def features(encoder):
    return np.asarray(jax.jit(encoder.features)(encoder.params, jnp.asarray(IMAGES)))


def test_a_folder_becomes_an_encoder(dinov2):
    encoder = create("pretrained", weights=dinov2, image_size=64)
    assert (encoder.grid, encoder.width) == ((4, 4), 32)  # 64 pixels are resized to 56, four patches of 14
    assert features(encoder).shape == (2, 16, 32)
    assert encoder.settings["input_size"] == 56 and encoder.settings["interpolation"] == "bicubic_antialias"
    pixels = encoder.preprocess(jnp.full((1, 64, 64, 3), 1.0))
    np.testing.assert_allclose(
        pixels[0, 0, 0], (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], rtol=1e-5
    )
    json.dumps(encoder.settings)


def test_mean_and_std_are_those_of_the_folder_or_of_its_family(tmp_path):
    """As `transformers` 5 and 4 save a processor, and as somebody copies weights without one."""
    sizes = {name: SIGLIP[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size")}
    clip = {**sizes, "model_type": "clip_vision_model", "intermediate_size": 40, "image_size": 64}
    weights = write(tmp_path, clip)

    def read():
        preprocessing = find_files(weights, None).preprocessing
        return list(preprocessing.mean), list(preprocessing.std)

    openai = ENCODERS["clip_b16"].preprocessing
    assert read() == (list(openai.mean), list(openai.std))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3]}))
    assert read() == ([0.1, 0.2, 0.3], list(openai.std))
    nested = {
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.7, 0.8, 0.9],
        "image_processor_type": "CLIPImageProcessor",
    }
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": nested}))
    assert read() == ([0.4, 0.5, 0.6], [0.7, 0.8, 0.9])
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    assert read() == ([0.1, 0.2, 0.3], list(openai.std))


def test_what_changes_the_output_changes_the_record(dinov2):
    plain = create("pretrained", weights=dinov2, image_size=64)
    seen = {"plain": features(plain)}
    for option in ({"interpolation": "bicubic_offset"}, {"resize": "bicubic_antialias"}, {"input_size": 70}):
        encoder = create("pretrained", weights=dinov2, image_size=64, **option)
        assert encoder.settings != plain.settings and encoder.weights_hash == plain.weights_hash
        seen[str(option)] = features(encoder)
    shapes = {name: value.shape for name, value in seen.items()}
    assert shapes["{'input_size': 70}"] == (2, 25, 32)
    for name in list(seen)[1:3]:
        assert np.abs(seen[name] - seen["plain"]).max() > 1e-4, name


def test_layers_are_combined(dinov2):
    def patches(**options):
        return features(create("pretrained", weights=dinov2, image_size=64, scan=False, **options))

    first, last = patches(layers=(0,)), patches()
    np.testing.assert_allclose(patches(layers=(-1,)), last, atol=1e-5)
    np.testing.assert_allclose(patches(layers=(0, 1)), (first + last) / 2, atol=1e-5)
    np.testing.assert_allclose(patches(layers=(0, 1), combine="sum"), first + last, atol=1e-5)
    with pytest.raises(ValueError, match="combine 'max'"):
        patches(layers=(0,), combine="max")


def test_bfloat16_weights_take_half_the_room(dinov2):
    encoder = create("pretrained", weights=dinov2, image_size=64, parameter_dtype="bfloat16", dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(encoder.params)} == {jnp.dtype(jnp.bfloat16)}
    want = features(create("pretrained", weights=dinov2, image_size=64))
    assert np.abs(features(encoder) - want).max() < 3e-2 * np.abs(want).max()


def test_pooling_head_accepts_features(tmp_path):
    encoder = create("pretrained", weights=write(tmp_path, SIGLIP), image_size=64)
    out = encoder.apply(encoder.params, encoder.preprocess(jnp.asarray(IMAGES)))
    assert encoder.head is None and out.cls is None
    np.testing.assert_allclose(encoder.pool(encoder.params, out.patches, None), out.pooled, atol=1e-5)


def test_a_name_refuses_the_weights_of_another_network(dinov2):
    with pytest.raises(ValueError, match="not those of 'dinov2_s14_reg': width 32 instead of 384, depth 2 instead"):
        create("dinov2_s14_reg", weights=dinov2, image_size=256)
    with pytest.raises(ValueError, match="not those of 'siglip_b16_224'"):
        create("siglip_b16_224", weights=dinov2, image_size=224)


def test_a_single_file_takes_the_tables_word(tmp_path):
    write_tensors(tmp_path / "vit.safetensors", arrays(SIGLIP))
    entry = Published(repository="someone/vit", fields=SIGLIP)
    weights = str(tmp_path / "vit.safetensors")
    encoder = build("mine", entry, weights=weights, image_size=64)
    assert encoder.grid == (4, 4)
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        create("pretrained", weights=weights, image_size=64)


def test_one_hash_however_the_file_is_cut(tmp_path):
    tensors = arrays(SIGLIP)
    whole = create("pretrained", weights=write(tmp_path / "whole", SIGLIP, tensors), image_size=64)
    folder = tmp_path / "cut"
    write(folder, SIGLIP, tensors)
    (folder / "model.safetensors").unlink()
    where = {name: f"model-0000{1 + i % 3}-of-00003.safetensors" for i, name in enumerate(tensors)}
    for shard in set(where.values()):
        write_tensors(folder / shard, {name: tensors[name] for name in tensors if where[name] == shard})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    cut = create("pretrained", weights=str(folder), image_size=64)
    assert cut.weights_hash == whole.weights_hash
    np.testing.assert_array_equal(features(cut), features(whole))


def test_bad_weights(tmp_path):
    tensors = arrays(SIGLIP)
    name = "vision_model.encoder.layers.1.mlp.fc1.bias"
    broken = {**tensors, name: tensors[name].copy()}
    broken[name][3] = np.nan
    with pytest.raises(ValueError, match=f"{name}' holds NaN"):
        create("pretrained", weights=write(tmp_path / "nan", SIGLIP, broken), image_size=64)
    lacking = {key: value for key, value in tensors.items() if key != name} | {"stranger": np.zeros(2, np.float32)}
    with pytest.raises(ValueError, match=f"1 missing: {name}; 1 extra: stranger"):
        create("pretrained", weights=write(tmp_path / "lacking", SIGLIP, lacking), image_size=64)
    folder = tmp_path / "short"
    write(folder, SIGLIP)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])
    with pytest.raises(ValueError, match="truncated"):
        create("pretrained", weights=str(folder), image_size=64)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON|truncated"):
        create("pretrained", weights=str(folder), image_size=64)
    with pytest.raises(FileNotFoundError, match="not a file, a folder or a hub name"):
        create("dinov2_b14", weights="/nowhere/at/all", image_size=256)


def test_sizes_of_images(dinov2):
    assert [input_side(size, 14) for size in (256, 224, 512, 384)] == [224, 224, 448, 336]
    assert [input_side(size, 16) for size in (256, 384)] == [256, 384]
    with pytest.raises(ValueError, match="image_size=250"):
        create("pretrained", weights=dinov2, image_size=250)
    with pytest.raises(ValueError, match="60×60 pixels cannot be cut into patches of 14×14"):
        create("pretrained", weights=dinov2, image_size=64, input_size=60)
    with pytest.raises(ValueError, match="interpolation 'nearest'"):
        create("pretrained", weights=dinov2, image_size=64, interpolation="nearest")


def test_registered_names():
    assert {"dinov2_g14", "dinov2_b14_reg", "siglip2_g16_256", "clip_bigg14", "mae_l16", "dinov3_7b16"} <= set(
        names()
    )


SHARDED = """
import sys
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from fae_jax.encoders import create
mesh = jax.make_mesh((4,), ("fsdp",), axis_types=(AxisType.Auto,))
def place(shapes):
    def of(leaf):
        for axis, size in reversed(list(enumerate(leaf.shape))):
            if size % 4 == 0:
                return NamedSharding(mesh, P(*[None] * axis, "fsdp"))
        return NamedSharding(mesh, P())
    return jax.tree.map(of, shapes)
whole = create("pretrained", weights=sys.argv[1], image_size=64)
cut = create("pretrained", weights=sys.argv[1], image_size=64, place=place)
for one, other in zip(jax.tree.leaves(whole.params), jax.tree.leaves(cut.params), strict=True):
    np.testing.assert_array_equal(one, other)
kernel = cut.params["trunk"]["blocks"]["block"]["attention"]["qkv"]["kernel"]
assert kernel.addressable_shards[0].data.size * 4 == kernel.size
print("same")
"""


def test_parameters_go_to_their_shards(dinov2):
    flags = " ".join(("--xla_force_host_platform_device_count=4", *QUICK))
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, dinov2], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "same", done.stderr[-2000:]
