"""All the cases there are: each of these modules puts its own on the list."""

from tests.chaos import automations, experiments, people, power, processes, providers, rates
from tests.chaos.cases import CASES

__all__ = ["CASES", "automations", "experiments", "people", "power", "processes", "providers", "rates"]
