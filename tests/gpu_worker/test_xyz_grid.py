"""Grids of pictures."""

import numpy as np
from PIL import Image

from gpu_worker import xyz_grid

RED, BLUE = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (20, 30), "blue")


def test_pictures_lie_in_their_cells() -> None:
    grid = xyz_grid.draw([[RED, BLUE], [BLUE, RED]], ["", ""], ["", ""], has_legend=True, margin=4)
    assert grid.size == (84, 64)
    assert grid.getpixel((10, 10)) == (255, 0, 0)
    assert grid.getpixel((46, 10)) == (0, 0, 255)
    assert grid.getpixel((41, 10)) == (255, 255, 255)
    assert grid.getpixel((46, 40)) == (255, 0, 0)


def test_a_legend_takes_room_above_and_beside() -> None:
    plain = xyz_grid.draw([[RED]], ["Steps: 5"], ["Seed: 1"], has_legend=False, margin=0)
    grid = xyz_grid.draw([[RED]], ["Steps: 5"], ["Seed: 1"], has_legend=True, margin=0)
    assert plain.size == (40, 30)
    assert grid.width > 60
    assert grid.height > 40
    assert np.asarray(grid)[:10].min() < 100  # ink
    higher = xyz_grid.titled(grid, "CFG Scale: 7")
    assert higher.height > grid.height
