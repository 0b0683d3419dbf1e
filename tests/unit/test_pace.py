"""How much is made ready for a client: all for a quick one, a piece for a slow one, a share while nothing is known."""

from __future__ import annotations

from streamware.pace import Pace

MIB = 1 << 20


def served(pace: Pace, size: int, seconds: float = 0.0, at: float = 0.0) -> None:
    """Give that much in small pieces, each of which the client takes so long for."""
    for _ in range(size // 65536):
        pace.gave(65536, at)
        at += seconds
        pace.asked(at)


def test_the_first_bytes_leave_at_once() -> None:
    assert Pace(MIB).budget(1) == 0


def test_new_clients_share_what_may_lie_there() -> None:
    pace = Pace(MIB)
    served(pace, 65536)
    assert [pace.budget(bodies) for bodies in (0, 1, 4, 8, 64, 120)] == [MIB, MIB, MIB, MIB // 2, 65536, 34952]


def test_a_slow_client_gets_a_piece_at_a_time_until_it_has_taken_a_lot_without_a_pause() -> None:
    pace = Pace(MIB)
    served(pace, 65536, seconds=0.06)
    assert pace.budget(1) == 0
    served(pace, 32 * MIB - 65536)
    assert pace.budget(1) == 0
    served(pace, 65536)
    assert (pace.quick, pace.budget(120)) == (True, MIB)


def test_a_quick_client_may_pause_now_and_then() -> None:
    pace = Pace(MIB)
    served(pace, 32 * MIB)
    served(pace, 65536, seconds=0.2)
    assert (pace.quick, pace.budget(120)) == (True, MIB)
    served(pace, 65536, seconds=0.06)  # after so few bytes it is no exception any more
    assert (pace.quick, pace.budget(120)) == (False, 0)


def test_a_client_whose_pauses_are_long_is_not_quick() -> None:
    pace = Pace(MIB)
    served(pace, 32 * MIB)
    served(pace, 65536, seconds=0.3)
    assert (pace.quick, pace.budget(120)) == (False, 0)


def test_what_lies_between_asking_and_giving_is_not_the_clients_time() -> None:
    pace = Pace(MIB)
    pace.asked(0.0)
    pace.gave(65536, 10.0)
    pace.asked(10.01)
    assert pace.budget(1) == MIB


def test_large_pieces_are_cut_for_all_but_quick_clients() -> None:
    pace = Pace(MIB)
    piece = bytes(range(256)) * 1024 + b"header"
    served(pace, 65536)
    assert pace.cut(piece, 1) == [piece]
    parts = pace.cut(piece, 120)
    assert [len(part) for part in parts] == [65538, 65538, 65538, 65536]
    assert b"".join(parts) == piece
    assert pace.cut(piece[:131071], 120) == [piece[:131071]]
