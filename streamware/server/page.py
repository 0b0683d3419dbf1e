"""The page for people, and what problems look like to them. Pure: from a listing to text.

The rule of this file: everything that came from a file name goes through ``html``, and the page works without its
script; the script only adds to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from hashlib import blake2b
from html import escape
from importlib.resources import files
from string import Template
from typing import NamedTuple
from urllib.parse import urlencode

from streamware.server.files import Item, Listing, Place, shown

__all__ = [
    "ASSETS",
    "ASSETS_VERSION",
    "POLICY",
    "View",
    "base_of",
    "columns",
    "counted",
    "folder_page",
    "html",
    "in_bytes",
    "kept",
    "kind_of",
    "moment",
    "natural",
    "order",
    "problem_page",
    "shell",
    "template",
]

_STATIC = files("streamware.server").joinpath("static")

# By name: media type and bytes. Loaded once, with the module, so that a missing file is noticed at the start.
_KINDS_OF_ASSETS = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
ASSETS = {
    path.rpartition("/")[2]: (_KINDS_OF_ASSETS[path.rpartition(".")[2]], _STATIC.joinpath(path).read_bytes())
    for path in ("page.css", "page.js", "uploads.js", "vendor/tus.min.js")
}
ASSETS_VERSION = blake2b(b"".join(data for _, data in ASSETS.values()), digest_size=6).hexdigest()


def template(name: str) -> Template:
    """One of the pages' texts, to be filled in."""
    return Template(_STATIC.joinpath(name).read_text(encoding="utf-8"))


_SHELL, _FOLDER, _PROBLEM = map(template, ("shell.html", "folder.html", "problem.html"))

# The page's Content-Security-Policy: nothing from elsewhere, no inline script or style.
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_PAGE_ROWS = 2000  # more rows than that make browsers slow, and nobody reads them
_COLUMNS = (("name", "n", "Name"), ("size", "s", "Size"), ("time", "t", "Modified<span> (UTC)</span>"))
_DIGITS = re.compile(r"([0-9]+)", re.ASCII)
# Control pictures for control characters: a name cannot break its line or hide its end.
_VISIBLE = {**{c: 0x2400 + c for c in range(32)}, 127: 0x2421}
_KINDS = {
    "archive": "zip tar gz tgz bz2 xz zst tzst 7z rar whl jar deb rpm iso",
    "code": "py pyi js ts c h cc cpp hpp rs go java rb sh sql html css xml json toml yaml yml ini cfg conf",
    "film": "mp4 mkv mov avi webm m4v",
    "image": "png jpg jpeg gif webp svg avif bmp tif tiff ico heic",
    "sound": "mp3 flac ogg oga opus wav m4a aac",
    "text": "txt md rst log csv tsv pdf doc docx odt",
}
_KIND = {suffix: kind for kind, suffixes in _KINDS.items() for suffix in suffixes.split()}


class View(NamedTuple):
    """How a visitor wants to see a list. ``page`` counts from 1; ``plain`` is the order that no link needs to name."""

    sort: str = "name"
    descending: bool = False
    query: str = ""
    page: int = 1
    plain: tuple[str, bool] = ("name", False)

    @property
    def order(self) -> dict[str, str]:
        """The fields of a query that ask for this order."""
        if (self.sort, self.descending) == self.plain:
            return {}
        return {"sort": self.sort, "order": "desc"} if self.descending else {"sort": self.sort}

    @property
    def url(self) -> str:
        """The link to this view of the same list."""
        fields = {**self.order, "q": self.query, "page": str(self.page) if self.page > 1 else ""}
        return "?" + urlencode({k: v for k, v in fields.items() if v}, errors="replace")


def order(items: Iterable[Item], view: View) -> list[Item]:
    """The items that match, folders first; names by their words and numbers: ``file2`` comes before ``file10``."""
    wanted = view.query.casefold()
    found = [item for item in items if wanted in shown(item.name).casefold()]
    found.sort(key=lambda item: (natural(item.name), item.name))
    if view.sort == "size":
        found.sort(key=lambda item: item.size, reverse=view.descending)
    elif view.sort == "time":
        found.sort(key=lambda item: item.modified, reverse=view.descending)
    elif view.descending:
        found.reverse()
    found.sort(key=lambda item: not item.folder)
    return found


