"""The figures of `fae_jax.evaluation.semantics`, like the paper's 8 to 11.

similarity   images with the query marked, and how similar each patch is to it in x, x̂ and z
matching     pairs of images with lines from each query to its match, in x, x̂ and z
"""

from __future__ import annotations

import colorsys

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw

from fae_jax.evaluation.semantics import SPACES, Semantics, similarity_map
from fae_jax.files.paths import Path
from fae_jax.stages.figures import Sheet, cell_size, write_figure

WORDS = {"x": "x", "reconstructed": "x after z", "z": "z"}
# dark blue through green to yellow, of even steps in lightness
SCALE = np.array([(38, 22, 68), (54, 76, 130), (41, 124, 135), (67, 171, 112), (168, 207, 66), (250, 230, 80)], float)
MARK = (235, 60, 50)


def heat(values: Float[np.ndarray, "y x"]) -> UInt8[np.ndarray, "y x 3"]:
    """A map as colours, its lowest value dark and its highest bright."""
    low, high = float(values.min()), float(values.max())
    places = (values - low) / max(high - low, 1e-12) * (len(SCALE) - 1)
    channels = [np.interp(places, np.arange(len(SCALE)), SCALE[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _box(place: Int[np.ndarray, " 2"], grid: tuple[int, int], size: tuple[int, int]) -> tuple[float, ...]:
    """Left, top, right and bottom of a patch in an image of (rows, columns) pixels."""
    tall, wide = size[0] / grid[0], size[1] / grid[1]
    return place[1] * wide, place[0] * tall, (place[1] + 1) * wide - 1, (place[0] + 1) * tall - 1


def _resized(image: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> Image.Image:
    return Image.fromarray(image).resize((size[1], size[0]), method)


def similarity_figure(
    images: UInt8[np.ndarray, "n height width 3"], found: Semantics, *, cell: int = 128
) -> Image.Image:
    """A column per image: the image with its typical query framed, and the query's map in x, x̂ and z."""
    grid = found.spaces["x"].shape[1:3]
    size = cell_size(images.shape[1], images.shape[2], cell)
    sheet = Sheet(1 + len(SPACES), len(images), size, gap=5, left=92)
    for row, words in enumerate(("image", *(WORDS[name] for name in SPACES))):
        sheet.name_row(row, words)
    for column, image in enumerate(images):
        query = found.typical(column)
        shown = _resized(image, size, Image.Resampling.LANCZOS)
        ImageDraw.Draw(shown).rectangle(_box(query, grid, size), outline=MARK, width=2)
        sheet.put(0, column, np.asarray(shown))
        for row, name in enumerate(SPACES, start=1):
            values = similarity(found, name, column, query)
            sheet.put(row, column, np.asarray(_resized(heat(values), size, Image.Resampling.NEAREST)))
    return sheet.image


def similarity(found: Semantics, space: str, image: int, query: Int[np.ndarray, " 2"]) -> Float[np.ndarray, "y x"]:
    """The query's map in a space, with the query itself, always 1, at the highest value of the others."""
    values = similarity_map(found.spaces[space][image], query).copy()
    rest = np.ones(values.shape, bool)
    rest[tuple(query)] = False
    values[tuple(query)] = values[rest].max()
    return values


def matching_figure(
    images: UInt8[np.ndarray, "n height width 3"], found: Semantics, *, cell: int = 192
) -> Image.Image:
    """A row per pair and a column per space: the two images side by side, a line from each query to its match."""
    grid = found.spaces["x"].shape[1:3]
    size = cell_size(images.shape[1], images.shape[2], cell)
    pairs, between = len(images) // 2, 4
    sheet = Sheet(pairs, len(SPACES), (size[0], 2 * size[1] + between), gap=14, below=22, lettering=14)
    for row in range(pairs):
        asked = found.asked[2 * row]
        for column, name in enumerate(SPACES):
            shown = Image.new("RGBA", (2 * size[1] + between, size[0]), (0, 0, 0, 0))
            for side in (0, 1):
                image = _resized(images[2 * row + side], size, Image.Resampling.LANCZOS)
                shown.paste(image, (side * (size[1] + between), 0))
            draw = ImageDraw.Draw(shown)
            for number, (here, there) in enumerate(zip(asked, found.matched[name][row], strict=True)):
                hue = colorsys.hsv_to_rgb(number / max(len(asked), 1), 0.85, 1.0)
                colour = (*(round(255 * part) for part in hue), 255)
                first, second = _box(here, grid, size), _box(there, grid, size)
                start = ((first[0] + first[2]) / 2, (first[1] + first[3]) / 2)
                end = ((second[0] + second[2]) / 2 + size[1] + between, (second[1] + second[3]) / 2)
                draw.line((*start, *end), fill=colour, width=1)
                for x, y in (start, end):
                    draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour, outline=(0, 0, 0, 255))
            sheet.put(row, column, np.asarray(shown))
            x, y = sheet.corner(row, column)
            sheet.write(x + size[1] + between / 2, y + size[0] + 4, WORDS[name], anchor="mt")
    return sheet.image


def write_semantics_figures(
    workdir: Path, images: UInt8[np.ndarray, "n height width 3"], found: Semantics
) -> list[Path]:
    """Writes both figures with their captions; returns the PNGs' paths."""
    similar = (
        "Unseen images, and how similar each patch is to the framed one: in the encoder's features x, in x after "
        "the latent, and in the latent z itself. Each map runs from its own lowest to its own highest value."
    )
    matched = (
        "Patches of the left image and the most similar patch of the right one, in x, in x after the latent, and "
        "in z. The patches were found in x: k-means on its foreground."
    )
    return [
        write_figure(workdir, "similarity", similarity_figure(images, found), similar),
        write_figure(workdir, "matching", matching_figure(images, found), matched),
    ]
