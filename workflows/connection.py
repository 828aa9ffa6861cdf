"""How do programs reach Temporal?"""

from temporalio.client import Client, Interceptor
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.runtime import Runtime


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
        data_converter=pydantic_data_converter,
        interceptors=interceptors or [],
        runtime=runtime,
    )
