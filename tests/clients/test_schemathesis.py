"""schemathesis sends valid and invalid requests, and checks the responses against the OpenAPI document."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests

FOLDER = Path(__file__).parent / "schemathesis"
# Another seed tries other values.
SEED = os.environ.get("SCHEMATHESIS_SEED", "1")
SETTINGS = """
[auth]
hash_queue = 10000
[limits]
enabled = false
[http]
public_url = "http://localhost"
# Nothing listens there. No response depends on that.
[mail]
url = "smtp://127.0.0.1:9"
starttls = "none"
from = "no-reply@example.org"
"""

# Generated passwords are wrong, and generated pages belong to others.
ALWAYS_REFUSED = {"POST /session", "POST /token", "DELETE /page/{id}", "PATCH /page/{id}", "PUT /page/{id}"}
REFUSED = {
    "token": {"GET /session", "DELETE /session"},
    # Both ignore cookies.
    "session": {"GET /authz", "POST /introspect"},
    # A key may not act on its user, on the user's credentials, or on other users.
    "key": {
        "GET /session", "DELETE /session", "DELETE /token", "GET /me/sessions", "DELETE /me/sessions/{id}",
        "PATCH /me", "DELETE /me", "GET /me/activity", "PUT /me/password", "POST /me/keys", "PATCH /me/keys/{id}",
        "DELETE /me/keys/{id}", "POST /me/keys/{id}/rotate", "POST /users", "PATCH /users/{id}", "DELETE /users/{id}",
        "DELETE /users/{id}/token", "POST /users/invitations", "POST /users/invitations/{id}/resend",
        "DELETE /users/invitations/{id}",
    },
}


def refused(credential, url):
    """Returns the operations to which all requests with this credential may get 401 or 403."""
    if credential != "none":
        return REFUSED[credential] | ALWAYS_REFUSED
    paths = requests.get(f"{url}/openapi.json", timeout=10).json()["paths"]
    return ALWAYS_REFUSED | {
        f"{method.upper()} {path}" for path, item in paths.items() for method, operation in item.items()
        if isinstance(operation, dict) and operation.get("security")
    }


# Each profile and each database only once, because a run takes long.
@pytest.mark.parametrize(("database_url", "profile"), [("sqlite", "fastapi"), ("postgres", "rfc")], indirect=True)
@pytest.mark.parametrize("credential", ["none", "token", "key", "session"])
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
    assert set(results["warnings"]["missing_auth"]) <= refused(credential, latchkey.url)
    with capsys.disabled():
        print(f" {cases} cases", end="")
