"""Named sizes and lengths of videos, as Open-Sora writes them."""

from pavdm_jax.errors import ConfigError

FRAME_COUNTS = {f"{n}x": 51 * n for n in (1, 2, 4, 8, 16)} | {f"{2 * n}s": 51 * n for n in (1, 2, 4, 8, 16)}
"""Pixel frames of the named lengths, multiples of three micro clips (Open-Sora opensora/datasets/aspect.py).

"2s" is 51 frames: 2 seconds at 25.5 fps.
"""


def frame_count(name: str) -> int:
    """The pixel frames of a named length, "1x" … "16x" or "2s" … "32s".

    Raises:
      ConfigError: there is no such name.
    """
    if name not in FRAME_COUNTS:
        raise ConfigError(f"unknown length {name!r}; known are {', '.join(FRAME_COUNTS)}")
    return FRAME_COUNTS[name]


_ALL = "3:8 9:21 12:25 1:2 9:17 27:50 9:16 5:8 2:3 3:4 1:1 4:3 3:2 16:9 17:9 2:1 50:27"

_FEW = "12:25 1:2 1:1 2:1"

_TABLE = {
    "144p": (
        _ALL,
        "117x312 125x291 133x277 135x270 139x262 141x260 144x256 151x241 156x234 166x221 192x192 221x165 235x156 "
        "256x144 263x139 271x135 277x132",
    ),
    "240p": (
        _ALL,
        "196x522 210x490 222x462 226x452 232x438 236x436 240x426 252x404 262x393 276x368 320x320 370x278 392x262 "
        "426x240 440x232 452x226 462x222",
    ),
    "360p": (
        _ALL,
        "294x784 314x732 332x692 340x680 350x662 352x652 360x640 380x608 392x588 416x554 480x480 554x416 588x392 "
        "640x360 660x350 678x340 692x332",
    ),
    "480p": (
        _ALL,
        "392x1046 420x980 444x925 452x904 466x880 470x870 480x854 506x810 522x784 554x738 640x640 740x555 784x522 "
        "854x480 880x466 906x454 924x444",
    ),
    "720p": (
        _ALL,
        "588x1568 628x1466 666x1388 678x1356 698x1318 706x1306 720x1280 758x1212 784x1176 832x1110 960x960 1108x832 "
        "1176x784 1280x720 1320x698 1358x680 1386x666",
    ),
    "1080p": (
        _ALL,
        "882x2352 942x2198 998x2080 1018x2036 1048x1980 1058x1958 1080x1920 1138x1820 1176x1764 1248x1664 1440x1440 "
        "1662x1246 1764x1176 1920x1080 1980x1048 2036x1018 2078x998",
    ),
    "256": (_FEW, "176x368 176x352 256x256 352x176"),
    "512": (_FEW, "352x736 352x704 512x512 704x352"),
    "1024": (_FEW, "704x1472 704x1408 1024x1024 1408x704"),
}


def _size(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


RESOLUTIONS: dict[str, dict[str, tuple[int, int]]] = {
    name: {ratio: _size(size) for ratio, size in zip(ratios.split(), sizes.split(), strict=True)}
    for name, (ratios, sizes) in _TABLE.items()
}
"""Height and width in pixels by name and aspect ratio (Open-Sora opensora/datasets/aspect.py).

The ratio is height to width, so "9:16" is a *wide* picture. It is a table because upstream rounded each size by hand.
Many sizes are no multiple of the VAE's latent cell: see `geometry.decoded_size`.
"""


def resolution(name: str, aspect_ratio: str) -> tuple[int, int]:
    """Height and width of a named resolution: ("240p", "9:16") → (240, 426); the ratio is height to width.

    Raises:
      ConfigError: there is no such resolution, or it has no such aspect ratio.
    """
    if name not in RESOLUTIONS:
        raise ConfigError(f"unknown resolution {name!r}; known are {', '.join(RESOLUTIONS)}")
    sizes = RESOLUTIONS[name]
    if aspect_ratio not in sizes:
        raise ConfigError(
            f"unknown aspect ratio {aspect_ratio!r} of {name}; known (height:width) are {', '.join(sizes)}"
        )
    return sizes[aspect_ratio]
