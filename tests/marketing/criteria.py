"""Random criteria, as somebody would write them, with operands that people and events really have now and then."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from marketing.segment_fields import AMOUNTS, CONTACT_FIELDS, COUNTS, EVENT_FIELDS, MOMENTS, Askable
from marketing.spans import first_moment, first_moment_after, when

Written = dict[str, Any]
Strategy = st.SearchStrategy[Any]

# A leap day, the end of a short month after a long one, and an ordinary day.
NOWS = [
    datetime(2028, 2, 29, 12, 30, tzinfo=UTC),
    datetime(2027, 3, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2026, 11, 21, 7, 15, tzinfo=UTC),
]
SEGMENTS = ["01990000-0000-7000-8000-000000000001", "01990000-0000-7000-8000-0000000000AB".lower()]
CAMPAIGNS = ["01990000-0000-7000-8000-00000000c001", "01990000-0000-7000-8000-00000000c002"]
EVENTS = ["purchase", "order.completed", "page view: a/b", "message.sent", "message.opened", "message.clicked"]
TEXTS = [
    *("pro", "Pro", "free", "", "5", "true", "null", "a b", "100%", "a_b", "axb", "it's", 'say "hi"'),
    *("Straße", "STRASSE", "İzmir", "izmir", "ΣΊΣΥΦΟΣ", "σίσυφος", "ǅ", "é", "É"),
    *(r"a\b", ":now", "%(x)s", "{0}", "$1", "'; DROP TABLE contacts; --"),
    *("2026-02-30", "19000101", "2026-11-21T07:15Z trailing", "today", "infinity", "epoch"),
]
NUMBERS = [0, 1, -1, 2, 5, 5.0, 2.5, 0.1, 49.99, 100, 1e15, 2**53 + 1, 2**63 - 1, -(2**63 - 1), 1e-7, 12345678901234567]
DURATIONS = [
    "1 minute",
    "90 minutes",
    "6 hours",
    "1 day",
    "7 days",
    "30 days",
    "2 weeks",
    "1 month",
    "3 months",
    "1 year",
]
DAYS = ["0 days", "1 day", "7 days", "2 weeks", "45 days", "365 days"]
ATTRIBUTES = ["plan", "age", "born", "list", "a.b"]
ODD_ATTRIBUTES = ["a", "a.b.c", "list.0", "born.x", "it's", "Ünï cödé", 'q"uote', "x:y", "%s", "$a", "{b}", "nobody's"]
COLUMNS: dict[str, list[str]] = {
    "email": ["Zoe@Example.com", "zoë@example.org", "a_b@example.com", "axb@example.com", "100%@example.net"],
    "phone": ["+33612345678", "+4915112345678", "+12015550123"],
    "external_id": ["1", "crm-1", "CRM-1", "a_b", "100%", "it's", ":id"],
    "first_name": ["Zoë", "ZOË", "İpek", "ipek", "Straße", "a_b", r"back\slash", "Σίσυφος", "O'Neil"],
    "last_name": ["Durand", "durand", "D%", "van der Berg"],
    "country": ["FR", "DE", "GB", "US"],
    "locale": ["fr-FR", "de", "pt-BR", "zh-Hant-TW"],
    "timezone": ["Europe/Paris", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu", "UTC"],
}  # fmt: skip
TAGS = ["vip", "VIP", "a b", "it's", "100%", '"quoted"', "{curly}", "back\\slash", "a,b"]
TOPICS = ["", "news", "news.daily", "it's"]
CHANNELS = ["email", "sms", "whatsapp"]
STATUSES = ["subscribed", "unsubscribed", "pending"]
CURRENCIES = ["EUR", "USD", "JPY"]


def times() -> list[str]:
    """Days and moments at, just before and just after what relative operators reach."""
    told = [
        "1990-02-28",
        "1992-02-29",
        "1991-03-01",
        "1899-12-31",
        "2200-01-01",
        "1900-01-01",
        "2199-12-31T23:59:59.999999Z",
    ]
    for now in NOWS:
        for days in (0, 1, -1, -6, -7, -8, 7, -30, -31, 30, -365, -366, 364):
            day = now + timedelta(days=days)
            told += [
                f"{day:%Y-%m-%d}",
                f"{day.year - 30}-{day:%m-%d}" if (day.month, day.day) != (2, 29) else "1996-02-29",
            ]
            told += [f"{day:%Y-%m-%dT%H:%M:%S.%f}Z", f"{day:%Y-%m-%d %H:%M}", f"{day:%Y-%m-%dT%H:%M:%S}+05:30"]
    return sorted(set(told))


TIMES = times()
# What can be said about the time of a criterion lies within the years that we keep.
ASKED_TIMES = [each for each in TIMES if "1900" <= each[:4] < "2200"]
ASKED_DAYS = [each for each in ASKED_TIMES if len(each) == 10]
WRONG_TIMES = [
    "2026-02-30",
    "2026-13-01",
    "2026-11-21T24:00Z",
    "2026-11-21T07:60",
    "2026-1-2",
    "0000-01-01",
    "2026-11-21T07:15:00+15:00",
]
SCALARS: list[Any] = [*TEXTS, *NUMBERS, True, False, *TIMES, *WRONG_TIMES]
FEW: list[Any] = [*TEXTS[:6], *NUMBERS[:8], True, False]


def values(name: str) -> Strategy:
    """What `is` may ask of a field."""
    root = name.partition(".")[0]
    match root:
        case "attributes" | "properties":
            few = TEXTS[:6] if name.endswith(".plan") else NUMBERS[:8] if name.endswith(".age") else []
            return st.sampled_from(few or FEW) | st.sampled_from(SCALARS)
        case "subscriptions":
            return st.sampled_from(STATUSES)
        case "suppressions" | "machine":
            return st.booleans()
        case "value":
            return st.sampled_from(NUMBERS)
        case "campaign_id":
            return st.sampled_from(CAMPAIGNS)
        case "currency":
            return st.sampled_from([*CURRENCIES, "eur"])
        case "tags":
            return st.sampled_from(TAGS)
    return st.sampled_from(COLUMNS[root])


def pieces(name: str) -> Strategy:
    """What `contains` may ask of a text: some of what is there, in any case."""
    root = name.partition(".")[0]
    whole = st.sampled_from([each for each in COLUMNS.get(root, TEXTS[:6]) if each])
    if root not in COLUMNS:
        whole |= st.sampled_from([each for each in TEXTS if each])

    def some(text: str, start: int, length: int, case: int) -> str:
        piece = text[start % len(text) :][:length]
        return [piece, piece.upper(), piece.lower(), piece.swapcase()][case]

    return st.builds(some, whole, st.integers(0, 30), st.integers(1, 8), st.integers(0, 3))


def _pairs(one: Strategy) -> Strategy:
    return st.lists(one, min_size=2, max_size=2).map(sorted)


def _in_order(pair: list[str]) -> bool:
    low, high = (each[:10] for each in pair)
    return low < high or (low == high and len(pair[1]) == 10)


def operands(name: str, operator: str) -> Strategy:
    root = name.partition(".")[0]
    in_json = root in ("attributes", "properties")
    numbers = st.sampled_from(NUMBERS[:8]) | st.sampled_from(NUMBERS)
    moments = st.sampled_from(ASKED_TIMES)
    intervals = _pairs(moments).filter(_in_order)
    match operator:
        case "exists":
            return st.booleans()
        case "starts_with" | "ends_with":
            return pieces(name)
        case "contains":
            return pieces(name) | values(name) if in_json else values(name) if root == "tags" else pieces(name)
        case "in" | "not_in" | "contains_any" | "contains_all" | "contains_none":
            return st.lists(values(name), min_size=1, max_size=3)
        case "between":
            return intervals | _pairs(numbers) if in_json else _pairs(numbers) if root == "value" else intervals
        case "exactly" | "at_least" | "at_most" | "more_than" | "less_than":
            return numbers
        case "within" | "within_next" | "older_than":
            return st.sampled_from(DURATIONS)
        case "anniversary_within":
            return st.sampled_from(DAYS)
        case "before" | "after":
            return moments
        case "on":
            return st.sampled_from(ASKED_DAYS)
    return values(name)


def usual(operator: str) -> list[str]:
    """The attributes that mostly are what an operator asks about."""
    match operator:
        case "on" | "before" | "after" | "within" | "within_next" | "older_than" | "anniversary_within":
            return ["born"]
        case "at_least" | "at_most" | "more_than" | "less_than":
            return ["age"]
        case "contains_any" | "contains_all" | "contains_none":
            return ["list"]
        case "starts_with" | "ends_with":
            return ["plan"]
        case "between":
            return ["age", "born"]
    return ATTRIBUTES


def names(askable: Askable, operator: str) -> Strategy:
    """Fields of a family, or the one field that there is."""
    match askable.written:
        case "attributes.NAME" | "properties.NAME":
            root = askable.written.partition(".")[0]
            likely = usual(operator)
            some = st.sampled_from(likely) | st.sampled_from(likely) | st.sampled_from([*ATTRIBUTES, *ODD_ATTRIBUTES])
            return some.map(lambda name: f"{root}.{name}")
        case "subscriptions.CHANNEL":
            return st.builds(
                lambda channel, topic: f"subscriptions.{channel}{topic and '.'}{topic}",
                st.sampled_from(CHANNELS),
                st.sampled_from(TOPICS),
            )
        case "suppressions.CHANNEL":
            return st.sampled_from([f"suppressions.{channel}" for channel in CHANNELS])
    return st.just(askable.written)


def condition(askable: Askable, operator: str) -> Strategy:
    return names(askable, operator).flatmap(
        lambda name: operands(name, operator).map(lambda it: {"field": name, operator: it})
    )


@st.composite
def conditions(draw: st.DrawFn, asked_of: str) -> Written:
    """Of a contact, or of an event."""
    fields = {"contact": CONTACT_FIELDS, "event": EVENT_FIELDS}[asked_of]
    asked, operator = draw(st.sampled_from([(each, operator) for each in fields for operator in each.operators]))
    found: Written = draw(condition(asked, operator))
    return found


def _combined(leaves: Strategy, most: int) -> Strategy:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
            inner.map(lambda one: {"not": one}),
        ),
        max_leaves=most,
    )


wheres = _combined(conditions("event"), 3)
_windows: dict[str, Strategy] = {
    "within": st.sampled_from(DURATIONS),
    "before": st.sampled_from(ASKED_TIMES),
    "after": st.sampled_from(ASKED_TIMES),
    "where": wheres,
    "machines": st.just(True),
}
_numbers = st.integers(0, 4)


def count_of(operator: str) -> Strategy:
    match operator:
        case "between":
            return _pairs(_numbers).map(lambda pair: {operator: pair})
        case "at_least" | "less_than":
            return st.integers(1, 4).map(lambda number: {operator: number})
    return _numbers.map(lambda number: {operator: number})


def operator_of(operator: str, name: str = "created_at") -> Strategy:
    return operands(name, operator).map(lambda operand: {operator: operand})


def _possible(asked: Written) -> Written:
    """Without a part that contradicts another one."""
    if (
        "after" in asked
        and "before" in asked
        and first_moment_after(when(asked["after"])) >= first_moment(when(asked["before"]))
    ):
        del asked["before"]
    if asked.get("count") in ({"exactly": 0}, {"at_most": 0}, {"less_than": 1}, {"between": [0, 0]}):
        asked = {part: asked[part] for part in asked if part not in ("first", "last")}
    return asked


counts = st.one_of([count_of(operator) for operator in COUNTS])
timings = st.one_of([operator_of(operator) for operator in MOMENTS])
_named_events = st.sampled_from(EVENTS)
happened = st.fixed_dictionaries(
    {"event": _named_events}, optional={**_windows, "count": counts, "first": timings, "last": timings}
).map(_possible)
never = st.fixed_dictionaries({"event": _named_events, "never": st.just(True)}, optional=_windows).map(_possible)
totals = st.builds(
    lambda asked, amount: _possible({**asked, **amount}),
    st.fixed_dictionaries(
        {
            "total": st.builds(
                lambda event, what: f"{event}.{what}",
                _named_events,
                st.sampled_from(["value", "value", "properties.age", "properties.a.b", "properties.list.0"]),
            )
        },
        optional=_windows,
    ),
    st.one_of([operator_of(operator, "value") for operator in AMOUNTS]),
)
buckets = st.fixed_dictionaries(
    {"bucket": _pairs(st.integers(0, 100)).filter(lambda pair: pair[0] < pair[1])},
    optional={"seed": st.sampled_from(["a", "it's", ":x", "é"])},
)
in_segments = st.sampled_from(SEGMENTS).map(lambda segment: {"segment": segment})
_lengths = st.sampled_from(["30 days", "1 month", "6 weeks"])
named = st.one_of(
    st.fixed_dictionaries(
        {"named": st.just("spending_level"), "is": st.sampled_from(["none", "low", "medium", "high"])},
        optional={
            "event": _named_events,
            "within": _lengths,
            "medium": st.sampled_from([1, 49.99, 60]),
            "high": st.sampled_from([101, 5000.5]),
        },
    ),
    st.fixed_dictionaries(
        {"named": st.just("engagement"), "is": st.sampled_from(["engaged", "cooling", "dormant", "unreached"])},
        optional={"recent": st.sampled_from(["1 day", "7 days"]), "past": st.sampled_from(["31 days", "3 months"])},
    ),
    st.fixed_dictionaries(
        {"named": st.just("subscription_tier"), "is": st.sampled_from(["pro", "Pro", "it's"])},
        optional={"attribute": st.sampled_from(["plan", "it's", "Ünï cödé"])},
    ),
    st.fixed_dictionaries(
        {"named": st.just("days_without_activity"), "at_least": st.sampled_from([1, 7, 30, 31])},
        optional={"events": st.lists(_named_events, min_size=1, max_size=3)},
    ),
)


@st.composite
def leaves(draw: st.DrawFn) -> Written:
    kinds = [conditions("contact"), happened, happened, never, totals, buckets, in_segments, named]
    found: Written = draw(draw(st.sampled_from(kinds)))
    return found


criteria = _combined(leaves(), 6)