def folder_page(root_name: str, place: Place, listing: Listing, view: View, *, uploads: bool = False) -> str:
    """The page of one folder. ``uploads``: there is a page for them, to be led to."""
    base = "../" * (len(place.parts) + 1 if place.parts else 0)
    name = shown(place.parts[-1]) if place.parts else root_name
    items = order(listing.items, view)
    pages = max(1, -(-len(items) // _PAGE_ROWS))
    view = view._replace(page=min(max(1, view.page), pages))
    first = (view.page - 1) * _PAGE_ROWS
    rows = items[first : first + _PAGE_ROWS]
    strip = f"?strip={len(place.parts)}" if place.parts else ""
    whole = f"/tree/{place.href}{strip}"
    notice = f"More than {len(listing.items):,} entries are in this folder; only some are shown." if listing.cut else ""
    main = _FOLDER.substitute(
        base=base,
        name=html(name),
        summary=_summary(listing.items),
        kept=kept(view),
        query=html(view.query),
        # A link that was chosen is followed, one inside a folder is not: then all is not the same as the whole.
        whole="" if not rows or any(item.link and item.folder for item in rows) else escape(whole),
        whole_links=_whole(base, whole, name) if listing.items and place.bundleable else "",
        notice=f'<p class="notice">{notice}</p>' if notice else "",
        pages=pages,
        columns=columns(view),
        rows="\n".join(_row(base, place, item, strip) for item in rows),
        none="Nothing here has that in its name." if view.query else "This folder is empty.",
        none_hidden="hidden" if rows else "",
        table_hidden="" if listing.items else "hidden",
        pager=_pager(view, pages, first, len(rows), len(items)),
        file_name=html(name),
    )
    crumbs = _crumbs(root_name, place, base)
    return shell(f"{html(name)} - streamware", base, crumbs, main, here="folder" if uploads else None)


def problem_page(base: str, status: int, heading: str, detail: str, members: Sequence[str]) -> str:
    """The page for an answer that is none."""
    parts = [f"<p>{html(detail)}</p>"] if detail else []
    if members:
        parts.append("<ul>" + "".join(f"<li><bdi>{html(m)}</bdi></li>" for m in members) + "</ul>")
    main = _PROBLEM.substitute(status=status, heading=html(heading), detail="\n".join(parts), home=base or "./")
    return shell(f"{status} - streamware", base, "", main)


def base_of(raw_path: bytes) -> str:
    """The relative way from a page back to ``/``, so that the server works below any prefix of a proxy in front."""
    return "../" * max(0, raw_path.count(b"/") - 1)


def moment(seconds: int) -> str | None:
    """RFC 3339 in UTC; None for a time that has no such form."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")
    except (ValueError, OverflowError, OSError):
        return None


def shell(
    title: str, base: str, crumbs: str, main: str, *, here: str | None = None, scripts: Sequence[str] = ("page.js",)
) -> str:
    """A whole page around its main part.

    :param here: "folder" or "uploads", whichever of the two it belongs to; None where there are no two, or neither.
    """
    tags = (f'<script src="{base}assets/{name}?v={ASSETS_VERSION}" defer></script>' for name in scripts)
    return _SHELL.substitute(
        title=title,
        base=base,
        home=base or "./",
        version=ASSETS_VERSION,
        scripts="\n".join(tags),
        crumbs=crumbs,
        sections="" if here is None else _sections(base, here),
        main=main,
    )


def _sections(base: str, here: str) -> str:
    links = (
        f'<a href="{way}"{" aria-current=page" if key == here else ""}>{label}</a>'
        for key, way, label in (("folder", base or "./", "Folder"), ("uploads", f"{base}files", "Uploads"))
    )
    return f'<nav class="sections" aria-label="Sections">{"".join(links)}</nav>'


def html(text: str) -> str:
    """Any text as it can stand in a page, in an attribute too."""
    return escape(text.translate(_VISIBLE))


def kind_of(name: str) -> str:
    """The kind of thing a file name stands for, which is the name of its picture."""
    return _KIND.get(name.rpartition(".")[2].lower(), "file") if "." in name else "file"


def natural(name: str) -> list[str | tuple[int, str]]:
    """What to sort names by, so that ``file2`` comes before ``file10``."""
    # Numbers by length and then digits: the same order, and no number is too long for it. Even places hold words.
    pieces = _DIGITS.split(name.casefold())
    return [(len(p.lstrip("0")), p.lstrip("0")) if n % 2 else p for n, p in enumerate(pieces)]


def in_bytes(count: int) -> str:
    """Bytes for people, in powers of 1,000; the script says it the same way."""
    if count < 1000:
        return f"{count} B"
    value, unit = float(count), 0
    while value >= 999.5:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {'BkMGTPE'[unit]}B" if value >= 99.95 else f"{value:.1f} {'BkMGTPE'[unit]}B"


def counted(number: int, noun: str) -> str:
    """A number of things, for people."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _summary(items: Sequence[Item]) -> str:
    folders = sum(item.folder for item in items)
    parts = [counted(folders, "folder")] if folders else []
    parts.append(counted(len(items) - folders, "file"))
    return f"{', '.join(parts)} · {in_bytes(sum(item.size for item in items))}"


def kept(view: View) -> str:
    """What a form must send along to stay at the view's order."""
    return "".join(f'<input type="hidden" name="{n}" value="{v}">' for n, v in view.order.items())


def _whole(base: str, href: str, name: str) -> str:
    links = []
    for extension in ("zip", "tar"):
        url = escape(f"{base}bundle?" + urlencode({"path": href, "name": f"{name}.{extension}"}))
        links.append(f'<a class="quiet button" href="{url}" download>{extension.upper()}</a>')
    return f'<div class="whole" role="group" aria-label="Whole folder"><span>Whole folder</span>{"".join(links)}</div>'


def _crumbs(root_name: str, place: Place, base: str) -> str:
    if not place.parts:
        return ""
    names = [root_name, *map(shown, place.parts)]
    last = len(names) - 1
    ways = [base or "./", *("../" * (last - n) or "./" for n in range(1, last + 1))]
    links = [
        f'<li><a href="{way}"{" aria-current=page" if n == last else ""}><bdi>{html(name)}</bdi></a></li>'
        for n, (name, way) in enumerate(zip(names, ways, strict=True))
    ]
    return f'<nav aria-label="Folder"><ol class="crumbs">{"".join(links)}</ol></nav>'


def columns(view: View, labels: Sequence[tuple[str, str, str]] = _COLUMNS) -> str:
    """The heads of a table that can be sorted: of each its key, its style and what stands in it."""
    cells = []
    for key, style, label in labels:
        here = key == view.sort
        state = f' aria-sort="{"descending" if view.descending else "ascending"}"' if here else ""
        # Whoever sorts by size or time looks for the largest or the newest.
        down = not view.descending if here else key != "name"
        url = escape(view._replace(sort=key, descending=down, page=1).url)
        cells.append(f'<th class="{style}" scope="col" data-key="{key}"{state}><a href="{url}">{label}</a></th>')
    return "".join(cells)


def _row(base: str, place: Place, item: Item, strip: str) -> str:
    inner = place.inner(item.name, folder=item.folder)
    name = html(shown(item.name))
    if item.folder:
        own = Place((item.name,), folder=True).href
        link, style = own if place.parts else f"browse/{own}", "folder"
    else:
        link, style = f"{base}tree/{inner.href}", kind_of(item.name)
    when = moment(item.modified) or ""
    state = (
        ""
        if inner.bundleable
        else ' disabled title="With control characters in its name it comes only with its folder"'
    )
    size = "" if item.folder else f'<span title="{counted(item.size, "byte")}">{in_bytes(item.size)}</span>'
    return (
        f'<tr data-size="{item.size}" data-time="{item.modified}"><td class="c"><label class="hit">'
        f'<input type="checkbox" name="path" value="/tree/{inner.href}{strip}" aria-label="Select {name}"{state}>'
        f'</label></td><td class="n"><a class="{style}" href="{link}"><bdi>{name}</bdi></a></td>'
        f'<td class="s">{size}</td>'
        f'<td class="t"><time datetime="{when}">{when[:16].replace("T", " ")}</time></td></tr>'
    )


def _pager(view: View, pages: int, first: int, rows: int, items: int) -> str:
    if pages == 1:
        return ""
    back = f'<a class="quiet button" rel="prev" href="{escape(view._replace(page=view.page - 1).url)}">Back</a>'
    on = f'<a class="quiet button" rel="next" href="{escape(view._replace(page=view.page + 1).url)}">Next</a>'
    place = f"<span>{first + 1:,} to {first + rows:,} of {items:,}</span>"
    return f'<p class="pager">{back if view.page > 1 else ""}{place}{on if view.page < pages else ""}</p>'
