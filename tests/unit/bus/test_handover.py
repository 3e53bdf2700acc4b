"""Telling apart what arrives twice while a node moves."""

from lhttp_tx.bus.nats.handover import MAX_PUBLICATIONS, MAX_SIZE, Handover

ONE, TWO = ("room", b"1", False), ("room", b"2", False)


def test_what_arrived_by_the_new_way_alone_is_delivered_in_its_order() -> None:
    handover = Handover()
    handover.hold(ONE)
    handover.hold(TWO)
    assert handover.release() == [ONE, TWO]


def test_what_was_delivered_is_not_delivered_again() -> None:
    handover = Handover()
    handover.hold(ONE)
    handover.delivered(ONE)
    handover.hold(TWO)
    assert handover.release() == [TWO]


def test_equal_publications_count_one_by_one() -> None:
    handover = Handover()
    handover.delivered(ONE)
    for _ in range(3):
        handover.hold(ONE)
    assert handover.release() == [ONE, ONE]


def test_a_publication_that_comes_late_is_recognised_once() -> None:
    handover = Handover()
    handover.delivered(ONE)
    assert [handover.is_repeated(ONE) for _ in range(2)] == [True, False]


def test_text_and_binary_are_different() -> None:
    handover = Handover()
    handover.delivered(ONE)
    assert not handover.is_repeated(("room", b"1", True))


def test_what_is_released_is_released_once() -> None:
    handover = Handover()
    handover.hold(ONE)
    assert handover.release() and not handover.release()


def test_it_keeps_a_bounded_number_in_mind() -> None:
    handover = Handover()
    for number in range(MAX_PUBLICATIONS + 10):
        handover.hold(("room", b"%d" % number, False))
    assert len(handover.release()) == MAX_PUBLICATIONS


def test_what_it_holds_is_bounded_in_bytes() -> None:
    handover = Handover()
    payload = b"x" * (MAX_SIZE // 4)
    for _ in range(6):
        handover.hold(("room", payload, False))
    handover.hold(("room", b"x", False))
    assert len(handover.release()) == 4
