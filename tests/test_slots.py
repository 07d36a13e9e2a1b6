"""Fair shares: who waits for whom."""

from collections.abc import Hashable

from mitmproxy_aia.sources.slots import Place, Slots


def ask(slots: Slots, payer: Hashable, target: Hashable) -> Place:
    place = slots.ask(payer, target)
    assert place is not None
    return place


def entered(*places: Place) -> list[bool]:
    return [place.entered.is_set() for place in places]


def test_total() -> None:
    """The next in line gets the place that is given back."""
    slots = Slots(total=2, each=9, at_one=9, queue=9)
    places = [ask(slots, number, number) for number in range(4)]
    assert entered(*places) == [True, True, False, False]
    slots.give_back(places[1])
    assert entered(*places) == [True, True, True, False]


def test_share_of_a_payer() -> None:
    """One who has used up his share waits, and others pass him by."""
    slots = Slots(total=9, each=2, at_one=2, queue=9)
    mine = [ask(slots, "me", number) for number in range(4)]
    other = ask(slots, "other", 0)
    assert entered(*mine, other) == [True, True, False, False, True]
    slots.give_back(other)
    assert entered(*mine) == [True, True, False, False]
    slots.give_back(mine[0])
    assert entered(*mine) == [True, True, True, False]


def test_share_of_a_target() -> None:
    """Many who want the same host cannot use up all places for it."""
    slots = Slots(total=9, each=2, at_one=2, queue=9)
    many = [ask(slots, number, "hanging") for number in range(4)]
    other = ask(slots, 9, "other")
    assert entered(*many, other) == [True, True, False, False, True]


def test_who_has_least_is_first() -> None:
    """Who has nothing yet goes before those who have some and came earlier."""
    slots = Slots(total=3, each=3, at_one=3, queue=9)
    many = [ask(slots, number % 2, number) for number in range(6)]
    honest = [ask(slots, "honest", "a"), ask(slots, "honest", "b")]
    assert entered(*many, *honest) == [True] * 3 + [False] * 5
    slots.give_back(many[0])  # its payer has another
    assert entered(*many[3:], *honest) == [False, False, False, True, False]
    slots.give_back(many[1])  # its payer has none now
    assert entered(*many[3:], *honest) == [True, False, False, True, False]
    slots.give_back(many[2])
    slots.give_back(many[3])
    assert entered(*many[3:], *honest) == [True, True, True, True, False]


def test_the_last_places() -> None:
    """However many have used up their shares, there is something left for those who have less."""
    slots = Slots(total=64, each=16, at_one=64, queue=64)
    many = [ask(slots, number // 20, "a") for number in range(100)]
    assert [sum(entered(*many[start : start + 20])) for start in range(0, 100, 20)] == [
        *(16, 16, 16),
        *(4, 4),
    ]
    # Now only those who have none get one.
    others = [ask(slots, number, "a") for number in (5, 5, 6, 6)]
    assert entered(*others) == [True, False, True, False]
    rest = [ask(slots, number, "a") for number in range(7, 20)]
    assert sum(entered(*rest)) == 64 - 3 * 16 - 2 * 4 - 2
    for place in [*many, *others, *rest]:
        slots.give_back(place)
    assert slots._free == 64


def test_the_last_places_at_a_target() -> None:
    """However many hang there, there is something left for those who have less."""
    slots = Slots(total=256, each=16, at_one=16, queue=64)
    shared = [ask(slots, "hostile", "shared") for _ in range(16)]
    assert sum(entered(*shared)) == 12
    elsewhere = ask(slots, "hostile", "elsewhere")
    assert entered(elsewhere) == [True]
    others = [ask(slots, "a", "shared") for _ in range(4)]
    assert entered(*others) == [True, True, False, False]
    others += [ask(slots, each, "shared") for each in "bcd"]
    assert entered(*others[4:]) == [True, True, False]
    slots.give_back(others[4])
    assert entered(*others[4:]) == [True, True, True]


def test_joining() -> None:
    """What waits on one account goes ahead on another that has room, and is charged to that."""
    slots = Slots(total=9, each=1, at_one=1, queue=9)
    first = ask(slots, "full", 1)
    second = ask(slots, "full", 2)
    slots.share(second, "free")
    assert entered(first, second) == [True, True]
    third, fourth = ask(slots, "free", 3), ask(slots, "full", 4)
    slots.share(second, "anybody")
    slots.give_back(second)
    assert entered(third, fourth) == [True, False]
    slots.give_back(first)
    assert entered(fourth) == [True]


def test_joining_where_nobody_has_room() -> None:
    """Then it waits on both accounts, once on each."""
    slots = Slots(total=9, each=1, at_one=1, queue=1)
    ask(slots, "a", 1)
    ask(slots, "b", 2)
    waiting = ask(slots, "a", 3)
    slots.share(waiting, "b")
    slots.share(waiting, "b")
    assert slots.ask("b", 4) is None
    slots.give_back(waiting)
    assert entered(ask(slots, "b", 4)) == [False]


def test_queue() -> None:
    """Who has too many waiting is sent away, and nobody else is."""
    slots = Slots(total=9, each=1, at_one=1, queue=2)
    places = [ask(slots, "me", number) for number in range(3)]
    assert slots.ask("me", 3) is None
    assert entered(ask(slots, "other", 4)) == [True]
    slots.give_back(places[2])
    assert slots.ask("me", 3) is not None


def test_given_back_twice() -> None:
    """The second time nothing happens."""
    slots = Slots(total=1, each=1, at_one=1, queue=9)
    place = ask(slots, "a", 1)
    slots.give_back(place)
    slots.give_back(place)
    assert entered(*(ask(slots, number, number) for number in range(2))) == [True, False]


def test_leaves_nothing_behind() -> None:
    """There is no end of strangers, and nothing is kept of those who have gone."""
    slots = Slots(total=2, each=1, at_one=1, queue=9)
    places = [ask(slots, number, number) for number in range(5)]
    for place in places:
        slots.give_back(place)
    assert [*slots._payers, *slots._targets, *slots._waiting, *slots._in_line] == []
