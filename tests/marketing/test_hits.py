"""Who was it, and what does it change? The arithmetic of openings and clicks, without a database."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from marketing.hits import CLICKED, OPENED, Delivery, Earlier, Findings, Firsts, Hit, Tally, changes, judge
from marketing.machines import Action, Sign

SENT_AT = datetime(2026, 11, 27, 9, 30, tzinfo=UTC)
HOUR = datetime(2026, 11, 27, 9, tzinfo=UTC)
CAMPAIGN, CONTACT, DELIVERY, EVENT = (UUID(int=n) for n in range(1, 5))
UNTOUCHED = Delivery(DELIVERY, CAMPAIGN, CONTACT, "email", "", "B", SENT_AT, None, None)
TALLY = Tally(CAMPAIGN, HOUR, "email", "", "B")


def after(seconds: float) -> datetime:
    return SENT_AT + timedelta(seconds=seconds)


def click(seconds: float, link: int, sign: Sign | None = None) -> Hit:
    return Hit(Action.CLICK, DELIVERY, after(seconds), sign, link, f"https://example.com/{link}")


def told(findings: Findings) -> list[tuple[str, bool, object]]:
    return [(event.name, event.machine, event.properties.get("sign")) for event in findings.events]


def test_a_click_of_a_person_brings_its_opening_along() -> None:
    findings = judge([click(60, 1)], {DELIVERY: UNTOUCHED}, [])
    assert told(findings) == [(CLICKED, False, None), (OPENED, False, None)]
    assert findings.events[1].properties == {"implied": True}


def test_who_is_known_to_have_opened_implies_nothing() -> None:
    opened = UNTOUCHED._replace(opened_at=after(10))
    assert told(judge([click(60, 1)], {DELIVERY: opened}, [])) == [(CLICKED, False, None)]


def test_what_the_request_said_outweighs_what_the_moment_says() -> None:
    findings = judge([click(1, 1), click(1, 2, Sign.HEAD)], {DELIVERY: UNTOUCHED}, [])
    assert told(findings) == [(CLICKED, True, "burst"), (CLICKED, True, "head")]


def test_a_burst_reaches_back_to_what_is_on_record() -> None:
    opened = UNTOUCHED._replace(opened_at=after(60), clicked_at=after(60))
    earlier = [
        Earlier(EVENT, CLICKED, DELIVERY, after(60), False, 1),
        Earlier(UUID(int=9), OPENED, DELIVERY, after(60), False, None),
        Earlier(UUID(int=10), CLICKED, DELIVERY, after(61), False, 1),
    ]
    findings = judge([click(60.4, 2)], {DELIVERY: opened}, earlier)
    assert findings.machines_after_all == earlier[:2]
    assert told(findings) == [(CLICKED, True, "burst"), (OPENED, False, None)]
    assert findings.events[1].at == after(61), "the reader's own click, on record already, now implies the opening"


def test_only_who_was_not_known_or_came_earlier_is_first() -> None:
    known = UNTOUCHED._replace(opened_at=after(70), clicked_at=after(80))
    assert judge([click(90, 1)], {DELIVERY: known}, []).firsts() == {}
    assert judge([click(75, 1)], {DELIVERY: known}, []).firsts() == {DELIVERY: Firsts(after(70), after(75))}
    both = {DELIVERY: Firsts(after(60), after(60))}
    assert judge([click(90, 1), click(60, 1)], {DELIVERY: UNTOUCHED}, []).firsts() == both
    assert judge([click(60, 1, Sign.AGENT)], {DELIVERY: UNTOUCHED}, []).firsts() == {}


def test_where_a_machine_was_taken_for_a_person_only_the_record_knows_who_was_first() -> None:
    opened = UNTOUCHED._replace(opened_at=after(60), clicked_at=after(60))
    earlier = [Earlier(EVENT, CLICKED, DELIVERY, after(60), False, 1)]
    findings = judge([click(60.2, 2), click(90, 2)], {DELIVERY: opened}, earlier)
    assert findings.unsettled() == {DELIVERY}
    assert findings.firsts() == {}


def test_figures_move_to_the_hour_of_the_true_first() -> None:
    taken_back = UNTOUCHED._replace(opened_at=after(60), clicked_at=after(60))
    later = after(3_600)
    moved = changes(Findings(), {DELIVERY: taken_back}, {DELIVERY: Firsts(later, None)})
    next_hour = TALLY._replace(hour=HOUR + timedelta(hours=1))
    assert moved == {TALLY: {"opened_unique": -1, "clicked_unique": -1}, next_hour: {"opened_unique": 1}}


def test_a_machine_found_out_is_taken_off_the_peoples_figures() -> None:
    caught = Findings(machines_after_all=[Earlier(EVENT, CLICKED, DELIVERY, after(60), False, 1)])
    assert changes(caught, {DELIVERY: UNTOUCHED}, {}) == {TALLY: {"clicked": -1, "clicked_machine": 1}}
