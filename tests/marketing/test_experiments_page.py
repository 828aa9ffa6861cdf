"""docs/experiments.md has every field, route and warning, and what it shows is understood."""

import json
import re
from pathlib import Path

from marketing.campaigns import CampaignDefinition
from marketing.experiment_plans import Plan, sizes
from marketing.experiment_problems import experiment_problems
from marketing.experiments import Experiment
from marketing.problems import Severity

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "experiments.md").read_text()
CODE = "".join(
    (ROOT / name).read_text()
    for name in ("marketing/experiment_analysis.py", "marketing/splits.py", "api/experiment_reports.py")
)


def test_every_field_is_explained() -> None:
    explained = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert set(Experiment.model_fields) <= set(explained)


def test_every_warning_is_explained() -> None:
    table = PAGE.partition("### Warnings")[2].partition("\n### ")[0]
    assert set(re.findall(r"`(\w+)`(?=[, |])", table)) - {"code", "minimum_sample"} == set(
        re.findall(r'code="(\w+)"', CODE)
    )


def test_everything_that_validate_warns_of_is_explained() -> None:
    table = PAGE.partition("### What `validate` warns of")[2].partition("\n### ")[0]
    problems = (ROOT / "marketing/experiment_problems.py").read_text()
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)[1:] == sorted(re.findall(r'_warning\("(\w+)"', problems))


def test_what_is_shown_is_understood() -> None:
    plan, experiment, _ = (json.loads(each) for each in re.findall(r"```json\n(.+?)```", PAGE, re.DOTALL))
    for name, size in sizes(Plan(**plan, recipients_per_day=1_200)):
        assert f'"{name}": {size}' in PAGE
    assert Experiment.model_validate(experiment).names == ["plain", "question", "evening"]


def test_the_example_has_nothing_wrong_with_it() -> None:
    campaign = CampaignDefinition.model_validate_json((ROOT / "examples" / "experiment.json").read_bytes())
    assert [each for each in experiment_problems(campaign) if each.severity is Severity.ERROR] == []
    subjects = [each.subject for each in campaign.contents if each]
    assert len(set(subjects)) == 3 and "The autumn collection is here" in subjects
