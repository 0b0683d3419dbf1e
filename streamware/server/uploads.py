"""The stored files of ``streamware serve``: the file service for programs, pages for people, figures of both.

The rule of this file: what may be done, and what comes of it, the file service says; here it is only told to people,
who are those that say they take HTML.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import falcon.asgi

from streamware.edge import App, Message, Receive, Scope, Send, run
from streamware.filestore import FileStore
from streamware.intake import Intake
from streamware.policy import Policy
from streamware.reply import BytesBody, Reply
from streamware.resources import AsgiResource, AsyncFilesResource
from streamware.server.metrics import Metrics
from streamware.server.page import POLICY, View, base_of
from streamware.server.uploads_page import NEWEST, PAGE_FILES, discard_page, uploads_page
from streamware.service import Archiver
from streamware.stored import StoredFile
from streamware.sweeper import Swept
from streamware.upload_errors import DeleteForbidden, FileUnknown, UploadInvalid, UploadTooLarge

__all__ = ["CountedStore", "Counting", "Discard", "Uploads", "page_reply", "view_of"]

_MOST_FORM = 1 << 20  # bytes of a form that asks to delete files


class CountedStore(FileStore):
    """A file store whose figures are told."""

    def __init__(self, url: str, database: str, policy: Policy, metrics: Metrics) -> None:
        super().__init__(url, database, policy=policy)
        self._metrics = metrics

