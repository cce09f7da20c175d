"""The files that say how a change is checked agree with each other."""

import re
import tomllib

import yaml

from tests.conftest import ROOT
from tests.run_readme import script

REQUIREMENT = re.compile(r"([\w-]+)(?:\[[\w,]+\])?(?:>=([\w.]+))?(?:; .+)?")
MAKE = re.compile(r"\bmake +((?:[A-Z]+=\S* +)*)([\w-]+)")


def targets() -> set[str]:
    """The targets of the Makefile."""
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_oldest_versions_are_the_lower_bounds_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds: dict[str, set[str]] = {}
    for group in (project["dependencies"], *project["optional-dependencies"].values()):
        for requirement in group:
            match = REQUIREMENT.fullmatch(requirement)
            assert match is not None, requirement
            if match[2]:
                bounds.setdefault(match[1], set()).add(match[2])
    bounds["torch"] = {"2.13.0"}  # newer than its lower bound: pyproject.toml says why
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints-oldest.txt").read_text().splitlines()]
    assert {name: {version} for name, _, version in (line.partition("==") for line in lines if line)} == bounds


def test_the_workflow_and_the_documents_call_targets_that_the_makefile_has() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    runs = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    called = [MAKE.fullmatch(run) for run in runs]
    assert all(called), runs
    assert {match[2] for match in called if match} == {"check", "test", "test-oldest", "readme"} <= targets()
    for document in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", (ROOT / document).read_text(), re.MULTILINE))
        assert named <= targets(), document


def test_the_readmes_commands_are_the_marked_blocks_with_a_clone_of_this_checkout() -> None:
    for clone in ("git clone https://example.org/x thinkwright && cd thinkwright\n", ""):
        text = f"```sh demo\n{clone}make demo\n```\n\n```\nno\n```\n"
        assert script(text, "HERE") == "git clone HERE thinkwright && cd thinkwright\nmake demo\n"
    commands = script((ROOT / "README.md").read_text(encoding="utf-8"), "HERE")
    assert commands.startswith("git clone HERE ")
    assert "make demo" in commands
