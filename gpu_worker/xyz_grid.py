"""Draws the grids of an X/Y/Z plot: pictures side by side, with what differs above and beside them."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

INK, PAPER = (0, 0, 0), (255, 255, 255)
LINES_SHARE = 25  # the WebUI's fontsize: a 25th of a picture's sides together, over its text area
LEAST_FONT, MOST_FONT = 10, 48


def draw(
    rows: Sequence[Sequence[Image.Image]],
    across: Sequence[str],
    down: Sequence[str],
    *,
    has_legend: bool,
    margin: int,
) -> Image.Image:
    """One picture of all, each in a cell of the largest one's size, labelled `across` the top and `down`."""
    cell = max(one.width for row in rows for one in row), max(one.height for row in rows for one in row)
    font = ImageFont.load_default(max(LEAST_FONT, min(MOST_FONT, sum(cell) // LINES_SHARE)))
    left = _side(down, cell[0], font) if has_legend and any(down) else 0
    tops = [_wrapped(label, cell[0], font) for label in across]
    top = max(_height(label, font) for label in tops) if has_legend and any(across) else 0
    columns = max(len(row) for row in rows)
    width = left + columns * cell[0] + (columns - 1) * margin
    height = top + len(rows) * cell[1] + (len(rows) - 1) * margin
    grid = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(grid)
    for y, row in enumerate(rows):
        corner = top + y * (cell[1] + margin)
        if left:
            words = _wrapped(down[y], left, font)
            pen.multiline_text((left // 2, corner + cell[1] // 2), words, INK, font, "mm", align="center")
        for x, picture in enumerate(row):
            place = left + x * (cell[0] + margin)
            grid.paste(picture.convert("RGB"), (place, corner))
            if top and y == 0:
                pen.multiline_text((place + cell[0] // 2, top // 2), tops[x], INK, font, "mm", align="center")
    return grid


def titled(grid: Image.Image, title: str) -> Image.Image:
    """The grid with a line of text above it."""
    font = ImageFont.load_default(max(LEAST_FONT, min(MOST_FONT, grid.width // LINES_SHARE)))
    words = _wrapped(title, grid.width, font)
    top = _height(words, font)
    page = Image.new("RGB", (grid.width, grid.height + top), PAPER)
    ImageDraw.Draw(page).multiline_text((grid.width // 2, top // 2), words, INK, font, "mm", align="center")
    page.paste(grid, (0, top))
    return page


def _side(labels: Sequence[str], cell: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    """The width that the labels beside the rows take: at most three quarters of a picture."""
    longest = max(int(font.getlength(label)) for label in labels)
    return min(longest + 2 * LEAST_FONT, max(cell * 3 // 4, 4 * LEAST_FONT))


def _wrapped(label: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    lines: list[str] = []
    for word in label.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def _height(words: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    size = getattr(font, "size", LEAST_FONT)
    return int((words.count("\n") + 1) * size * 1.3) + LEAST_FONT
