"""The map of an atlas as a figure: reads from the atlas what `imatlas.plots` draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from imatlas.errors import InputError, ParameterError
from imatlas.images.pixels import display_view

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from imatlas.atlas.atlas import Atlas

Show = Literal["exemplar", "mean", "prototype", "u-matrix", "u-matrix-between", "hits"]
Outline = Literal["clusters", "regions", "none"]
SHOWS = ("exemplar", "mean", "prototype", "u-matrix", "u-matrix-between", "hits")
OUTLINES = ("clusters", "regions", "none")

MAX_PER_MEAN = 200
"""Most images of a cell whose mean is computed; more make no visible difference."""

INCHES = 8.0


def draw_map(atlas: Atlas, show: Show = "exemplar", *, outline: Outline = "clusters") -> Figure:
    """Draw the map of an atlas; see `Atlas.map_figure`."""
    from imatlas import plots

    if show not in SHOWS:
        raise ParameterError(f"The 'show' parameter must be one of {', '.join(SHOWS)}. Got {show!r} instead.")
    if outline not in OUTLINES:
        raise ParameterError(f"The 'outline' parameter must be one of {', '.join(OUTLINES)}. Got {outline!r} instead.")
    som = atlas.model("map")
    options: dict[str, Any] = {"width": INCHES}
    if outline == "clusters":
        options["clusters"] = atlas.decided_clusters.merged[atlas.model("clusters").predict(som.codebook_)]
    elif outline == "regions":
        options["clusters"] = atlas.regions.labels
    if show in ("u-matrix", "u-matrix-between"):
        return plots.u_matrix(som, between=show == "u-matrix-between", **options)
    if show == "hits":
        return plots.hit_map(som, atlas.store.rows["cell"], **options)
    if show == "prototype":
        return plots.image_sheet(som, show="prototype", decode=_decoder(atlas), **options)
    rows = _nearest(atlas, som) if show == "exemplar" else _members(atlas, len(som.codebook_))
    cells = atlas.store.rows["cell"][rows]
    if show == "mean":
        return plots.image_sheet(
            som, display_view(atlas.store.pixels(rows), atlas.store.spec), cells, show="mean", **options
        )
    pictures: list[bytes | None] = [None] * len(som.codebook_)
    for cell, thumbnail in zip(cells.tolist(), atlas.store.thumbnails(rows), strict=True):
        pictures[cell] = thumbnail
    return plots.picture_map(som, pictures, **options)


def _nearest(atlas: Atlas, som: Any) -> np.ndarray:
    """The image nearest to each prototype, for cells with images."""
    from imatlas.plots.pictures import exemplars

    found = exemplars(som, atlas.embedding, atlas.store.rows["cell"])
    return found[found >= 0]


def _members(atlas: Atlas, n_cells: int) -> np.ndarray:
    """Up to `MAX_PER_MEAN` images of each cell, evenly spaced in their order."""
    members = [np.flatnonzero(atlas.store.rows["cell"] == cell) for cell in range(n_cells)]
    chosen = [m if len(m) <= MAX_PER_MEAN else m[np.linspace(0, len(m) - 1, MAX_PER_MEAN).astype(int)] for m in members]
    return np.concatenate(chosen)


def _decoder(atlas: Atlas) -> Any:
    """Decoder from prototypes to pixels: the autoencoder whose codes the map was learned from.

    Raises
    ------
    InputError
        If the map was learned from features that cannot be decoded.
    """
    encoder = atlas.model("encoder")
    if not hasattr(encoder, "inverse_transform"):
        raise InputError(
            f"The prototypes of '{atlas.folder}' are features of a {type(encoder).__name__}, which cannot be decoded "
            "into pictures; show 'mean' or 'exemplar', or learn with encoder='own' (--encoder own)."
        )
    return lambda codes: display_view(encoder.inverse_transform(codes), atlas.store.spec)
