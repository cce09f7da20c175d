"""A new folder of an export. It appears as a whole, after its checks, or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from disk import disk_error, new_folder
from errors import UserError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOENT)


@contextmanager
def export_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write to. At the end flush it and rename it to `folder`; after an error delete it.

    Raises UserError for a folder with files, and for errors of the disk.
    """
    try:
        with new_folder(folder) as scratch:
            yield scratch
            mask = os.umask(0)
            os.umask(mask)
            for path in scratch.rglob("*"):  # safetensors makes files that only their owner may read
                path.chmod(0o777 & ~mask if path.is_dir() else 0o666 & ~mask)
    except FileExistsError as error:
        raise UserError("--to", folder, "exists and is not empty", "give a new folder") from error
    except OSError as error:
        raise disk_error("--to", folder, error) from error
    except SafetensorError as error:  # it hides the error of the disk in its text
        number = next((n for n in DISK_ERRORS if f"os error {n})" in str(error)), errno.EIO)
        raise disk_error("--to", folder, OSError(number, os.strerror(number))) from error
