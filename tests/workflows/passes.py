"""A workflow that takes one contact through an automation in Python, and tells how that went."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from pydantic import BaseModel

    from tests.recorded import walked
    from workflows.code import automation_function


class Asked(BaseModel):
    name: str
    version: int = 1


@workflow.defn
class PassWorkflow:
    @workflow.run
    async def run(self, asked: Asked) -> str:
        """The steps that were taken, or what was in their way."""
        way = automation_function(asked.name, asked.version)
        try:
            taken, left = await walked(way)
        except Exception as error:  # as a cohort does: the contact fails alone
            return f"{type(error).__name__}: {error}"
        return " ".join([step.step for step in taken] + ([f"left: {left}"] if left else []))
