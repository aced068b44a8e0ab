"""Removing a folder that something may still be writing into for a moment."""

import asyncio
import shutil
from pathlib import Path

# What a killed program had started ends by itself a moment later.
PATIENCE_S = (0.1, 0.5, 2.0)


async def remove_folder(path: Path) -> None:
    """Remove it with everything in it; raises OSError if it keeps coming back."""
    for patience in PATIENCE_S:
        _try(path)
        if not _exists(path):
            return
        await asyncio.sleep(patience)
    shutil.rmtree(path)


def _try(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def _exists(path: Path) -> bool:
    return path.exists()
