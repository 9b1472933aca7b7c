"""Image files that others made: found below one folder and nowhere else, checked, kept as they came."""

import errno
import os
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from pixelbert_fast.data.image_bounds import MAX_BYTES, MAX_PIXELS, closed_to, most_pixels, opened, undecoded
from pixelbert_fast.data.orientation import orientation_of, swaps_sides
from pixelbert_fast.errors import UserError

# Errors that are the name's own. Any other is the disk's, and stops the build instead of emptying the set.
_BAD_NAMES = (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)


class Unusable(Exception):
    """An image that cannot be in a set; the message is the reason, without the image's name."""


class ImageFolder:
    """The folder that the paths of an annotation file are relative to.

    Raises UserError where there is no such folder. Picklable.
    """

    def __init__(self, name: str, root: Path | str):
        given = Path(root).expanduser()
        what = f"{name}: --images names the folder that the images lie below"
        try:
            self.root = given.resolve(strict=True)
            with os.scandir(self.root):
                pass
        except FileNotFoundError:
            raise UserError(f"{what}, and there is no folder {given}") from None
        except NotADirectoryError:
            raise UserError(f"{what}, and {given} is a file") from None
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of symbolic links
            why = getattr(error, "strerror", None) or error
            raise UserError(f"{what}, and {given} cannot be read ({why})") from error

    def find(self, path: str) -> Path:
        """The file at `path` below the folder.

        Raises Unusable where there is none, or where the path leaves the folder: absolute, with `..`, or by a
        symbolic link.
        """
        parts = PurePosixPath(path).parts
        if not parts or "\0" in path:
            raise Unusable("no image file is named")
        if parts[0].startswith("/") or ".." in parts:
            raise Unusable("path of the image leaves the folder of images")
        try:
            file = (self.root / path).resolve(strict=True)
            regular = stat.S_ISREG(file.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            raise Unusable("image file is missing") from None
        except (PermissionError, RuntimeError, UnicodeEncodeError) as error:
            raise Unusable("image file cannot be read") from error
        except OSError as error:
            if error.errno in _BAD_NAMES:
                raise Unusable("image file cannot be read") from error
            raise
        if not file.is_relative_to(self.root):
            raise Unusable("path of the image leaves the folder of images")
        if not regular:  # a pipe would never end
            raise Unusable("not a file but a folder or device")
        return file

    def first_of(self, paths: Sequence[str]) -> str:
        """The first of these paths at which something lies, else the first of them."""
        return next((path for path in paths if os.path.lexists(self.root / path)), paths[0])

    def read(self, path: str) -> dict:
        """The columns image, height and width of the file at `path`. Raises Unusable, as `find` does too."""
        file = self.find(path)
        try:
            with file.open("rb") as stream:
                content = stream.read(MAX_BYTES + 1)
        except (FileNotFoundError, PermissionError) as error:
            raise Unusable("image file cannot be read") from error
        return image_columns(content)


def image_columns(content: bytes) -> dict:
    """The columns of an encoded image: image (the same bytes), height and width the right way up.

    The size is read from the header and bounded (see `image_bounds`) before anything is decoded; the picture
    is then decoded once, JPEG at an eighth of its size, to find what is cut off.

    Raises Unusable for what is no image, broken, or too large.
    """
    if not content:
        raise Unusable("image file is empty")
    if len(content) > MAX_BYTES:
        raise Unusable(f"image file is larger than {MAX_BYTES >> 20} MiB")
    width, height = _upright_size(content)
    return {"image": content, "height": height, "width": width}


def _upright_size(content: bytes) -> tuple[int, int]:
    if reason := closed_to(content):
        raise Unusable(f"image {reason}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with opened(content) as image:
                width, height = image.size
                most = most_pixels(image, content)
                if width * height > most:
                    raise Unusable(f"image has more than {most:,} pixels")
                if not width or not height:
                    raise Unusable("image has no pixels")
                if reason := undecoded(image, content):
                    raise Unusable(f"image {reason}")
                image.draft("RGB", (1, 1))
                image.load()
                return (height, width) if swaps_sides(orientation_of(image)) else (width, height)
    except Unusable:
        raise
    except UnidentifiedImageError as error:
        raise Unusable("not an image") from error
    except Image.DecompressionBombError as error:
        raise Unusable(f"image has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # decoders raise nearly everything on broken input
        raise Unusable("image is truncated or broken") from error
