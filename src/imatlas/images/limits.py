"""How large a picture may be, and from what size on it is read another way."""

MAX_PIXELS = 2**27
"""The most pixels in one picture that are decoded: 134 million; fewer where there are more than four channels."""

MAX_FRAMES = 10_000
"""The most frames of one file that are used with `frames="all"`."""

MAX_SIDE = 2**19
"""The longest side of a picture that is decoded: 524,288 pixels."""

CHEAP = 2**20
"""Pixels of a picture that is too small to be counted: a few megabytes for each thread."""

LONG = 4096
"""The longest side of the gray picture that is hashed."""

LARGE = 2**26
"""Bytes of a decoded picture from which one that will be made small is reduced while it is read."""

SMALL_SIDE, SMALL_BYTES = 512, 2**20
"""The longest side and the largest file of a picture that is meant to be a thumbnail."""
