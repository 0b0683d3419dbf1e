"""The page of the stored files, with the way to bring more. Pure: from what the store lists to text.

The rule of this file: that of ``page``: what came from a client goes through ``html``, and the page works without its
scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import urlencode

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
from streamware.stored import StoredFile

__all__ = ["NEWEST", "PAGE_FILES", "discard_page", "uploads_page"]

PAGE_FILES = 500  # on one page
NEWEST = View(sort="time", descending=True, plain=("time", True))

_UPLOADS, _DISCARD = map(template, ("uploads.html", "discard.html"))
_COLUMNS = (("name", "n", "Name"), ("size", "s", "Size"), ("time", "t", "Stored<span> (UTC)</span>"))
_SCRIPTS = ("page.js", "tus.min.js", "uploads.js")
_MAX_NAMED = 100  # names on the page that asks before it deletes


def uploads_page(
    files: Sequence[StoredFile],
    view: View,
    *,
    after: str | None,
    on: str | None,
    most: int,
    discards: bool,
    stored: int = 0,
) -> str:
    """The page at ``/files``.

    :param files: one page of them, newest first.
    :param view: how they are wanted; only where they are all on this page.
    :param after: the cursor this page was asked with; None for the first.
    :param on: the one to ask the next page with; None where there is none.
    :param most: bytes that a file may have.
    :param discards: files can be deleted.
    :param stored: how many files were brought just now.
    """
    single = after is None and on is None
    shown = order(files, view) if single else list(files)
    what = f"{counted(len(files), 'file')} · {in_bytes(sum(file.size for file in files))}"
    heads = "".join(f'<th class="{style}" scope="col"><div>{label}</div></th>' for _, style, label in _COLUMNS)
    done = f'<p class="notice done" role="status">{counted(stored, "file")} stored.</p>' if stored else ""
    tools = f'<div class="tools">{filter_form(view)}</div>' if single and files else ""
    main = _UPLOADS.substitute(
        base="",
        summary=what if single else f"{'The newest' if after is None else 'Older ones:'} {what}",
        tools=tools,
        notice=done,
        limit=f"Up to {in_bytes(most)} each.",
        pick=pick_form(
            [_row(file) for file in shown],
            base="",
            caption="Files that were uploaded.",
            columns=columns(view, _COLUMNS) if single else heads,
            pages=1 if single else 2,
            pager=_pager(after, on),
            none=NO_MATCH if view.query else "Nothing was uploaded yet.",
            empty=not files,
            archive="files",
            more='<button class="danger" formaction="files/delete">Delete</button>' if discards else "",
        ),
    )
    return shell("Uploads - streamware", "", "", main, here="uploads", scripts=_SCRIPTS)


def discard_page(files: Sequence[StoredFile], base: str) -> str:
    """Asks once more before files are deleted. ``base``: the relative way back to ``/``."""
    names = [f"<li><bdi>{html(file.name)}</bdi></li>" for file in files[:_MAX_NAMED]]
    if len(files) > _MAX_NAMED:
        names.append(f"<li>and {len(files) - _MAX_NAMED:,} more</li>")
    main = _DISCARD.substitute(
        question=f"Delete {counted(len(files), 'file')}?",
        names="".join(names),
        base=base,
        hidden="".join(f'<input type="hidden" name="path" value="/files/{file.id}">' for file in files),
        button=f"Delete {counted(len(files), 'file')}",
    )
    return shell("Delete - streamware", base, "", main, here="uploads")


def order(files: Sequence[StoredFile], view: View) -> list[StoredFile]:
    """The files that match, as the view wants them."""
    keys = {"size": lambda file: file.size, "time": lambda file: (file.created, file.micros)}
    return ordered(files, view, lambda file: file.name, keys)


def _row(file: StoredFile) -> str:
    name, when = html(file.name), moment(file.created) or ""
    return (
        f'<tr data-size="{file.size}" data-time="{file.created}"><td class="c"><label class="hit">'
        f'<input type="checkbox" name="path" value="/files/{file.id}" aria-label="Select {name}"></label></td>'
        f'<td class="n"><a class="{kind_of(file.name)}" href="files/{file.id}"><bdi>{name}</bdi></a></td>'
        f'<td class="s"><span title="{counted(file.size, "byte")}">{in_bytes(file.size)}</span></td>'
        f'<td class="t"><time datetime="{when}">{when[:16].replace("T", " ")}</time></td></tr>'
    )


def _pager(after: str | None, on: str | None) -> str:
    if after is None and on is None:
        return ""
    first = '<a class="quiet button" rel="first" href="files">Newest</a>' if after is not None else ""
    url = "" if on is None else escape("files?" + urlencode({"after": on}))
    older = f'<a class="quiet button" rel="next" href="{url}">Older</a>' if on is not None else ""
    return f'<p class="pager">{first}{older}</p>'
