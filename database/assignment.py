"""Which variant does a contact get? What `marketing.assignment` computes, in SQL."""

from typing import Any

from marketing.assignment import Cells


def bucket(contact: str, key: str = ":key") -> str:
    """SQL for where a contact lies between 0 and 1.

    Args:
        contact: SQL for its id.
        key: SQL for the key, which is text.
    """
    hashed = f"sha256(convert_to({key}, 'UTF8') || uuid_send({contact}))"
    return f"(CAST(substr({hashed}, 1, 6) AS bigint) / 281474976710656.0::float8)"


def number(place: str) -> str:
    """SQL for the number of the cell in which a place lies, from 1 on; the parameters are those of `cells`."""
    return f"(width_bucket({place}, CAST(:cell_cuts AS float8[])) + 1)"


def cell(place: str) -> str:
    """SQL for the name of that cell."""
    return f"(CAST(:cell_names AS text[]))[{number(place)}]"


def cells(cut: Cells) -> dict[str, Any]:
    return {"cell_names": list(cut.names), "cell_cuts": list(cut.cuts)}
