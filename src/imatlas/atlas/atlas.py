"""Atlas: what was learned from a set of images, opened from its folder. A verb is a few lines over models and tasks."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imatlas.arguments import check_int, check_path
from imatlas.atlas import report_sections
from imatlas.atlas.exploring import Exploring
from imatlas.atlas.making import Making
from imatlas.atlas.map_figure import Outline, Show, draw_map
from imatlas.models import artifact
from imatlas.plots import save
from imatlas.report import render
from imatlas.result import Result
from imatlas.system.inventory import is_atlas
from imatlas.tasks.regions import Regions, regions

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Atlas(Exploring, Making):
    """A learned map of a set of images, read from its folder.

    Parameters
    ----------
    folder : path
        The `.atlas` folder that `learn` made. It may have been moved: what needs only the thumbnails goes on working.

    Raises
    ------
    SourceError
        If there is no atlas in `folder`.
    ArtifactError
        If it is damaged, of a newer format, or not far enough learned for the verb asked of it.

    Examples
    --------
    >>> atlas = imatlas.load("photos.atlas")          # doctest: +SKIP
    >>> atlas.search("query.jpg", k=10).to_pylist()   # doctest: +SKIP
    """

    def info(self) -> Result:
        """What the atlas holds and how it was learned, in words and numbers."""
        return report_sections.summary(self)

    def report(self, path: str | Path) -> Path:
        """Write everything as one HTML file that needs nothing else."""
        path = check_path(path, "path", "report")
        for what in ("encoder", "map", "clusters", "generator"):
            self._require(what, what in self.manifest.models)
        source = Path(self.manifest.source).name
        return render(
            report_sections.tell(self), title=self.name, subtitle=source, facts=report_sections.facts(self), path=path
        )

    @cached_property
    def regions(self) -> Regions:
        """The map divided into regions of neighboring cells that hold one kind of image; see `imatlas.tasks.regions`.

        Other than the clusters, which know nothing of the map, each region hangs together on it.
        """
        self._require("map", "map" in self.manifest.models)
        seed = self.manifest.settings["random_state"]
        return regions(self.model("map"), self.embedding, keys=self.rows["key"], random_state=seed)

    def map_figure(self, show: Show = "exemplar", *, outline: Outline = "clusters") -> Figure:
        """Draw the map.

        Parameters
        ----------
        show : {'exemplar', 'mean', 'prototype', 'u-matrix', 'u-matrix-between', 'hits'}
            In each cell the image nearest to its prototype, the mean of its images, or its prototype decoded (only
            where the map was learned from an autoencoder's codes); the distances of neighboring prototypes, a cell or
            also a gap between two cells; or how many images each cell holds.
        outline : {'clusters', 'regions', 'none'}
            What to outline and number: the clusters, or the regions of the map.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        InputError, ParameterError, MissingExtraError
        """
        for what in ("map", *(["clusters"] if outline == "clusters" else [])):
            self._require(what, what in self.manifest.models)
        return draw_map(self, show, outline=outline)

    def map(
        self,
        path: str | Path,
        show: Show = "exemplar",
        *,
        width: int = 2400,
        outline: Outline = "clusters",
        quality: int = 90,
    ) -> Path:
        """Write the map as a picture file; a file that is there is replaced.

        Parameters
        ----------
        path : path
            .png, .jpg, .webp or .tif for pixels; .svg or .pdf for vectors.
        show, outline
            As in `map_figure`.
        width : int
            In pixels; for vectors 96 of them are an inch.
        quality : int
            For .jpg and .webp, 1 to 100.

        Returns
        -------
        Path
            The file.
        """
        path, width = check_path(path, "path", "map"), check_int(width, "width", "map", low=1)
        quality = check_int(quality, "quality", "map", low=1, high=100)
        return save(self.map_figure(show, outline=outline), path, width_px=width, quality=quality)


def load(folder: str | Path, *, classes: tuple[type, ...] = ()) -> Any:
    """Open an atlas or a saved model, whichever is in `folder`.

    Parameters
    ----------
    folder : path
    classes : tuple of classes
        Models of your own that the table of imatlas does not know.

    Returns
    -------
    Atlas or Estimator

    Raises
    ------
    SourceError
        If there is neither in `folder`.
    ArtifactError
        If what is there is damaged or of a newer format.
    """
    folder = check_path(folder, "folder", "load")
    if is_atlas(folder):
        return Atlas(folder)
    return artifact.load(folder, classes=classes)
