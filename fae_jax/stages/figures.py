"""Images of scores: class rows, originals beside reconstructions, features as colours, samples and their nearest.

Each function takes arrays and returns one `PIL.Image`, transparent between the images and lettered in a grey that
reads on white and on black. `write_figure` puts it into `evaluation/figures/` with its caption inside the PNG, where
the report finds both.

Features become colours as `tokenizers.feature_space.feature_colours` says: equal colours in both maps mean equal
features, and what the latent lost is seen as a change of colour.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from fae_jax.files.paths import Path
from fae_jax.files.writing import write_atomically
from fae_jax.tokenizers.feature_space import feature_colours

CAPTION_KEY = "Description"
GRID_ROWS, GRID_COLUMNS = 20, 12  # classes, and images of each, in a grid by class
LETTERING = (124, 130, 141, 255)
ALARM = (217, 72, 62, 255)
LINES = (
    (46, 113, 204),
    (217, 120, 33),
    (46, 152, 96),
    (150, 86, 186),
    (196, 66, 90),
    (110, 110, 40),
)  # colours of a chart


def cell_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """Rows and columns at which an image is drawn: small ones enlarged by a whole factor, large ones reduced.

    The longer side comes near `longest` pixels, and never above.
    """
    longer = max(height, width)
    if longer <= longest:
        factor = max(longest // longer, 1)
        return height * factor, width * factor
    return max(round(height * longest / longer), 1), max(round(width * longest / longer), 1)


def _draw_cell(image: np.ndarray, size: tuple[int, int]) -> Image.Image:
    method = Image.Resampling.NEAREST if size[0] >= image.shape[0] else Image.Resampling.LANCZOS
    return Image.fromarray(image).resize((size[1], size[0]), method)


class Sheet:
    """A transparent sheet of equal cells with a gap between them, room for lettering left of and below cells."""

    def __init__(
        self,
        rows: int,
        columns: int,
        cell: tuple[int, int],
        *,
        gap: int,
        left: int = 0,
        below: int = 0,
        margin: int = 0,
        lettering: int | None = None,
    ):
        self.cell, self.gap, self.left, self.below, self.margin = cell, gap, left, below, margin
        width = left + columns * (cell[1] + gap) - gap + 2 * margin
        height = rows * (cell[0] + below + gap) - gap + 2 * margin
        self.image = Image.new("RGBA", (max(width, 1), max(height, 1)), (0, 0, 0, 0))
        self.draw = ImageDraw.Draw(self.image)
        self.font = ImageFont.load_default(size=lettering or _lettering_size(cell))

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Pixel x and y of a cell's upper left corner."""
        return (
            self.margin + self.left + column * (self.cell[1] + self.gap),
            self.margin + row * (self.cell[0] + self.below + self.gap),
        )

    def put(self, row: int, column: int, image: np.ndarray) -> None:
        """Draws an image into a cell."""
        self.image.paste(_draw_cell(image, self.cell), self.corner(row, column))

    def write(
        self, x: int | float, y: int | float, text: str, *, anchor: str, colour: tuple[int, int, int, int] = LETTERING
    ) -> None:
        """Letters `text` at a point; anchors as PIL names them."""
        self.draw.text((x, y), text, font=self.font, fill=colour, anchor=anchor)

    def name_row(self, row: int, text: str) -> None:
        """Letters `text` in front of a row."""
        x, y = self.corner(row, 0)
        self.write(x - 12, y + self.cell[0] / 2, text, anchor="rm")

    def frame(self, row: int, column: int, colour: tuple[int, int, int, int]) -> None:
        """Draws a frame around a cell, into the gap."""
        x, y = self.corner(row, column)
        self.draw.rectangle((x - 4, y - 4, x + self.cell[1] + 3, y + self.cell[0] + 3), outline=colour, width=2)


