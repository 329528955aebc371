"""Figures of a self-organizing map, drawn with matplotlib and saved as PNG, SVG or PDF at any size.

Each function takes a fitted `SOM` first, draws on a `matplotlib.figure.Figure` (not pyplot, so no global state
changes), and marks clusters where `clusters` gives one number per cell. matplotlib is the extra `imatlas[plots]`.

A toroidal map is drawn as a flat sheet, without the links across its edges.
"""

from imatlas.plots.pictures import image_sheet, picture_map
from imatlas.plots.save import save
from imatlas.plots.values import component_planes, hit_map, u_matrix

__all__ = ["component_planes", "hit_map", "image_sheet", "picture_map", "save", "u_matrix"]
