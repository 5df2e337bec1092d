"""Clients that openapi-generator generates from docs/openapi.json for TypeScript, Go and Java."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import TOOLS
from test_documentation import BLOCKS, ROOT

# One process generates and compiles each client once.
pytestmark = pytest.mark.xdist_group("openapi_generator")
HEADING = "openapi-generator: TypeScript, Go, Java and others"
PROGRAMS = Path(__file__).parent / "openapi_generator"
# The jar of the generator contains Jackson with its module for java.time, which Debian does not package.
JARS = [
    Path(importlib.util.find_spec("openapi_generator_cli").origin).parent / "openapi-generator.jar",
    Path("/usr/share/java/httpmime.jar"),
    Path("/usr/share/java/jakarta-annotation-api.jar"),
]


def run(*command, seconds=60, **options):
    """Runs a program that must succeed in the given time, and returns its output."""
    done = subprocess.run(command, text=True, capture_output=True, check=False, timeout=seconds, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def generate(generator, folder):
    """Generates a client with the command of docs/clients.md. The generator validates the document first."""
    commands = BLOCKS[HEADING, "sh"][0].replace("\\\n", "").splitlines()
    [command] = [command for command in commands if f"-g {generator} " in command]
    (folder / "docs").symlink_to(ROOT / "docs")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run("bash", "-euc", command, cwd=folder, env={**os.environ, "PATH": path}, seconds=120)


@pytest.fixture(scope="module")
def typescript(tmp_path_factory):
    """The command of a compiled program with the client for TypeScript."""
    folder = tmp_path_factory.mktemp("typescript")
    generate("typescript-fetch", folder)
    (folder / "package.json").write_text('{ "type": "module" }')
    shutil.copy(PROGRAMS / "client.ts", folder)
    shutil.copy(PROGRAMS.parent / "generated/tsconfig.json", folder)
    # The generated code compiles with `strict`, but not with these settings.
    relaxed = ["--exactOptionalPropertyTypes", "false", "--noUncheckedIndexedAccess", "false"]
    run(TOOLS / "node_modules/.bin/tsc", "--project", ".", *relaxed, cwd=folder)
    return ["node", folder / "client.js"]


@pytest.fixture(scope="module")
def go(tmp_path_factory):
    """The command of a compiled program with the client for Go."""
    folder = tmp_path_factory.mktemp("go")
    generate("go", folder)
    (folder / "src").mkdir()
    (folder / "go").rename(folder / "src/latchkey")
    shutil.copy(PROGRAMS / "client.go", folder)
    # Debian's packages of Go sources are in a GOPATH.
    environment = {
        **os.environ, "GO111MODULE": "off", "GOPATH": f"{folder}:/usr/share/gocode", "GOCACHE": str(folder / "cache"),
        "CGO_ENABLED": "0",
    }
    run("go", "vet", "client.go", cwd=folder, env=environment, seconds=240)
    run("go", "build", "-o", "client", "client.go", cwd=folder, env=environment, seconds=240)
    return [folder / "client"]


@pytest.fixture(scope="module")
def java(tmp_path_factory):
    """The command of a compiled program with the client for Java."""
    folder = tmp_path_factory.mktemp("java")
    generate("java", folder)
    missing = [str(jar) for jar in JARS if not jar.exists()]
    assert not missing, missing
    classes = os.pathsep.join(map(str, JARS))
    sources = sorted((folder / "java/src/main/java").rglob("*.java"))
    run(
        "javac", "-proc:none", "-d", folder / "classes", "-classpath", classes, *sources, PROGRAMS / "Client.java",
        seconds=240,
    )
    return ["java", "-classpath", os.pathsep.join([str(folder / "classes"), classes]), "Client"]


@pytest.mark.parametrize("language", ["typescript", "go", "java"])
def test_a_generated_client_registers_signs_in_and_reads_errors(language, request, latchkey, profile):
    command = request.getfixturevalue(language)
    assert run(*command, latchkey.url, profile) == "done\n"
