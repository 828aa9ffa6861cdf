"""How long may things take, and how often are they tried? One name for each temper."""

from datetime import timedelta
from typing import NotRequired, TypedDict

from temporalio.common import Priority, RetryPolicy, TypedSearchAttributes

ORCHESTRATION = "orchestration"
DELIVERY_EMAIL = "delivery-email"
BULK = "bulk"
SEGMENTS = "segments"
AUTOMATIONS = "automations"
TASK_QUEUES = (ORCHESTRATION, DELIVERY_EMAIL, BULK, SEGMENTS, AUTOMATIONS)

# Lower is sooner.
PRIORITY_TEST, PRIORITY_AUTOMATION, PRIORITY_BROADCAST = 1, 2, 4


class ActivityOptions(TypedDict, total=False):
    task_queue: str
    start_to_close_timeout: timedelta
    heartbeat_timeout: timedelta
    retry_policy: RetryPolicy


class StartOptions(TypedDict):
    """How a workflow is started, whoever starts it: the same id wins only once."""

    id: str
    search_attributes: TypedSearchAttributes
    priority: NotRequired[Priority]
    static_summary: str


# How long a request waits for Temporal to take a new run; what it does not take in time, the sweep starts.
STARTING = timedelta(seconds=5)

# What no retry can help: a plan that this version can't read, a template that does not compile.
_HOPELESS = ["ValidationError", "ContentError"]


def _until_it_works(first: timedelta, longest: timedelta) -> RetryPolicy:
    """Try again after `first`, then ever more slowly, `longest` at the most."""
    return RetryPolicy(initial_interval=first, maximum_interval=longest, non_retryable_error_types=_HOPELESS)


# The database is asked one small thing. Retried for ever: it will come back.
QUICK: ActivityOptions = {
    "task_queue": ORCHESTRATION,
    "start_to_close_timeout": timedelta(seconds=20),
    "retry_policy": _until_it_works(timedelta(milliseconds=200), timedelta(seconds=10)),
}

# A step of many contacts, on the task queue of the workflow that asks for it: a rehearsal has one of its own. Contacts
# fail one by one, in the answers; what fails as a whole is tried for ever. It must heartbeat.
STEPPING: ActivityOptions = {
    "start_to_close_timeout": timedelta(hours=2),
    "heartbeat_timeout": timedelta(seconds=10),
    "retry_policy": _until_it_works(timedelta(milliseconds=200), timedelta(seconds=10)),
}

# What people read of journeys is written, on the same task queue. However long it takes, none of it may be missing.
NOTING: ActivityOptions = {
    "start_to_close_timeout": timedelta(seconds=30),
    "retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=10)),
}

# What the script of a rehearsal says is done, on the task queue of its own. Nobody waits long for a rehearsal.
REHEARSING: ActivityOptions = {
    "start_to_close_timeout": timedelta(seconds=30),
    "retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_attempts=3),
}

# Messages leave. A worker that dies is noticed by its missing heartbeats.
SENDING: ActivityOptions = {
    "task_queue": DELIVERY_EMAIL,
    "start_to_close_timeout": timedelta(hours=2),
    "heartbeat_timeout": timedelta(seconds=10),
    "retry_policy": _until_it_works(timedelta(milliseconds=500), timedelta(seconds=10)),
}

# A message whose loss is seen at once, and whose doubling is not worth a risk.
SENDING_ONCE: ActivityOptions = {
    "task_queue": DELIVERY_EMAIL,
    "start_to_close_timeout": timedelta(minutes=2),
    "retry_policy": RetryPolicy(maximum_attempts=1),
}

# Many rows are moved at once.
CRUNCHING: ActivityOptions = {
    "task_queue": BULK,
    "start_to_close_timeout": timedelta(minutes=30),
    "heartbeat_timeout": timedelta(seconds=60),
    "retry_policy": _until_it_works(timedelta(seconds=1), timedelta(seconds=30)),
}

# Figures of an experiment are looked at, while its messages or a person wait for what comes of it: no import may be in
# front of them.
DECIDING: ActivityOptions = {**CRUNCHING, "task_queue": ORCHESTRATION, "heartbeat_timeout": timedelta(seconds=20)}

# An import goes on where it stood as soon as it is missed, and gives up after most of an hour of failures.
IMPORTING: ActivityOptions = {
    **CRUNCHING,
    "heartbeat_timeout": timedelta(seconds=20),
    "retry_policy": RetryPolicy(
        initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30), maximum_attempts=100
    ),
}

# What changes is settled as it comes. Whoever is lost is missed after five seconds; twice at work does no harm.
FOLLOWING: ActivityOptions = {
    "task_queue": ORCHESTRATION,
    "start_to_close_timeout": timedelta(hours=2),
    "heartbeat_timeout": timedelta(seconds=5),
    "retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=2)),
}

# One of many that were lost is read. What fails keeps nobody else waiting: it is tried again by the next sweep.
RESTORING: ActivityOptions = {
    "task_queue": AUTOMATIONS,
    "start_to_close_timeout": timedelta(seconds=20),
    "retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_attempts=3),
}

# Cohorts are told something, one after the other.
TELLING: ActivityOptions = {**FOLLOWING, "task_queue": AUTOMATIONS, "heartbeat_timeout": timedelta(seconds=10)}

# All members of segments are computed.
COMPUTING: ActivityOptions = {
    **CRUNCHING,
    "task_queue": SEGMENTS,
    "start_to_close_timeout": timedelta(hours=6),
    "heartbeat_timeout": timedelta(seconds=10),
}
