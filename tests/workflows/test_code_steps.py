"""Is it told where a step could not be taken, or nobody waits for it, and nowhere else?"""

import ast
from textwrap import dedent, indent

import pytest

from workflows.code_steps import wrong_steps

HEAD = """\
import asyncio
from datetime import timedelta
from workflows.journey import Contact, Journey as J, automation

SOON = "20 seconds"
LATER = "2 hours"
RULE = {"nonsense": 1}
FRENCH = {"field": "country", "in": ("FR", "BE")}
EITHER = {"any": [FRENCH, {"field": "tags", "contains": "vip"}]}

async def greet(contact, journey): ...

@automation("a")
async def a(contact, journey):
"""


def wrong(lines: str) -> list[str]:
    """What is wrong with lines of an automation."""
    source = HEAD + indent(dedent(lines), "    ")
    return [text for _, text in wrong_steps(ast.parse(source))]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("await journey.wait('20 seconds')", "`journey.wait(…)`: duration: takes a time such as 30 days, a minute at"),
        ("await journey.wait(SOON)", "duration: takes a time"),
        ("await journey.wait_for('purchase', within='20 seconds')", "within: takes a time"),
        ("await journey.wait()", "say how long"),
        ("await journey.wait(days=-1)", "less than no time"),
        ("await journey.activity(len)", "`len` is no function under `@activity.defn`"),
        ("await journey.wait_for('purchase')", "missing a required argument: 'within'"),
        ("await journey.wait_for('', within='1 day')", "event: takes the name of an event"),
        ("await journey.wait_for('a', within='1 day', where={'field': 'x', 'is': 1})", "where.field: There is no such"),
        ("await journey.wait_until('25:00')", "at: takes a time of the day such as 09:00."),
        ("await journey.wait_until()", "say until when: at, weekday or date."),
        ("await journey.wait_until('09:00', weekday='Monday')", "weekday: takes 'monday'"),
        ("await journey.wait_until(date='2026-02-30')", "date: "),
        ("await journey.wait_until('09:00', zone='Europe/Nowhere')", "zone: 'Europe/Nowhere' is no IANA time zone"),
        ("await journey.send()", "give exactly one of template and content."),
        ("await journey.send('a', content={})", "give exactly one of template and content."),
        ("await journey.send('a', channel='fax')", "channel: takes 'email'"),
        ("await journey.send('a', fallback='email')", "the fallback is the channel itself"),
        ("await journey.send(tempalte='a')", "got an unexpected keyword argument 'tempalte'"),
        ("await journey.matches({'nonsense': 1})", "criteria: Give an object with one of"),
        ("await journey.matches(RULE)", "criteria: Give an object with one of"),
        (
            "await journey.matches({'all': [{'field': 'plan', 'is': 1}]})",
            "criteria.all.0.field: There is no such field",
        ),
        ("await journey.engagement('20 seconds')", "since: takes a time"),
        ("await journey.split({})", "shares: needs at least 1."),
        ("await journey.split({'a': 0.5, 'b': 0.5})", "shares.a: takes a whole number from 1 to 10,000."),
        ("await journey.tag()", "name at least one tag under add or remove."),
        ("await journey.tag('a', remove='b')", "remove: takes a list."),
        ("await journey.add_to('')", "segment: is empty."),
        ("await journey.update_contact({'contry': 'FR'})", "changes.contry: is not understood here."),
        ("await journey.webhook('ftp://example.com')", "url: takes the address of a web page"),
        ("await journey.notify('')", "text: is empty."),
        ("await journey.create_campaign({'name': 'C', 'kind': 'drop'})", "campaign.kind: "),
        (
            "await journey.activity(greet, within='2 hours')",
            "within: An activity may take 30 minutes at the most, not 2",
        ),
        ("await journey.sned('a')", "`journey.sned`: a journey has no such step"),
        ("await journey.tag('a', step=3)", "step: takes text."),
        (
            "while journey.now.hour < 25: pass",
            "`while journey.now.hour < 25` never ends: await a step in it, or `break`",
        ),
        ("while journey.now < journey.entered_at + timedelta(days=3): names.append('a')", "never ends"),
        ("while contact.zone.startswith('Europe/'): found = len(names)", "never ends"),
        ("while True: pass", "`while True` never ends"),
    ],
)
def test_what_would_fail_whenever_somebody_comes_to_it_is_refused(line: str, said: str) -> None:
    found = wrong(line)
    assert len(found) >= 1 and said in found[0], found


