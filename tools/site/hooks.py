"""What MkDocs calls while it builds the site, see mkdocs.yml.

Adds the pages of the reference, the notebooks, and the files outside of docs/ that a page links to, and writes
GitHub's Markdown as MkDocs reads it.
"""

import logging
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from tools.site.api import api_page
from tools.site.commands import commands_page
from tools.site.configuration import configuration_page
from tools.site.markdown import as_mkdocs_reads_it
from tools.site.messages import messages_page
from tools.site.notebooks import notebook_pages, notebook_section
from tools.site.outside import NAME, as_page, linked_files, links_outside

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = {
    "reference/api.md": api_page,
    "reference/configuration.md": configuration_page,
    "reference/command-line.md": commands_page,
    "reference/messages.md": messages_page,
}
log = logging.getLogger("mkdocs.hooks.site")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the notebooks that are there to the navigation, before the reference."""
    section = notebook_section(Path(config.docs_dir))
    if section and config.nav is not None:
        at = next(i for i, entry in enumerate(config.nav) if "Reference" in entry)
        config.nav.insert(at, {"Notebooks": section})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for name, write in REFERENCE.items():
        files.append(File.generated(config, name, content=write()))
    for name, content in notebook_pages(Path(config.docs_dir)).items():
        files.append(File.generated(config, name, content=content))
    for path in linked_files(Path(config.docs_dir), ROOT):
        if path.suffix == ".json":
            made = File.generated(config, f"{NAME}/{path}", abs_src_path=str(ROOT / path))
        else:
            name, content = as_page(path, ROOT)
            made = File.generated(config, name, content=content)
        made.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(made)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links that leave docs/, and what GitHub and MkDocs read differently."""
    text, missing = links_outside(markdown, page.file.src_uri, Path(config.docs_dir), ROOT)
    for target in missing:
        log.warning("%s links to %s, which is not in the repository", page.file.src_uri, target)
    return as_mkdocs_reads_it(text)
