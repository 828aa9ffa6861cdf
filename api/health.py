"""`/healthz` and `/readyz`: are we alive, and can we do our work?"""

import asyncio
from datetime import timedelta

from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.errors import PROBLEMS, Unavailable
from database.engine import Database

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: str = "ok"


@router.get("/healthz")
async def alive() -> Health:
    """This process answers."""
    return Health()


@router.get("/readyz", responses={503: PROBLEMS[503]})
async def ready(request: Request) -> Health:
    """The database and Temporal answer too."""
    database: Database = request.app.state.database
    temporal = request.app.state.temporal
    checks = {
        "database": database.ping(),
        "temporal": temporal.service_client.check_health(timeout=timedelta(seconds=3)),
    }
    results = await asyncio.gather(*(asyncio.wait_for(check, 5) for check in checks.values()), return_exceptions=True)
    silent = [name for name, result in zip(checks, results, strict=True) if isinstance(result, BaseException)]
    if silent:
        raise Unavailable(f"No answer from: {', '.join(silent)}. Is it running?", silent=silent)
    return Health()
