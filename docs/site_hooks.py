"""What mkdocs adds to the pages in this directory: pages that live elsewhere in the repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

_ROOT: Final = Path(__file__).parents[1]
_PAGES: Final = {"changelog.md": "CHANGELOG.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add those pages."""
    for name, source in _PAGES.items():
        files.append(File.generated(config, name, content=(_ROOT / source).read_text("utf-8")))
    return files
