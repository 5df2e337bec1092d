"""The release set. Needs a program that tests/image/run --full compiled."""

import hashlib
import json
import re
import subprocess
import sys
import tarfile

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import sbom
from conftest import PROGRAM, ROOT, run

RELEASE = ROOT / "tests/image/release"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A folder with the release set of the program."""
    if sbom.crates_of(PROGRAM) is None:
        pytest.skip("the program is not built with cargo-auditable")
    folder = tmp_path_factory.mktemp("release")
    run(sys.executable, RELEASE, "--program", PROGRAM, folder)
    return folder


@pytest.fixture(scope="module")
def bill(release):
    """The bill of materials."""
    (path,) = release.glob("*.cdx.json")
    return json.loads(path.read_text())


def test_a_program_that_was_not_built_in_the_image_is_rejected(tmp_path):
    program = tmp_path / "latchkey"
    program.write_bytes(PROGRAM.read_bytes())
    subprocess.run(["objcopy", "--remove-section", ".dep-v0", program], check=True)
    done = subprocess.run([sys.executable, RELEASE, "--program", program, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "has no list of its crates: build it with `tests/image/run --full`" in done.stderr


def test_the_sums_match_and_name_every_file(release):
    names = []
    for line in (release / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((release / name).read_bytes()).hexdigest() == digest
        names.append(name)
    assert sorted([*names, "SHA256SUMS"]) == sorted(path.name for path in release.iterdir())


def test_a_second_run_gives_the_same_files(release, tmp_path):
    run(sys.executable, RELEASE, "--program", PROGRAM, tmp_path)
    assert (tmp_path / "SHA256SUMS").read_text() == (release / "SHA256SUMS").read_text()


def test_the_archive_holds_the_program_its_manual_the_licences_and_the_deployment_files(release):
    (path,) = release.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        members = {member.name.split("/", 1)[1]: member for member in archive}
        program = archive.extractfile(members["latchkey"]).read()
    assert program == PROGRAM.read_bytes()
    assert members["latchkey"].mode == 0o755
    for name in ["man/latchkey.1", "man/latchkey-user-create.1", "completions/latchkey.zsh", "LICENSE-MIT", "LICENSE-APACHE", "config/default.toml", "deploy/latchkey.service", "deploy/compose.yaml",
                 "deploy/nginx.conf", "deploy/kubernetes/postgres.yaml"]:
        assert members[name].mode == 0o644, name
    assert {(member.uid, member.gid) for member in members.values()} == {(0, 0)}
    assert not any("secrets" in name for name in members)


def test_the_bill_of_materials_is_valid_and_holds_no_path_of_this_machine(bill):
    text = json.dumps(bill)
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    assert "file:///tmp" not in text and str(ROOT) not in text


def test_the_bill_of_materials_lists_the_crates_of_the_program(bill):
    listed = {(one["name"], one["version"]) for one in bill["components"] if one["purl"].startswith("pkg:cargo/")}
    crates = [crate for crate in sbom.crates_of(PROGRAM) if not crate.get("root")]
    linked = {(crate["name"], crate["version"]) for crate in crates if crate.get("kind") != "build"}
    assert linked <= listed
    everything = {(crate["name"], crate["version"]) for crate in crates}
    assert listed <= everything


def test_the_bill_of_materials_agrees_with_the_libraries_in_the_program(bill):
    versions = {one["name"]: one["version"] for one in bill["components"] if not one["purl"].startswith("pkg:cargo/")}
    assert set(versions) == {"sqlite", "openssl", "libpq", "swagger-ui", "preact"}
    program = PROGRAM.read_bytes()
    assert f"{versions['sqlite']}\0".encode() in program
    assert f"OpenSSL {versions['openssl']} ".encode() in program
    # libpq's version is a number in its code. The name of its crate contains the version.
    crates = {crate["name"]: crate["version"] for crate in sbom.crates_of(PROGRAM)}
    assert crates["pq-src"].endswith(f"+libpq-{versions['libpq']}")
    script = (ROOT / "assets/swagger-ui/swagger-ui-bundle.js.gz").read_bytes()
    assert script in program
    assert f"Swagger UI](https://github.com/swagger-api/swagger-ui) {versions['swagger-ui']}" in re.sub(
        r"\s+", " ", (ROOT / "assets/README.md").read_text()
    )
    # esbuild removes the version of Preact from the script.
    assert (ROOT / "assets/console/app.js.gz").read_bytes() in program
    assert f"[Preact](https://preactjs.com) {versions['preact']} " in (ROOT / "assets/README.md").read_text()
