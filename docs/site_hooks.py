"""What mkdocs.yml adds to MkDocs: pages from elsewhere, and Sphinx's roles.

Pages keep the links that work in the repository; those to a file of the site are turned
into the site's. One to another file of the repository fails the strict build: name it.
"""

import posixpath
import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "compressai_hm/zoo/weights/README.md": "model_cards.md",
    "results/README.md": "results/index.md",
}
PATTERNS = ("results/*.md", "results/*/plots/*.svg")
"""What is in the site under its own path, where ELSEWHERE does not say another."""

LINK = re.compile(r'(\]\(|(?:src|href)=")(?![a-z]+:|#)([^)\s"#]*)(#[^)\s"]*)?([)"])')
ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([\w.]+)`")

_placed: dict[str, str] = {}
"""By path in the repository, the path in the site."""


def on_files(files, config):
    found = [p for pattern in PATTERNS for p in sorted(ROOT.glob(pattern))]
    paths = [p.relative_to(ROOT).as_posix() for p in found]
    _placed.update({path: path for path in paths}, **ELSEWHERE)
    for path, placed in _placed.items():
        files.append(File.generated(config, placed, abs_src_path=str(ROOT / path)))
    _placed.update({f"docs/{file.src_uri}": file.src_uri for file in files})
    return files


def on_page_markdown(markdown, page, config, files):
    own = page.file.src_uri
    origin = next(path for path, placed in _placed.items() if placed == own)

    def placed(match):
        start, target, anchor, end = match.groups(default="")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        if path not in _placed:
            return match[0]
        target = posixpath.relpath(_placed[path], posixpath.dirname(own) or ".")
        return f"{start}{target}{anchor}{end}"

    return LINK.sub(placed, markdown)


class Roles(griffe.Extension):
    """``:class:`Name``` becomes a link where the site tells of it, ``::`` a colon."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring is None:
            return

        def linked(match):
            name = match[1].lstrip(".")
            try:
                path = obj.resolve(name)
            except griffe.NameResolutionError:
                path = name
            link = f'<autoref identifier="{path}" optional>'
            return f"{link}<code>{name}</code></autoref>"

        text = ROLE.sub(linked, obj.docstring.value)
        text = re.sub(r"^[ ]*::\n", "", text, flags=re.M)
        obj.docstring.value = re.sub(r"::$", ":", text, flags=re.M)
