"""Random steps and triggers, as somebody would write them."""

from typing import Any

from hypothesis import strategies as st

from tests.marketing.criteria import SEGMENTS

Written = dict[str, Any]

DURATIONS = st.sampled_from(["5 minutes", "24 hours", "3 days", "2 weeks", "1 month"])
EVENTS = st.sampled_from(["purchase", "message.clicked", "cart.abandoned"])
WHERE = {"field": "value", "at_least": 50}
CRITERIA = st.sampled_from(
    [
        {"field": "country", "is": "FR"},
        {"all": [{"segment": SEGMENTS[0]}, {"not": {"event": "purchase", "within": "30 days"}}]},
        {"named": "engagement", "is": "engaged"},
    ]
)
SEGMENT = st.sampled_from(SEGMENTS)


def _step(kind: str, optional: dict[str, st.SearchStrategy[Any]] | None = None, **parts: Any) -> Any:
    given_parts = {name: part if isinstance(part, st.SearchStrategy) else st.just(part) for name, part in parts.items()}
    return st.fixed_dictionaries({"type": st.just(kind), **given_parts}, optional=optional or {})


LEAVES = st.one_of(
    _step("send", template=st.sampled_from(["welcome", SEGMENTS[0]]), optional={"channel": st.just("email")}),
    _step("send", content={"subject": "Hello", "html": "<p>Hello</p>"}, optional={"fallback": st.just("sms")}),
    _step("wait", duration=DURATIONS),
    _step("wait_until", at="09:00", optional={"weekday": st.just("monday"), "zone": st.just("Europe/Paris")}),
    _step("wait_until", date="2027-02-28"),
    _step("exit", optional={"reason": st.just("not-interested")}),
    _step("add_to", segment=SEGMENT),
    _step("remove_from", segment=SEGMENT),
    _step(
        "update_contact", changes=st.sampled_from([{"country": "FR"}, {"first_name": None}, {"attributes": {"a": 1}}])
    ),
    _step("tag", add=["vip"], optional={"remove": st.just(["lead"])}),
    _step("webhook", url="https://example.com/hook", optional={"data": st.just({"a": [1, None]})}),
    _step("create_campaign", campaign={"name": "Thank you"}, optional={"launch": st.just(False)}),
    _step("notify", text="{{ contact.first_name }} came in"),
    _step("activity", name="reserve", optional={"input": st.just([1, "a"])}),
)


def _several(inner: st.SearchStrategy[list[Written]]) -> Any:
    branches = {"then": inner, "else": inner}
    return st.lists(
        LEAVES
        | _step("branch", branches, **{"if": CRITERIA})
        | _step("wait_for", {**branches, "where": st.just(WHERE)}, event=EVENTS, within=DURATIONS)
        | _step("split", variants=st.fixed_dictionaries({"a": _variant(inner), "b": _variant(inner)})),
        max_size=4,
    )


def _variant(inner: st.SearchStrategy[list[Written]]) -> Any:
    return st.fixed_dictionaries({"weight": st.integers(1, 99)}, optional={"steps": inner})


steps: Any = st.recursive(st.lists(LEAVES, max_size=3), _several, max_leaves=6).filter(bool)

triggers: Any = st.one_of(
    _step("event", {"where": st.just(WHERE)}, event=EVENTS),
    _step("segment_entered", segment=SEGMENT),
    _step("segment_left", segment=SEGMENT),
    _step("tag_added", tag="vip"),
    _step("field_changed", field=st.sampled_from(["country", "attributes.plan"])),
    _step("date", {"repeat": st.just("once"), "offset": st.just("-3 days")}, field="attributes.birthday"),
    _step("inactivity", {"event": EVENTS}, days=14),
    _step("schedule", {"timezone": st.just("Europe/Paris")}, cron="0 9 * * 1-5", segment=SEGMENT),
    _step("api"),
)

definitions: Any = st.fixed_dictionaries(
    {"name": st.just("Welcome"), "trigger": triggers, "steps": steps},
    optional={
        "entry": CRITERIA,
        "reentry": st.sampled_from(["once", "always", {"after": "30 days"}]),
        "goal": st.fixed_dictionaries({"event": EVENTS}, optional={"where": st.just(WHERE)}),
        "exit_on": st.lists(
            st.fixed_dictionaries({"event": EVENTS}) | st.fixed_dictionaries({"if": CRITERIA}), max_size=2
        ),
        "topic": st.just("news"),
        "time_limit": st.sampled_from(["180 days", "1 year"]),
    },
)
