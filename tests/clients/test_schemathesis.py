"""schemathesis reads the document, sends what it allows and what it forbids, and holds the answers against it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "schemathesis"
# Another number tries other values.
SEED = os.environ.get("SCHEMATHESIS_SEED", "1")
SETTINGS = """
[auth]
hash_queue = 10000
[limits]
enabled = false
"""


# Each profile and each database once: this takes its time.
@pytest.mark.parametrize(("database_url", "profile"), [("sqlite", "fastapi"), ("postgres", "rfc")], indirect=True)
@pytest.mark.parametrize("credential", ["none", "token", "key"])
def test_all_that_schemathesis_thinks_of_is_answered_as_the_document_says(start, credential, tmp_path, capsys):
    latchkey = start(SETTINGS)
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            Path(sys.executable).parent / "schemathesis", "--config-file", FOLDER / "schemathesis.toml",
            "run", f"{latchkey.url}/openapi.json",
            "--checks", "all", "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "3",
            "--seed", SEED, "--generation-database", "none", "--continue-on-failure",
            # A made-up credential would only stand in the way of a good one.
            "--generation-with-security-parameters", "true" if credential == "none" else "false",
            "--report", "json", "--report-json-path", report, "--no-color",
        ],
        # Its hooks make new admins with the program.
        env={
            **latchkey.environment,
            "LATCHKEY": os.environ["LATCHKEY"], "LATCHKEY_URL": latchkey.url, "CREDENTIAL": credential,
        },
        cwd=FOLDER, text=True, capture_output=True, check=False, timeout=300,
    )
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr
    told = json.loads(report.read_text())
    assert told["complete"] and not told["failures"] and not told["errors"]
    assert told["operations"]["tested"] == told["operations"]["total"] > 30
    for phase in ["coverage", "fuzzing", "stateful"]:
        assert told["phases"][phase]["status"] == "success", phase
    cases = told["test_cases"]["generated"]
    assert cases > 800
    # Those that want a password or a claim code, and those beyond the scopes of the key.
    refused = re.search(r"Authentication failed: (\d+) operations? returned only", done.stdout)
    assert int(refused[1]) <= {"none": 33, "token": 4, "key": 14}[credential], "the credential is good"
    with capsys.disabled():
        print(f" {cases} cases", end="")
