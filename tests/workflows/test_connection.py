"""What goes over the connection to Temporal, and stays there."""

from temporalio.api.failure.v1 import Failure

from workflows.connection import DATA_CONVERTER


async def test_a_failure_goes_into_the_history_without_addresses_and_so_do_its_causes() -> None:
    try:
        try:
            raise ValueError("Key (email)=(jo@example.org) already exists")
        except ValueError as error:
            raise RuntimeError("jo@example.org was not taken") from error
    except RuntimeError as error:
        failed, written = error, Failure()
        await DATA_CONVERTER.encode_failure(failed, written)
    assert written.message == "[address] was not taken"
    assert written.cause.message == "Key (email)=([address]) already exists"
    assert "test_a_failure_goes" in written.cause.stack_trace  # where it came from is still told
    assert "jo@" not in str(written)
