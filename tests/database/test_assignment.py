"""The database and Python agree on who gets which variant."""

from uuid import UUID, uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from database import assignment
from marketing.assignment import bucket, cells_of_test
from tests.conftest import TestAccount

_ASK = text(f"""
    SELECT id, {assignment.bucket("id")} AS place, {assignment.cell(assignment.bucket("id"))} AS name
    FROM unnest(CAST(:ids AS uuid[])) AS id
""")


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50),
    ids=st.lists(st.uuids(), min_size=1, max_size=50, unique=True),
    weights=st.dictionaries(st.sampled_from("ABCDEFGHIJ"), st.floats(0.01, 1000), min_size=1),
    holdout=st.floats(0, 0.5),
    test_fraction=st.floats(0.001, 1),
)
async def test_the_database_assigns_as_python_does(
    account: TestAccount, key: str, ids: list[UUID], weights: dict[str, float], holdout: float, test_fraction: float
) -> None:
    cells = cells_of_test(weights, holdout=holdout, test_fraction=test_fraction)
    async with account.transaction() as tx:
        rows = await tx.execute(_ASK, {"key": key, "ids": ids, **assignment.cells(cells)})
        found = {row.id: (row.place, row.name) for row in rows}
    assert found == {each: (bucket(key, each), cells.of(bucket(key, each))) for each in ids}


async def test_a_number_on_the_edge_is_in_the_cell_that_begins_there(account: TestAccount) -> None:
    contact = uuid4()
    cells = cells_of_test({"A": 1, "B": 1}, holdout=0, test_fraction=1)
    edge = type(cells)(["below", "from here on"], [bucket("", contact)])
    async with account.transaction() as tx:
        row = (await tx.execute(_ASK, {"key": "", "ids": [contact], **assignment.cells(edge)})).one()
    assert row.name == edge.of(row.place) == "from here on"
