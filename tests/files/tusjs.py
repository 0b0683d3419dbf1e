"""tus-js-client as a page uses it: the copy that streamware ships, in headless Chromium.

The rule of this file: the script is given a file and an endpoint and does what its documentation shows; that it is
killed means that its page is left in the middle, so that all it knows afterwards is what it keeps in the browser.
"""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

from tests.conftest import judge
from tests.hosts.chromium import Browser
from tests.hosts.servers import ROOT

__all__ = ["TusPage"]

_VENDORED = ROOT / "streamware" / "server" / "static" / "vendor" / "tus.min.js"
_SCRIPT = """
window.told = {state: "running", sent: 0};
(async () => {
  const raw = Uint8Array.from(atob(%(data)s), c => c.charCodeAt(0));
  const file = new File([raw], %(name)s, {type: "application/x-tusjs", lastModified: 1});
  const upload = new tus.Upload(file, {
    endpoint: "/files", retryDelays: %(delays)s, chunkSize: %(piece)s,
    removeFingerprintOnSuccess: true,
    metadata: {filename: file.name, filetype: file.type},
    onProgress: sent => { window.told.sent = sent; },
    onSuccess: () => { window.told = {state: "done", url: upload.url}; },
    onError: error => { window.told = {state: "failed", why: String(error)}; },
  });
  const earlier = await upload.findPreviousUploads();
  window.told.earlier = earlier.length;
  if (earlier.length) upload.resumeFromPreviousUpload(earlier[0]);
  upload.start();
})().catch(error => { window.told = {state: "failed", why: String(error)}; });
"true"
"""


class TusPage:
    """One browser. Whoever makes it closes it."""

    def __init__(self, folder: Path) -> None:
        self._browser = Browser(judge("chromium"), folder)

    def open(self, url: str) -> None:
        """A page, whatever it shows, that may ask its own site, with the script; an upload that runs is left alone."""
        self._browser.open(url)
        self._browser.run(f'{_VENDORED.read_text()}; "true"')

    def begin(self, name: str, data: bytes, piece: int | None, delays: tuple[int, ...] = ()) -> None:
        """Begin to upload, or go on where this browser remembers to have stood.

        :param piece: bytes of one PATCH; None: all that is left.
        :param delays: milliseconds before each try of its own after a failure.
        """
        self._browser.run(
            _SCRIPT
            % {
                "data": json.dumps(b64encode(data).decode()),
                "name": json.dumps(name),
                "piece": "Infinity" if piece is None else piece,
                "delays": json.dumps(list(delays)),
            }
        )

    def told(self) -> dict[str, object]:
        found = self._browser.run("window.told")
        assert isinstance(found, dict)
        return found

    def wait(self, seconds: float = 30) -> dict[str, object]:
        """How it ended: ``state`` is "done" (with ``url``) or "failed" (with ``why``)."""
        self._browser.until(lambda: self.told()["state"] != "running", seconds)
        return self.told()

    def close(self) -> None:
        self._browser.call("Browser.close")
        self._browser.__exit__()

    def __enter__(self) -> TusPage:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
