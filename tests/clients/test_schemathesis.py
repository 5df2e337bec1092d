"""schemathesis sends valid and invalid requests, and checks the responses against the OpenAPI document."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "schemathesis"
# Another seed tries other values.
SEED = os.environ.get("SCHEMATHESIS_SEED", "1")
SETTINGS = """
[auth]
hash_queue = 10000
[limits]
enabled = false
"""


# Each profile and each database only once, because a run takes long.
@pytest.mark.parametrize(("database_url", "profile"), [("sqlite", "fastapi"), ("postgres", "rfc")], indirect=True)
@pytest.mark.parametrize("credential", ["none", "token", "key"])
def test_all_responses_to_schemathesis_conform_to_the_document(start, credential, tmp_path, capsys):
    latchkey = start(SETTINGS)
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            Path(sys.executable).parent / "schemathesis", "--config-file", FOLDER / "schemathesis.toml",
            "run", f"{latchkey.url}/openapi.json",
            # A revoked key stays readable, with `revoked_at`.
            "--checks", "all", "--exclude-checks", "use_after_free", "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "3",
            "--seed", SEED, "--generation-database", "none", "--continue-on-failure",
            # A generated credential would replace the valid one.
            "--generation-with-security-parameters", "true" if credential == "none" else "false",
            "--report", "json", "--report-json-path", report, "--no-color",
        ],
        # The hooks create admins with the program.
        env={
            **latchkey.environment,
            "LATCHKEY": os.environ["LATCHKEY"], "LATCHKEY_URL": latchkey.url, "CREDENTIAL": credential,
            "SCHEMATHESIS_HOOKS": str(FOLDER / "hooks.py"),
        },
        cwd=tmp_path, text=True, capture_output=True, check=False, timeout=300,
    )
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr
    results = json.loads(report.read_text())
    assert results["complete"] and not results["failures"] and not results["errors"]
    assert results["operations"]["tested"] == results["operations"]["total"] > 30
    for phase in ["coverage", "fuzzing", "stateful"]:
        assert results["phases"][phase]["status"] == "success", phase
    cases = results["test_cases"]["generated"]
    assert cases > 800
    # A run with an invalid credential would report no failures, either.
    rejected = re.search(r"Authentication failed: (\d+) operations? returned only", done.stdout)
    limit = {"none": 38, "token": 4, "key": 14}[credential]
    assert (int(rejected[1]) if rejected else 0) <= limit, "more operations than expected returned only 401 or 403"
    with capsys.disabled():
        print(f" {cases} cases", end="")
