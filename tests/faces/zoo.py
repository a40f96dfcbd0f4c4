"""Images of every kind that users have: those that can be explained, and those that cannot."""

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

CHELSEA = Path(importlib.util.find_spec("skimage").origin).parent / "data" / "chelsea.png"


TINY = ("--model", "timm:test_resnet", "--weights", "random")  # a network for the command line


def cat(size=(96, 80)):
    return Image.open(CHELSEA).convert("RGB").resize(size)


def good(folder):
    """Name -> what must be said about it, or None."""
    photo = cat()
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.rotate(90, expand=True).save(folder / "rotated.jpg", exif=exif)
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    photo.quantize(16).save(folder / "palette.png")
    transparent = photo.convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(photo.size))
    transparent.save(folder / "transparent.png")
    photo.convert("L").save(folder / "gray.png")
    Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257).save(folder / "sixteen.png")
    photo.save(folder / "animated.gif", save_all=True, append_images=[photo.rotate(90), photo.rotate(180)])
    photo.save(folder / "pages.tif", save_all=True, append_images=[photo])
    Image.new("RGB", (1, 1), "red").save(folder / "one-pixel.png")
    photo.resize((6000, 4)).save(folder / "wide.png")
    photo.save(folder / "<script>alert(1)<script>.jpg".replace("/", ""))
    photo.save(folder / "[red]markup[-red].jpg")
    return {
        "rotated.jpg": "upright",
        "cmyk.jpg": "CMYK",
        "palette.png": "palette",
        "transparent.png": "over white",
        "gray.png": None,
        "sixteen.png": "16-bit",
        "animated.gif": "first of 3",
        "pages.tif": "first of 2",
        "one-pixel.png": None,
        "wide.png": "sees",
        "<script>alert(1)<script>.jpg": None,
        "[red]markup[-red].jpg": None,
    }


def broken(folder):
    """Name -> what must be said about it."""
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("I am not a picture.")
    cat().save(folder / "whole.jpg")
    content = (folder / "whole.jpg").read_bytes()
    (folder / "whole.jpg").unlink()
    (folder / "truncated.jpg").write_bytes(content[: len(content) // 2])
    (folder / "bomb.png").write_bytes(bomb())
    return {"empty.jpg": "empty", "text.jpg": "not an image", "truncated.jpg": "truncated", "bomb.png": "pixels"}


def bomb():
    """A small PNG whose header claims 60,000 x 60,000 pixels."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
