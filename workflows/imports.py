"""An import from the stored file to the last contact."""

from uuid import UUID

from temporalio import workflow
from temporalio.common import Priority
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.imports import Imports
    from activities.inputs import ImportFailure, ImportProgress, ImportRef
    from workflows.options import IMPORTING, PRIORITY_BROADCAST, QUICK, StartOptions
    from workflows.search_attributes import keywords


def import_workflow_id(import_id: UUID) -> str:
    return f"import-{import_id}"


def start_options(ref: ImportRef) -> StartOptions:
    """How an import is started, by the API or by the sweep."""
    return {
        "id": import_workflow_id(ref.import_id),
        "search_attributes": keywords(AccountId=str(ref.account_id), Kind="import"),
        "priority": Priority(priority_key=PRIORITY_BROADCAST, fairness_key=str(ref.account_id)),
        "static_summary": "contact import",
    }


@workflow.defn
class ContactImportWorkflow:
    """Examines the file, stages its rows, merges its people; each step goes on where the database says it stands."""

    @workflow.init
    def __init__(self, ref: ImportRef) -> None:
        self.ref = ref
        self.progress = ImportProgress(state="waiting")

    @workflow.run
    async def run(self, ref: ImportRef) -> ImportProgress:
        try:
            while self.progress.state in STEPS:
                step, summary = STEPS[self.progress.state]
                self.progress = await workflow.execute_activity_method(step, ref, summary=summary, **IMPORTING)
                self.tell()
                if workflow.info().is_continue_as_new_suggested():
                    workflow.continue_as_new(ref)
        except ActivityError as error:
            failure = ImportFailure(**ref.model_dump(), problem=f"The import stopped: {error.cause or error}")
            self.progress = await workflow.execute_activity_method(Imports.fail_import, failure, **QUICK)
        return self.progress

    def tell(self) -> None:
        """Write the operators' page."""
        progress = self.progress
        workflow.set_current_details(
            f"**{progress.state}**\n\n| rows | rejected | people merged |\n|--:|--:|--:|\n"
            f"| {progress.rows:,} | {progress.rejected:,} | {progress.merged:,} |"
        )


STEPS = {
    "waiting": (Imports.examine_file, "look at the header"),
    "reading": (Imports.stage_rows, "stage rows"),
    "merging": (Imports.merge_people, "merge people"),
}