@pytest.mark.parametrize(
    "line",
    [
        "await journey.wait(seconds=20)",
        "await journey.wait(days=days, hours=-1)",
        "await journey.activity(len_of_visit)",
        "await journey.wait(timedelta(seconds=20))",
        "await journey.wait(LATER)",
        "await journey.wait(delay)",
        "await journey.wait(f'{contact.days} days')",
        "SOON = contact.pace; await journey.wait(SOON)",
        "await journey.wait_until(time(9), zone=None)",
        "await journey.wait_until('09:00:30', zone='contact')",
        "await journey.wait_until(date=date(2026, 12, 24))",
        "await journey.send(UUID(number), fallback=None)",
        "await journey.send(f'welcome-{number}')",
        "await journey.send(content={'subject': subject, 'text': 'Hello'})",
        "await journey.send(template, channel='sms')",
        "await journey.send(**options)",
        "await journey.matches(FRENCH)",
        "await journey.matches(EITHER)",
        "await journey.engagement()",
        "await journey.engagement(journey.entered_at)",
        "await journey.split({'A': 90, 'Big offer': 10})",
        "await journey.split({name: 1 for name in names})",
        "await journey.tag(*names)",
        "await journey.tag(name, remove=['b'])",
        "await journey.tag(remove=('b',))",
        "await journey.activity('score', 1, {2}, within='30 minutes')",
        "journey.trigger.get('plan')",
        "journey.exit('Not interested')",
        "def told(journey: str): return journey.upper()",
        "def told(journey): return journey.get('plan')",
        "await other.wait('20 seconds')",
        "await journey.tag('a', step=name)",
        "while False: pass",
        "while len(names) < 5: names.append('a')",
        "while journey.now.hour < 9: await journey.wait('1 hour')",
        "while journey.now.hour < 9: helped(journey)",
        "while True: journey.exit('done')",
        "while True: name = next(names)",
        "while name := names.pop(): pass",
        "while await journey.matches(criteria): pass",
        "while True: [await journey.send(each) for each in names]",
        "while journey.trigger: journey.trigger.popitem()",
        "while journey.now.hour < 9: journey = another",
    ],
)
def test_what_may_well_be_taken_is_left_alone(line: str) -> None:
    assert wrong(line) == []


def test_the_journey_is_known_by_its_place_its_type_or_its_name() -> None:
    source = """\
    from workflows.journey import Contact, Journey as J, automation

    @automation("a")
    async def a(who, way):
        await way.tag()
        async def inner():
            await way.tag()

    async def nudge(j: J, k: "Journey", journey, other):
        await j.tag()
        await k.tag()
        await journey.tag()
        await other.tag()
        [await j.tag() for n in "ab"]
        return lambda j: j.tag()
    """
    assert [line for line, _ in wrong_steps(ast.parse(dedent(source)))] == [5, 7, 10, 11, 12, 14]


@pytest.mark.parametrize(
    "line",
    [
        "journey.wait('1 day')",
        "sent = journey.send('a')",
        "if journey.matches(FRENCH): pass",
        "if not journey.wait_for('a', within='1 day'): pass",
        "while contact and journey.matches(FRENCH): pass",
        "x = 1 if journey.matches(FRENCH) else 2",
        "if journey.split({'a': 1, 'b': 1}) == 'a': pass",
        "match journey.split({'a': 1, 'b': 1}):\n        case 'a': pass",
        "journey.send('a').state",
        "[n for n in 'ab' if journey.matches(FRENCH)]",
        "greet(contact, journey)",
        "asyncio.gather(journey.send('a'), journey.send('b'))",
    ],
)
def test_steps_that_nobody_waits_for_are_refused(line: str) -> None:
    (found,) = wrong(line)
    assert "does nothing until it is awaited: write `await " in found


@pytest.mark.parametrize(
    "line",
    [
        "await journey.wait('1 day')",
        "await asyncio.gather(journey.send('a'), *[journey.tag(n) for n in 'ab'])",
        "both = asyncio.gather(journey.send('a'), journey.send('b')); await both",
        "sending = journey.send('a'); await sending",
        "steps = [journey.send('a')]; steps.append(journey.send('b')); await asyncio.gather(*steps)",
        "await greet(contact, journey)",
        "await (journey.send('a') if contact else journey.send('b'))",
        "await (step := journey.send('a'))",
        "task = asyncio.create_task(journey.send('a')); await task",
        "return journey.send('a')",
        "send = lambda: journey.send('a'); await send()",
        "(await journey.send('a')).state",
        "journey.exit('done')",
    ],
)
def test_steps_that_are_awaited_somewhere_are_left_alone(line: str) -> None:
    assert wrong(line) == []
