"""What the pages for people are made of, and what problems look like to them. Pure: from values to text.

The rule of this file: everything that came from a file name goes through ``html``, and a page works without its
scripts; they only add to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from hashlib import blake2b
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

__all__ = [
    "ASSETS",
    "ASSETS_VERSION",
    "NO_MATCH",
    "POLICY",
    "View",
    "base_of",
    "columns",
    "counted",
    "filter_form",
    "html",
    "in_bytes",
    "kind_of",
    "moment",
    "natural",
    "ordered",
    "pick_form",
    "problem_page",
    "shell",
    "template",
]

T = TypeVar("T")

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


_SHELL, _FILTER, _PICK, _PROBLEM = (template(f"{name}.html") for name in ("shell", "filter", "pick", "problem"))

# The page's Content-Security-Policy: nothing from elsewhere, no inline script or style.
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

NO_MATCH = "Nothing here has that in its name."  # the script says it too
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


def filter_form(view: View) -> str:
    """Where the rows that are shown can be chosen by their names."""
    return _FILTER.substitute(kept=_kept(view), query=html(view.query)).rstrip()


def _kept(view: View) -> str:
    """What a form must send along to stay at the view's order."""
    return "".join(f'<input type="hidden" name="{n}" value="{v}">' for n, v in view.order.items())


def pick_form(
    rows: Sequence[str],
    *,
    base: str,
    caption: str,
    columns: str,
    pages: int,
    pager: str,
    none: str,
    empty: bool,
    archive: str,
    whole: str = "",
    more: str = "",
) -> str:
    """The table of what can be chosen, and what can be done with it.

    :param rows: of the table, as HTML; so are ``columns``, ``pager`` and ``more``, which is further buttons.
    :param base: the relative way back to ``/``.
    :param pages: how many there are of it; the script sorts and filters where there is one.
    :param none: what stands there if there are no rows; ``empty``: nor would there be any without a filter.
    :param archive: a name for what is downloaded.
    :param whole: the href that stands for all rows together; "" if none does.
    """
    return _PICK.substitute(
        base=base,
        whole=escape(whole),
        pages=pages,
        caption=html(caption),
        columns=columns,
        rows="\n".join(rows),
        none=none,
        none_hidden="hidden" if rows else "",
        table_hidden="hidden" if empty else "",
        pager=pager,
        archive=html(archive),
        more=more,
    ).rstrip()


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


def ordered(
    things: Iterable[T], view: View, name: Callable[[T], str], keys: Mapping[str, Callable[[T], Any]]
) -> list[T]:
    """The things whose names match, as the view wants them.

    :param name: of a thing, as it is shown.
    :param keys: what to sort by besides the name; what is alike there comes by its name.
    """
    wanted = view.query.casefold()
    found = [thing for thing in things if wanted in name(thing).casefold()]
    found.sort(key=lambda thing: (natural(name(thing)), name(thing)))
    key = keys.get(view.sort)
    if key is not None:
        found.sort(key=key, reverse=view.descending)
    elif view.descending:
        found.reverse()
    return found


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


def columns(view: View, labels: Sequence[tuple[str, str, str]]) -> str:
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
