"""Does every measure still measure?"""

import math
from typing import Any

from bench.__main__ import MEASURES, measured
from bench.bench import Sizes

TINY = Sizes(few=100, many=300, million=600, rows=200, visits=500, events=2_000)


async def test_each_row_has_a_figure_and_a_reference() -> None:
    facts: dict[str, Any] = {"sink": "channels.sink", "workers": 1, "connections": 5, "versions": {}}
    rows = await measured(list(MEASURES.values()), TINY, facts)
    assert len(rows) >= len(MEASURES)
    for row in rows:
        assert math.isfinite(row.figure)
        assert row.reference > 0
    assert facts["versions"].keys() == {"postgresql", "temporal-server"}
