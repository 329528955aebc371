"""The pictures of a self-organizing map, as matplotlib figures that `save` writes as PNG, SVG or PDF at any size.

Each function takes a fitted `SOM` first, draws with `matplotlib.figure.Figure` (never pyplot, so no global state is
touched), and marks clusters where `clusters` gives one number a cell. matplotlib is the extra `imatlas[plots]`.

On a toroidal map the lattice is drawn as a sheet: what lies across its edges is not drawn there.
"""

from imatlas.plots.pictures import image_sheet, picture_map
from imatlas.plots.save import save
from imatlas.plots.values import component_planes, hit_map, u_matrix

__all__ = ["component_planes", "hit_map", "image_sheet", "picture_map", "save", "u_matrix"]
