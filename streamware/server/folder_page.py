"""The page of one folder. Pure: from a listing to text.

The rule of this file: that of ``page``: what came from a file name goes through ``html``, and the page works without
its script.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import urlencode

from streamware.server.files import Item, Listing, Place, shown
from streamware.server.page import (
    NO_MATCH,
    View,
    columns,
    counted,
    filter_form,
    html,
    in_bytes,
    kind_of,
    moment,
    ordered,
    pick_form,
    shell,
    template,
)

__all__ = ["folder_page", "order"]

_FOLDER = template("folder.html")
_PAGE_ROWS = 2000  # more rows than that make browsers slow, and nobody reads them
_COLUMNS = (("name", "n", "Name"), ("size", "s", "Size"), ("time", "t", "Modified<span> (UTC)</span>"))


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
        name=html(name),
        summary=_summary(listing.items),
        filter=filter_form(view),
        whole_links=_whole(base, whole, name) if listing.items and place.bundleable else "",
        notice=f'<p class="notice">{notice}</p>' if notice else "",
        pick=pick_form(
            [_row(base, place, item, strip) for item in rows],
            base=base,
            # A link that was chosen is followed, one inside a folder is not: then all is not the same as the whole.
            whole="" if not rows or any(item.link and item.folder for item in rows) else whole,
            caption=f"Files and folders in {name}.",
            columns=columns(view, _COLUMNS),
            pages=pages,
            pager=_pager(view, pages, first, len(rows), len(items)),
            none=NO_MATCH if view.query else "This folder is empty.",
            empty=not listing.items,
            archive=name,
        ),
    )
    crumbs = _crumbs(root_name, place, base)
    return shell(f"{html(name)} - streamware", base, crumbs, main, here="folder" if uploads else None)


def order(items: Iterable[Item], view: View) -> list[Item]:
    """The items that match, folders first; names by their words and numbers: ``file2`` comes before ``file10``."""
    by_name = sorted(items, key=lambda item: item.name)  # of names that are shown alike, too
    keys = {"size": lambda item: item.size, "time": lambda item: item.modified}
    found = ordered(by_name, view, lambda item: shown(item.name), keys)
    found.sort(key=lambda item: not item.folder)
    return found


def _summary(items: Sequence[Item]) -> str:
    folders = sum(item.folder for item in items)
    parts = [counted(folders, "folder")] if folders else []
    parts.append(counted(len(items) - folders, "file"))
    return f"{', '.join(parts)} · {in_bytes(sum(item.size for item in items))}"


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
