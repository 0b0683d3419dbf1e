"""Places for downloads: never more than there are, each given back once, however its download ends."""

from __future__ import annotations

import gc
import threading

import pytest

from streamware import Policy
from streamware.admission import Admission, Ticket
from streamware.errors import Overloaded, TooManyDownloads


def admission(most: int = 2, each: int | None = None) -> Admission:
    return Admission(Policy(max_bundles=most, max_bundles_per_client=each, overload_retry_seconds=7))


def test_there_are_so_many_places_and_no_more() -> None:
    places = admission(2)
    first, _second = places.enter(), places.enter("a")
    with pytest.raises(Overloaded) as refused:
        places.enter("b")
    assert (refused.value.status, refused.value.kind, refused.value.retry_after) == (503, "overloaded", 7)
    first.release()
    _third = places.enter("b")
    assert places.active == 2


def test_a_client_has_so_many_and_another_its_own() -> None:
    places = admission(10, 1)
    first = places.enter("a")
    with pytest.raises(TooManyDownloads) as refused:
        places.enter("a")
    assert (refused.value.status, refused.value.kind, refused.value.retry_after) == (429, "too-many-downloads", 7)
    _other, _nobody, _again = places.enter("b"), places.enter(), places.enter()
    first.release()
    _back = places.enter("a")
    assert places.active == 4


def test_a_client_that_has_too_many_is_told_so_even_when_the_server_is_full() -> None:
    places = admission(1, 1)
    _kept = places.enter("a")
    with pytest.raises(TooManyDownloads):
        places.enter("a")


def test_a_place_is_given_back_once() -> None:
    places = admission(2)
    first, _second = places.enter("a"), places.enter("a")
    for _ in range(3):
        first.release()
    assert places.active == 1
    with places.enter("a") as third:
        assert places.active == 2
    third.release()
    assert places.active == 1


def test_a_forgotten_place_comes_back() -> None:
    places = admission(1)
    ticket = places.enter("a")
    ring: list[object] = [ticket]
    ring.append(ring)  # only the garbage collector frees this
    del ticket, ring
    gc.collect()
    assert places.active == 0


def test_a_place_may_come_back_in_the_middle_of_taking_one() -> None:
    """As the garbage collector does it: by the thread that holds the lock."""
    places = admission(2)
    ticket = places.enter("a")
    with places._lock:
        ticket.release()
    assert places.active == 0


def test_threads_never_pass_the_bound_together() -> None:
    places = admission(5)
    most, given, failures = 0, 0, []
    lock = threading.Lock()
    inside: list[Ticket] = []
    begin = threading.Barrier(16)

    def run() -> None:
        nonlocal most, given
        begin.wait(10)
        for _ in range(300):
            try:
                ticket = places.enter("x")
            except Overloaded:
                continue
            with lock:
                inside.append(ticket)
                most, given = max(most, len(inside)), given + 1
                if len(inside) > 5:
                    failures.append(len(inside))
            with lock:
                inside.remove(ticket)
            ticket.release()

    threads = [threading.Thread(target=run) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not failures
    assert given
    assert places.active == 0
