"""Clients that are generated from the server's OpenAPI document."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from conftest import TOOLS

PROGRAMS = Path(__file__).parent / "generated"


def run(*command, **options):
    """Runs a program that must succeed, and returns its output."""
    done = subprocess.run(command, text=True, capture_output=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compiled(program, folder):
    """Compiles a program with strict settings in a folder with generated types. Returns the result of the compiler."""
    for file in [program, "tsconfig.json"]:
        (folder / file).write_text((PROGRAMS / file).read_text())
    command = [TOOLS / "node_modules/.bin/tsc", "--project", ".", "--pretty", "false"]
    return subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)


@pytest.fixture
def typescript(latchkey, tmp_path):
    """A folder with the types that are generated from the server's document."""
    folder = tmp_path / "typescript"
    folder.mkdir()
    (folder / "package.json").write_text('{ "type": "module" }')
    (folder / "node_modules").symlink_to(TOOLS / "node_modules")
    document = f"{latchkey.url}/openapi.json"
    run(TOOLS / "node_modules/.bin/openapi-typescript", document, "--output", "schema.d.ts", cwd=folder)
    return folder


def test_a_generated_python_package_registers_signs_in_and_uses_pages_and_keys(latchkey, profile, tmp_path):
    package = tmp_path / "latchkey_client"
    tools = Path(sys.executable).parent
    run(
        tools / "openapi-python-client", "generate", "--meta", "none", "--fail-on-warning",
        "--url", f"{latchkey.url}/openapi.json", "--output-path", package,
        # The generator formats its output with ruff, which it looks up in PATH.
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
    )
    document = requests.get(f"{latchkey.url}/openapi.json", timeout=10).json()
    described = {
        re.sub("([A-Z])", r"_\1", operation["operationId"]).lower()
        for path in document["paths"].values()
        for operation in path.values()
    }
    generated = {module.stem for module in package.glob("api/*/*.py") if module.stem != "__init__"}
    assert generated == described, "all operations are generated"

    output = run(sys.executable, PROGRAMS / "client.py", latchkey.url, profile, env={"PYTHONPATH": str(tmp_path)})
    assert output == "done\n"


def test_a_typescript_program_compiles_and_runs(latchkey, profile, typescript):
    result = compiled("client.ts", typescript)
    assert (result.returncode, result.stdout) == (0, "")
    assert run("node", "client.js", latchkey.url, profile, cwd=typescript) == "done\n"


def test_typescript_finds_every_misuse(typescript):
    result = compiled("misuse.ts", typescript)
    assert result.returncode != 0
    found = {int(line) for line in re.findall(r"^misuse\.ts\((\d+),", result.stdout, re.MULTILINE)}
    lines = (PROGRAMS / "misuse.ts").read_text().splitlines()
    mistakes = {number for number, line in enumerate(lines, 1) if "// mistake" in line}
    assert found == mistakes, result.stdout
