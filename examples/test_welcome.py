"""A test of an automation, as its author writes it: `rehearse` comes with Carillon."""

from automations.welcome import welcome
from pytest_carillon import Rehearse


async def test_whoever_clicks_the_welcome_is_not_asked_again(rehearse: Rehearse) -> None:
    timeline = await rehearse(welcome, script=["clicks welcome on day 1"])
    assert timeline.sent == ["welcome", "showcase"]