def _lettering_size(cell: tuple[int, int]) -> int:
    return max(12, min(20, cell[0] // 3))


def _lettering_width(names: Sequence[str], cell: tuple[int, int]) -> int:
    font = ImageFont.load_default(size=_lettering_size(cell))
    return int(max(font.getlength(name) for name in names)) + 14 if any(names) else 0


def _short(text: str, letters: int = 22) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"


def class_grid(
    images: UInt8[np.ndarray, "n y x 3"],
    labels: Int[np.ndarray, " n"],
    class_names: Sequence[str],
    *,
    columns: int = GRID_COLUMNS,
    rows: int = GRID_ROWS,
    cell: int = 64,
) -> Image.Image:
    """A row of images per class, the class's name in front, for the first `rows` classes.

    A row holds the first `columns` of its class. Classes without images have no row; missing images leave their
    place empty.

    Raises:
      ValueError: there are no images.
    """
    if not len(images):
        raise ValueError("a grid needs at least one image")
    drawn = np.unique(labels)[:rows]
    names = [_short(class_names[label]) for label in drawn]
    size = cell_size(images.shape[1], images.shape[2], cell)
    widest = min(columns, max(int(np.sum(labels == label)) for label in drawn))
    sheet = Sheet(len(drawn), widest, size, gap=4, left=_lettering_width(names, size))
    for row, (label, name) in enumerate(zip(drawn, names, strict=True)):
        sheet.name_row(row, name)
        for column, image in enumerate(images[labels == label][:columns]):
            sheet.put(row, column, image)
    return sheet.image


def reconstruction_pairs(
    originals: UInt8[np.ndarray, "n y x 3"],
    reconstructions: UInt8[np.ndarray, "n y x 3"],
    *,
    columns: int = 10,
    cell: int = 96,
) -> Image.Image:
    """Originals in one row, their reconstructions right under them, as many double rows as it takes."""
    count = len(originals)
    columns = min(columns, count)
    size = cell_size(originals.shape[1], originals.shape[2], cell)
    blocks = -(-count // columns)
    words = ("original", "rebuilt")
    sheet = Sheet(2 * blocks, columns, size, gap=4, left=_lettering_width(words, size))
    for position in range(count):
        block, column = divmod(position, columns)
        sheet.put(2 * block, column, originals[position])
        sheet.put(2 * block + 1, column, reconstructions[position])
    for row in range(2 * blocks):
        sheet.name_row(row, words[row % 2])
    return sheet.image


def feature_maps(
    images: UInt8[np.ndarray, "n y x 3"],
    features: Float[np.ndarray, "n t d"],
    reconstructed: Float[np.ndarray, "n t d"],
    grid: tuple[int, int],
    *,
    cell: int = 96,
) -> Image.Image:
    """Three rows: images, their features x, the same features after the latent x̂, in the same colours.

    Raises:
      ValueError: as `feature_colours`.
    """
    before, after = feature_colours(features, reconstructed, grid)
    size = cell_size(images.shape[1], images.shape[2], cell)
    words = ("image", "x", "x after z")
    sheet = Sheet(3, len(images), size, gap=6, left=_lettering_width(words, size))
    for row, shades in enumerate((images, before, after)):
        sheet.name_row(row, words[row])
        for column, image in enumerate(shades):
            sheet.put(row, column, image)
    return sheet.image


def nearest_pairs(
    samples: UInt8[np.ndarray, "n y x 3"],
    train_images: UInt8[np.ndarray, "m y x 3"],
    index: Int[np.ndarray, " n"],
    distances: Float[np.ndarray, " n"],
    close: Bool[np.ndarray, " n"],
    *,
    columns: int = 8,
    cell: int = 64,
) -> Image.Image:
    """Each sample (left) beside its nearest training image (right), the distance under them; close ones framed.

    Args:
      index, distances, close: of these samples, as the metric `nearest` has them.
    """
    count = len(samples)
    columns = min(columns, count)
    height, width = cell_size(samples.shape[1], samples.shape[2], cell)
    pair = np.zeros((count, height, 2 * width + 2, 4), np.uint8)
    for position in range(count):
        pair[position, :, :width, :3] = np.asarray(_draw_cell(samples[position], (height, width)))
        pair[position, :, width + 2 :, :3] = np.asarray(_draw_cell(train_images[index[position]], (height, width)))
    pair[:, :, :width, 3] = pair[:, :, width + 2 :, 3] = 255
    sheet = Sheet(-(-count // columns), columns, (height, 2 * width + 2), gap=16, below=22, margin=6, lettering=14)
    for position in range(count):
        row, column = divmod(position, columns)
        sheet.put(row, column, pair[position])
        if close[position]:
            sheet.frame(row, column, ALARM)
        x, y = sheet.corner(row, column)
        colour = ALARM if close[position] else LETTERING
        sheet.write(x + width + 1, y + height + 6, f"{distances[position]:.3f}", anchor="mt", colour=colour)
    return sheet.image


def least_and_most(distances: Shaped[np.ndarray, " n"], count: int) -> Int[np.ndarray, " k"]:
    """Which samples to show when not all fit: the nearest half first, then an even walk to the farthest."""
    order = np.argsort(distances, kind="stable")
    if len(order) <= count:
        return order
    first = -(-count // 2)
    rest = np.linspace(first, len(order) - 1, count - first).round().astype(np.int64)
    return np.concatenate([order[:first], order[rest]])


def write_figure(workdir: Path, name: str, figure: Image.Image, caption: str) -> Path:
    """Writes `evaluation/figures/NAME.png` atomically, with the caption inside; returns its path.

    The report knows the names `reconstructions`, `features` and `nearest` and shows any other beside the results.

    Raises:
      OSError: the working directory cannot be written; an earlier figure is kept.
    """
    text = PngImagePlugin.PngInfo()
    text.add_itxt(CAPTION_KEY, caption)
    buffer = io.BytesIO()
    figure.save(buffer, "PNG", pnginfo=text, optimize=True)
    return write_atomically(workdir / "evaluation" / "figures" / f"{name}.png", buffer.getvalue())


def line_chart(lines: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str) -> Image.Image:
    """Lines by name over a common grid, each with its points; `x` and `y` name the axes.

    Raises:
      ValueError: there are no points.
    """
    points = [point for line in lines.values() for point in line]
    if not points:
        raise ValueError("a chart needs at least one point")
    width, height, left, below = 640, 360, 70, 46
    font = ImageFont.load_default(size=14)
    image = Image.new("RGBA", (width, height + 22 * len(lines)), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    (low_x, high_x), (low_y, high_y) = ((min(side), max(side)) for side in zip(*points, strict=True))

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = (point[0] - low_x) / (high_x - low_x or 1)
        up = (point[1] - low_y) / (high_y - low_y or 1)
        return left + across * (width - left - 20), height - below - up * (height - below - 40)

    for value in np.linspace(low_y, high_y, 5):
        across = place((low_x, value))[1]
        draw.line((left, across, width - 20, across), fill=(*LETTERING[:3], 70))
        draw.text((left - 8, across), f"{value:.4g}", font=font, fill=LETTERING, anchor="rm")
    for value in sorted({point[0] for point in points}):
        draw.text(
            (place((value, low_y))[0], height - below + 8), f"{value:g}", font=font, fill=LETTERING, anchor="mt"
        )
    draw.text((left, 8), y, font=font, fill=LETTERING)
    draw.text((width - 20, height - 4), x, font=font, fill=LETTERING, anchor="rb")
    for number, (name, line) in enumerate(lines.items()):
        colour = (*LINES[number % len(LINES)], 255)
        draw.line([place(point) for point in line], fill=colour, width=2)
        for across, up in map(place, line):
            draw.ellipse((across - 3, up - 3, across + 3, up + 3), fill=colour)
        row = height + 22 * number + 6
        draw.line((left, row, left + 24, row), fill=colour, width=3)
        draw.text((left + 32, row), name, font=font, fill=LETTERING, anchor="lm")
    return image
