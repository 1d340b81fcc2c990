"""Hooks of the docs site: pages outside docs/ become part of it, and links follow them.

The README is the front page. CONTRIBUTING.md, CHANGELOG.md, dev/ and examples/ keep their paths.
In the repository they stand beside docs/, on the site beside its pages.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = (
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "findings/*",
    "dev/*.md",
    "dev/images/*",
    "examples/*",
)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages and files outside docs/."""
    found = [path for pattern in OUTSIDE for path in sorted(ROOT.glob(pattern)) if path.is_file()]
    for path in found:
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / "README.md")))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links of the repository into links of the site."""
    name = page.file.src_uri
    if name == "index.md":  # a player in place of each link to a sound
        player = r'<audio controls preload="none" src="\1"></audio>'
        markdown = re.sub(r"\[[\w.]+\]\(docs/(audio/[\w.]+)\)", player, markdown)
    if name in ("index.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        return re.sub(r"\]\(docs/", "](", markdown)
    if name.startswith("dev/"):
        return re.sub(r"\]\(\.\./docs/", "](../", markdown)
    return re.sub(r"\]\(\.\./", "](", markdown)
