"""How do programs reach Temporal?"""

from dataclasses import replace

from temporalio.api.failure.v1 import Failure
from temporalio.client import Client, Interceptor
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DefaultFailureConverter, PayloadConverter
from temporalio.runtime import Runtime

from marketing.discretion import mask


class DiscreetFailures(DefaultFailureConverter):
    """Failures stay in histories: without the addresses that a mail server or the database had in their words."""

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        super().to_failure(exception, payload_converter, failure)
        failure.message, failure.stack_trace = mask(failure.message), mask(failure.stack_trace)


DATA_CONVERTER = replace(pydantic_data_converter, failure_converter_class=DiscreetFailures)


async def connect(
    address: str,
    *,
    namespace: str = "default",
    api_key: str | None = None,
    tls: bool = False,
    interceptors: list[Interceptor] | None = None,
    runtime: Runtime | None = None,
) -> Client:
    """A client that speaks our types (pydantic models and dataclasses as JSON).

    Raises:
        RuntimeError: nobody answers at this address.
    """
    return await Client.connect(
        address,
        namespace=namespace,
        api_key=api_key,
        tls=tls,
        data_converter=DATA_CONVERTER,
        interceptors=interceptors or [],
        runtime=runtime,
    )
