from __future__ import annotations

from pathlib import Path

from bench.contenders import ASGI, WSGI
from bench.results import Results


def text_tables(results: Results) -> str:
    out = []
    for c in results.cases:
        out.append(f"\n{c.title} ({c.key}): {c.count} members, {c.bytes / 1048576:.0f} MiB, ideal {c.ideal}")
        for r in c.rows:
            if not r.samples:
                out.append(f"  {r.title:40} FAILED {r.failure}")
                continue
            a, b = c.ratio(WSGI, r.contender), c.ratio(ASGI, r.contender)
            out.append(
                f"  {r.title:40} {c.cpu_per_gib(r):8.3f} {a or 0:7.3f} {b or 0:7.3f} wall {r.middle('wall'):6.2f} ttfb {r.middle('first_byte') * 1000:7.1f} MiB {r.grew / 1048576:6.1f} n={len(r.samples)} done={r.done} thr={r.threads} wire {r.middle('bytes') / 1048576:.1f} {r.failure or ''}"
            )
        for k, v in c.skipped.items():
            out.append(f"  {k:40} skipped: {v}")
    return "\n".join(out)


def write_docs(results: Results, docs: Path) -> None: ...
