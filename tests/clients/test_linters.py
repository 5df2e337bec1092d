"""Linters of OpenAPI documents. They run without a network."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import TOOLS

ROOT = Path(__file__).parents[2]
FILES = [".spectral.yaml", "redocly.yaml", "docs/openapi.json"]


def spectral(folder):
    """Runs Spectral and returns what it finds, of any severity."""
    return output_of("spectral", "lint", "--quiet", "--format", "json", "docs/openapi.json", cwd=folder)


def redocly(folder):
    """Runs Redocly and returns what it finds, of any severity."""
    return output_of("redocly", "lint", "--format", "json", "docs/openapi.json", cwd=folder)["problems"]


def output_of(program, *arguments, cwd):
    """Runs an npm program, without telemetry and a check for updates. Returns its output, which must be JSON."""
    done = subprocess.run(
        [TOOLS / "node_modules/.bin" / program, *arguments],
        env={**os.environ, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"},
        cwd=cwd, text=True, capture_output=True, check=False, timeout=60,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("linter", [spectral, redocly])
def test_a_linter_finds_nothing_in_the_document(linter):
    assert linter(ROOT) == []


@pytest.mark.parametrize("linter", [spectral, redocly])
def test_a_linter_finds_an_unused_schema(linter, tmp_path):
    (tmp_path / "docs").mkdir()
    for file in FILES:
        shutil.copy(ROOT / file, tmp_path / file)
    document = json.loads((tmp_path / "docs/openapi.json").read_text())
    document["components"]["schemas"]["Unused"] = {"type": "string"}
    (tmp_path / "docs/openapi.json").write_text(json.dumps(document))
    assert len(linter(tmp_path)) == 1
