"""What one seed stands for: a bundle, where its members are, and what goes wrong with some of them.

The rule of this file: everything follows from the seed, and whether a fault can be healed is decided here, from the
promise alone: by any mirror that is known to hold the same version, or by an upstream that gives parts of a version it
names by a strong validator.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.faults.trials.origin import BREAKS, File, Origin, text

__all__ = ["FAULTS", "Places", "Trial", "make"]

KIB = 1024
FAULTS = ("reset", "short", "stall", "drip", "wrong range", "changed", "refused", "mirror down", "5xx")
_MOST = 6 << 20  # content of one bundle


@dataclass(frozen=True)
class Places:
    """Base URLs, without a final slash: two upstreams, a third that never fails, and a port where nobody listens."""

    main: str
    mirror: str
    sound: str
    nobody: str


@dataclass
class Trial:
    """``scripts`` are by upstream ("main", "mirror", "sound") and path."""

    seed: int
    fault: str
    healable: bool = True
    form: str = "zip"
    compress: str = "stored"
    members: list[tuple[str, bytes]] = field(default_factory=list)
    listed: list[dict[str, object]] = field(default_factory=list)
    sound: list[dict[str, object]] = field(default_factory=list)
    scripts: dict[str, dict[str, Origin]] = field(default_factory=lambda: {"main": {}, "mirror": {}, "sound": {}})
    told: list[str] = field(default_factory=list)
    # Contents that may stand in the place of those in ``members``: of versions that came before any byte of the member
    # had gone out, where nobody had asked about it before the head, so that nothing had been promised but its size.
    later: dict[str, bytes] = field(default_factory=dict)

    @property
    def manifest(self) -> Mapping[str, object]:
        return self._manifest(self.listed)

    @property
    def sound_manifest(self) -> Mapping[str, object]:
        return self._manifest(self.sound)

    def _manifest(self, listed: list[dict[str, object]]) -> Mapping[str, object]:
        return {"name": f"trial-{self.seed}.{self.form}", "compress": self.compress, "members": listed}

    def __str__(self) -> str:
        asked = [f"{name}{path}: {', '.join(o.log)}" for name, ways in self.scripts.items() for path, o in ways.items()]
        head = (
            f"STREAMWARE_TRIAL_SEED={self.seed}: {self.fault}, {self.form}, {self.compress}, healable: {self.healable}"
        )
        return "\n".join([head, *self.told, *(line for line in asked if not line.startswith("sound"))])


def make(seed: int, places: Places) -> Trial:
    rng = random.Random(f"fault trial {seed}")
    trial = Trial(seed, FAULTS[seed % len(FAULTS)])
    trial.form = rng.choice(["zip", "zip", "zip", "tar"])
    if trial.form == "zip" and rng.random() < 0.25:
        trial.compress = rng.choice(["deflate", "auto"])
    count = rng.choice([1, 2, 3, 4, 6, 8, 10, 13])
    struck = set(rng.sample(range(count), min(count, rng.choice([1, 1, 1, 2, 3]))))
    left = _MOST
    for number in range(count):
        size = min(left, _size(rng, number in struck))
        left -= size
        _member(trial, rng, places, number, size, struck=number in struck and size > 0, many=count > 8)
    trial.healable = trial.healable and bool(trial.told)
    return trial


def _size(rng: random.Random, struck: bool) -> int:
    """Small enough to be read whole, about a frame, more than any buffer on the way holds."""
    kind = rng.random()
    if kind < 0.05:
        return 0 if not struck else 1
    if kind < 0.35:
        return rng.randint(1, 64 * KIB)
    if kind < 0.45:
        return 64 * KIB + rng.randint(-1, 1)
    if kind < 0.9:
        return rng.randint(64 * KIB, 700 * KIB)
    return rng.randint(700 * KIB, 5 << 20)


def _member(
    trial: Trial, rng: random.Random, places: Places, number: int, size: int, *, struck: bool, many: bool
) -> None:
    name, path = f"{number:02}.log", f"/t{trial.seed}/{number:02}"
    data = text(size, f"{trial.seed} {number}")
    # Where nothing names a version, nobody can tell another one that is read from its beginning.
    named = rng.choice(["strong"] * 6 + ["weak", "weak" if trial.fault == "changed" else "none"])
    etag = {"strong": f'"{trial.seed}-{number}"', "weak": f'W/"{trial.seed}-{number}"', "none": None}[named]
    file = File(data, etag)
    framing = rng.choice(["length", "length", "length", "chunked", "close"])
    ranges = rng.random() < 0.85
    entry: dict[str, object] = {"name": name, "url": f"{places.main}{path}"}
    if framing == "close" or (framing == "chunked" and (trial.form == "tar" or rng.random() < 0.5)):
        entry["size"] = size
    heads = rng.random() < 0.8
    main = Origin(file, ranges, framing, heads)
    trial.members.append((name, data))
    trial.scripts["sound"][path] = Origin(file, ranges, framing, heads)
    trial.sound.append({**entry, "url": f"{places.sound}{path}"})
    if struck:
        # Many are asked about before they are fetched: the first GET may be the one that only asks.
        early = many and "size" not in entry and not (heads and framing == "length")
        _strike(trial, rng, places, path, main, entry, strong=named == "strong", early=early)
    trial.listed.append(entry)
    trial.scripts["main"][path] = main


def _strike(
    trial: Trial,
    rng: random.Random,
    places: Places,
    path: str,
    main: Origin,
    entry: dict[str, object],
    *,
    strong: bool,
    early: bool,
) -> None:
    size, fault = len(main.file.data), trial.fault
    main.at = rng.randrange(size)
    broken = rng.choice(BREAKS)
    main.always = rng.random() < 0.4
    times = rng.choice([1, 1, 2])
    opening = False  # nothing ever comes of this URL
    heals_itself = not main.always  # as far as the acts go
    if fault in BREAKS:
        main.acts = (fault,) * times
    elif fault == "wrong range":
        main.acts = (broken, rng.choice(["early", "late", "total"]))
        heals_itself = False
    elif fault == "changed":
        main.other = File(text(size + rng.choice([0, 0, -1, 1]), f"other {path}"), _another(main.file.etag))
        main.acts = (broken, rng.choice(["other", "other-part"]))
        main.always = True
        heals_itself = False
        if entry.get("size") == len(main.other.data):
            trial.later[str(entry["name"])] = main.other.data
    elif fault == "refused":
        entry["url"] = f"{places.nobody}{path}"
        opening, heals_itself = True, False
    elif fault == "mirror down":
        main.acts = (broken,) * times
    elif rng.random() < 0.5:
        main.acts = (rng.choice(["500", "502", "503"]),) * times
        opening, heals_itself = True, False
    else:
        main.acts = (broken,) + (rng.choice(["500", "502", "503"]),) * times
        heals_itself = heals_itself and not early

    mirrors = [] if fault != "mirror down" else ["down"]
    mirrors += rng.choice(
        [[], ["same"], ["same"], ["same"], ["whole"], ["other tag"], ["broken", "same"], ["down", "same"]]
    )
    urls = [_mirror(trial, rng, places, path, main.file, kind, index) for index, kind in enumerate(mirrors)]
    if urls:
        entry["mirrors"] = urls
    joined = strong and bool({"same", "whole"} & set(mirrors))
    # A mirror that breaks off is as good for an opening as one that does not, and what follows is to be joined.
    fresh = opening and [kind for kind in mirrors if kind != "down"][:1] not in ([], ["broken"])
    healable = joined or fresh or (heals_itself and strong and main.ranges)
    trial.healable = trial.healable and healable
    what = f"{', '.join(main.acts) or 'nobody there'}{' always' if main.always else ''} at {main.at} of {size}"
    how = f"{main.framing}, {main.file.etag}, {'' if main.ranges else 'no '}ranges, mirrors {mirrors}"
    trial.told.append(f"{path}: {what}; {how}; healable: {healable}")


def _another(etag: str | None) -> str | None:
    return f'{etag[:-1]}-2"' if etag else '"now there is one"'


def _mirror(trial: Trial, rng: random.Random, places: Places, path: str, file: File, kind: str, index: int) -> str:
    if kind == "down":
        return f"{places.nobody}{path}"
    own = f"{path}/{index}"
    mirror = Origin(file, ranges=kind != "whole")
    if kind == "other tag":
        mirror = Origin(File(file.data, '"of the mirror"'))
    elif kind == "broken":
        mirror.acts, mirror.always, mirror.at = (rng.choice(BREAKS),), True, rng.randrange(len(file.data))
    trial.scripts["mirror"][own] = mirror
    return f"{places.mirror}{own}"
