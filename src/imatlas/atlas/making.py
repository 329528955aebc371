"""The verbs of an `Atlas` that make images which do not exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from imatlas.arguments import strict_yes
from imatlas.atlas import new_images
from imatlas.atlas.deciding import Deciding
from imatlas.tasks.conditions import Cell


class Making(Deciding):
    """A part of `Atlas`; clusters are those that were decided."""

    @strict_yes
    def sample(
        self,
        n: int,
        *,
        cell: Cell | Sequence[Cell] | None = None,
        cluster: int | Sequence[int] | None = None,
        like: Any = None,
        strength: float = 0.6,
        weights: Sequence[float] | None = None,
        novelty: float | None = None,
        shape: tuple[int, int] | None = None,
        tile: bool = False,
        return_provenance: bool = False,
        random_state: int = 0,
    ) -> Any:
        """New images; image i depends only on (`random_state`, i).

        `novelty`, `shape`, `tile` and `return_provenance` need a generator that composes images of patches, a
        `imatlas.PatchDiffusion`.

        Parameters
        ----------
        n : int
        cell : (row, column), flat index, or several, optional
            Cells of the map to sample from.
        cluster : int or several, optional
            Clusters to sample from.
        like : image or several, optional
            Alone: variations of these images, in turn. With cells or clusters: the cells of these images are added.
        strength : float in [0, 1]
            Of variations: 0 reconstructs the image, 1 is a new image of its cell.
        weights : sequence of float, optional
            Relative frequency of each cell, cluster and image asked for, in this order. None: equal.
        novelty : float in [0, 1], optional
            0: near the images of the atlas, 1: free collage. None: as the generator was calibrated.
        shape : (height, width), optional
            Of the new images in pixels. None: as the generator was fitted.
        tile : bool
            Whether opposite borders fit each other, so that copies can be laid side by side without a seam.
        return_provenance : bool
            Also return from which images of the atlas the pixels come.

        Returns
        -------
        images : array (n, H, W, C) uint8
        provenance : imatlas.atlas.new_images.Provenance
            Only with `return_provenance`: rows of the table for each pixel, and keys with their shares. An update
            keeps the generator; images that it removes from the atlas remain sources, without a row.

        Raises
        ------
        ParameterError
            If a number is out of its range.
        InputError
            If there is no such cell or cluster, an image cannot be read, or the generator lacks an option.
        """
        return new_images.sample(
            self.store,
            n,
            targets={"cell": cell, "cluster": cluster, "weights": weights},
            merged=self.decided_clusters.merged,
            like=like,
            strength=strength,
            options={"novelty": novelty, "shape": shape, "tile": tile},
            return_provenance=return_provenance,
            random_state=random_state,
        )

    def morph(
        self,
        *images: Any,
        cells: Sequence[Cell] = (),
        frames: int = 60,
        novelty: float | None = None,
        random_state: int = 0,
    ) -> np.ndarray:
        """A video from image to image, or along a path of cells, through images that do not exist.

        Parameters
        ----------
        *images : images
            Two or more; the video passes through their reconstructions.
        cells : sequence of (row, column) or flat index
            Two or more, instead of images: new images of these cells and all between them, from the same noise.
        frames : int
        novelty : float in [0, 1], optional
            As in `sample`.
        random_state : int
            Seed of the noise.

        Returns
        -------
        array (frames, H, W, C) uint8

        Raises
        ------
        ParameterError
            If `frames` is not an int of at least 2, or another number is out of its range.
        InputError
            If fewer than two images or cells are given, or the generator has no `novelty`.
        """
        options: dict[str, Any] = {"frames": frames, "novelty": novelty, "random_state": random_state}
        return new_images.morph(self.store, images, cells, **options)

    def blend(
        self,
        first: Any,
        second: Any,
        mask: Any = None,
        *,
        axis: new_images.Axis | None = None,
        strength: float = 0.5,
        novelty: float | None = None,
        random_state: int = 0,
    ) -> np.ndarray:
        """One image of two: the first where a mask is black, the second where it is white, joined by what is similar.

        The join is a collage where the images differ, so a mask should follow what is in them.

        Parameters
        ----------
        first, second : images
        mask : path of a gray picture, number, or array (H, W) from 0 to 1, optional
            How much of the second image is wanted; of the size of the first image, or of the generator's images. None:
            half of each everywhere.
        axis : {'horizontal', 'vertical'}, optional
            Instead of a mask: from the first image on the left, or at the top, to the second on the right, or below.
        strength : float in [0, 1]
            0 cross-fades; with more, what is joined is composed anew.
        novelty : float in [0, 1], optional
            As in `sample`.
        random_state : int

        Returns
        -------
        array (H, W, C) uint8
            In the size of the generator's images.

        Raises
        ------
        ParameterError
            If a number is out of its range, or there is no such axis.
        InputError
            If the mask does not fit, there are both mask and axis, or the generator blends no images.
        """
        options: dict[str, Any] = {"strength": strength, "novelty": novelty, "random_state": random_state}
        return new_images.blend(self.store, first, second, mask, axis=axis, **options)

    def panorama(
        self,
        *images: Any,
        cells: Sequence[Cell] = (),
        shape: tuple[int, int] | None = None,
        novelty: float | None = None,
        random_state: int = 0,
    ) -> np.ndarray:
        """One wide new image along a path through the atlas: its beginning on the left, its end on the right.

        Parameters
        ----------
        *images : images
            One or more; at each place on the path the new image is composed of what is similar to them.
        cells : sequence of (row, column) or flat index
            One or more, instead of images; the path leads over the cells between them.
        shape : (height, width), optional
            In pixels. None: as high as the images of the generator, and one image wide for each image or cell and for
            each space between two, at least three.
        novelty : float in [0, 1], optional
            As in `sample`.
        random_state : int

        Returns
        -------
        array (height, width, C) uint8

        Raises
        ------
        ParameterError
            If a number is out of its range.
        InputError
            If neither or both of images and cells are given, or the generator composes no panoramas.
        """
        options: dict[str, Any] = {"shape": shape, "novelty": novelty, "random_state": random_state}
        return new_images.panorama(self.store, images, cells, **options)

    def inpaint(
        self, images: Any, mask: Any = None, *, novelty: float | None = None, random_state: int = 0
    ) -> np.ndarray:
        """Images whose missing pixels are filled in from the images of the atlas; known pixels stay as they are.

        Parameters
        ----------
        images : image or sequence of images
        mask : path of a black and white picture, or array (H, W) or (n, H, W) of bool, optional
            White, or True, where a pixel is missing; of the size of the image, or of the generator's images. None:
            pixels that are fully transparent, NaN or masked.
        novelty : float in [0, 1], optional
            As in `sample`.
        random_state : int

        Returns
        -------
        array (n, H, W, C) uint8
            In the size of the generator's images.

        Raises
        ------
        ParameterError
            If a number is out of its range.
        InputError
            If the mask does not fit, no pixel or no other is missing, or the generator fills in no pixels.
        """
        return new_images.inpaint(self.store, images, mask, novelty, random_state)

    def extend(
        self,
        image: Any,
        shape: tuple[int, int],
        *,
        at: tuple[int, int] | None = None,
        novelty: float | None = None,
        random_state: int = 0,
    ) -> np.ndarray:
        """An image on a larger canvas, continued beyond its borders.

        Parameters
        ----------
        image : image
        shape : (height, width)
            Of the canvas in pixels, at least that of the generator's images.
        at : (top, left), optional
            Where the image lies on the canvas. None: in its middle.
        novelty : float in [0, 1], optional
            As in `sample`.
        random_state : int

        Returns
        -------
        array (height, width, C) uint8

        Raises
        ------
        ParameterError
            If a number is out of its range.
        InputError
            If the image does not fit on the canvas, or the generator extends no images.
        """
        options: dict[str, Any] = {"at": at, "novelty": novelty, "random_state": random_state}
        return new_images.extend(self.store, image, shape, **options)

    def sliders(self, image: Any = None, *, directions: int = 8, steps: int = 9) -> np.ndarray:
        """What changes along the directions of largest variance in latent space; see `imatlas.Autoencoder.sliders`.

        Parameters
        ----------
        image : image, optional
            Starting point. None: the mean of all images.
        directions, steps : int
            Number of directions, largest variance first, and of images along each.

        Returns
        -------
        array (directions, steps, H, W, C) uint8

        Raises
        ------
        InputError
            If neither generator nor encoder has latent vectors, or the image cannot be read.
        """
        return new_images.sliders(self.store, image, directions, steps)
