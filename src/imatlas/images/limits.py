"""Limits of the size of pictures, and the sizes from which other methods of reading are used."""

MAX_PIXELS = 2**27
"""Maximal number of pixels of a picture: 134 million, or fewer with more than four channels."""

MAX_FRAMES = 10_000
"""Maximal number of frames used per video, and per other file with `frames="all"`."""

MAX_VIDEO_FRAMES = 2**20
"""Maximal number of frames decoded per video, used or not: 11 hours of 25 per second."""

MAX_SIDE = 2**19
"""Maximal side of a picture in pixels: 524,288."""

CHEAP = 2**20
"""Number of pixels below which memory is not requested: a few megabytes per thread."""

LONG = 4096
"""Maximal side of the gray picture that is hashed."""

LARGE = 2**26
"""Decoded size in bytes from which a picture with a small target is reduced while it is read."""

SMALL_SIDE, SMALL_BYTES = 512, 2**20
"""Maximal side in pixels and file size in bytes of a thumbnail."""
