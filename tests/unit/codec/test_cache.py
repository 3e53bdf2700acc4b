"""What was used last is kept, within a bound."""

from dataclasses import dataclass

from lhttp_tx.codec.cache import Generations


@dataclass(frozen=True)
class Thing:
    name: str
    cost: int = 1


def filled(size: int, count: int) -> Generations[str, Thing]:
    kept: Generations[str, Thing] = Generations(size)
    for number in range(count):
        kept.put(str(number), Thing(str(number)))
    return kept


def cost(kept: Generations[str, Thing]) -> int:
    return sum(thing.cost for generation in (kept.young, kept._old) for thing in generation.values())


def test_what_fits_is_kept() -> None:
    kept = filled(100, 50)
    assert [kept.get(str(number)) for number in range(50)] == [Thing(str(number)) for number in range(50)]


def test_what_is_not_kept_is_not_found() -> None:
    assert filled(100, 5).get("5") is None


def test_the_bound_counts_costs() -> None:
    kept: Generations[str, Thing] = Generations(100)
    for number in range(1_000):
        kept.put(str(number), Thing(str(number), cost=number % 10 + 1))
        assert cost(kept) <= 100


def test_what_is_found_among_the_old_counts_too() -> None:
    kept = filled(100, 75)
    for number in range(75):
        kept.get(str(number))
        assert cost(kept) <= 100


def test_what_is_larger_than_a_generation_is_not_kept() -> None:
    kept = filled(100, 5)
    kept.put("large", Thing("large", cost=51))
    assert kept.get("large") is None
    assert len(kept) == 5


def test_what_is_used_survives_any_number_of_others() -> None:
    kept = filled(100, 1)
    for number in range(1, 10_000):
        assert kept.get("0") is not None
        kept.put(str(number), Thing(str(number)))


def test_what_is_used_no_more_is_forgotten() -> None:
    kept = filled(100, 10_000)
    assert [number for number in range(50) if kept.get(str(number)) is not None] == []


def test_a_new_set_of_what_is_used_gets_in() -> None:
    kept = filled(100, 1_000)
    for _ in range(20):
        for name in "abcdefgh":
            if kept.get(name) is None:
                kept.put(name, Thing(name))
    assert all(kept.get(name) is not None for name in "abcdefgh")


def test_more_than_fits_used_in_turn_do_not_all_drive_each_other_out() -> None:
    kept = filled(200, 0)
    found = 0
    for turn in range(20):
        for number in range(300):
            if kept.get(str(number)) is None:
                kept.put(str(number), Thing(str(number)))
            else:
                found += turn >= 10
    assert found >= 0.25 * 10 * 300


def test_forgetting_everything() -> None:
    kept = filled(100, 75)
    kept.clear()
    assert len(kept) == 0
    assert kept.get("74") is None
    kept.put("new", Thing("new"))
    assert len(kept) == 1
