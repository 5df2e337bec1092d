"""Values that the document cannot describe, and a credential that outlives the requests which end it."""

import datetime
import os
import re
import secrets
import subprocess

import requests
import schemathesis

URL = os.environ["LATCHKEY_URL"]
PASSWORD = "correct horse battery"
# Without keys:write and users:write: what a key hands on is bounded by what it holds, which no schema can say.
KEY_SCOPES = ["pages:read", "pages:write", "keys:read", "keys:issue", "users:read", "audit:read", "tokens:introspect"]
FORM_FIELDS = [
    "grant_type", "username", "password", "scope", "client_id", "client_secret", "token", "token_type_hint",
]
RFC_3339 = r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)"


@schemathesis.hook
def before_call(context, case, kwargs):
    """What the document cannot say about values, where it matters whether they are good ones."""
    # A comma in a credential makes it two, and a security scheme has no pattern.
    if "Token" in case.headers:
        case.headers["Token"] = case.headers["Token"].replace(",", "")
    # The coverage phase writes no quotation marks into headers, and takes a bad If-Match for its good cases.
    if case.meta.generation.mode.is_positive and not case.headers.get("If-Match", "*").startswith(("*", '"', "W/")):
        case.headers["If-Match"] = "*"
    # A page number and a cursor exclude each other, and numbers do not reach far.
    if case.operation.path == "/page/" and case.meta.generation.mode.is_positive and "page" in case.query:
        case.query.pop("after", None)
        case.query["page"] = min(int(case.query["page"]), 100)
    if not isinstance(case.body, dict):
        return
    body = dict(case.body)
    # An expiry lies in the future, and within ten years.
    if is_far(body.get("expires_at")):
        body["expires_at"] = "2031-01-01T00:00:00Z"
    # A form names a field once, also one that nobody knows.
    if case.media_type == "application/x-www-form-urlencoded":
        many = {name for name, value in body.items() if isinstance(value, (list, dict))}
        body = {name: value for name, value in body.items() if name in FORM_FIELDS or name not in many}
    # Common passwords are refused.
    for field in ["password", "new_password"]:
        if isinstance(body.get(field), str) and 8 <= len(body[field]) <= 128:
            body[field] = ("Zürich " + body[field])[:128]
    # A new e-mail takes the password beside it.
    if case.operation.path == "/me" and "email" in body:
        body.setdefault("current_password", "")
    # A version by itself changes nothing.
    if case.operation.path == "/page/{id}" and list(body) == ["version"]:
        body["title"] = "t"
    # Which by itself changes nothing.
    if case.operation.path == "/me" and list(body) == ["current_password"]:
        body["surname"] = ""
    case.body = body


def is_far(value):
    """Whether this is a time, and none of the next ten years."""
    if not isinstance(value, str) or not re.fullmatch(RFC_3339, value):
        return False
    try:
        moment = datetime.datetime.fromisoformat(value.upper().replace(":60", ":59"))
    except ValueError:
        return False
    now = datetime.datetime.now(datetime.timezone.utc)
    return not now < moment < now + datetime.timedelta(days=3650)


class Credential:
    """Of an admin. Some requests end it, or its user, or what the user may do; then there is another one."""

    secret = ""

    def get(self, case, context):
        if requests.get(f"{URL}/audit?limit=1", headers={"Token": self.secret}, timeout=10).status_code != 200:
            self.secret = self.renewed()
        return self.secret

    def set(self, case, data, context):
        case.headers["Token"] = data

    def renewed(self):
        token = self.signed_in("ada@example.org") or self.signed_in(new_admin())
        if os.environ["CREDENTIAL"] == "token":
            return token
        key = requests.post(
            f"{URL}/me/keys", json={"name": "key", "scopes": KEY_SCOPES}, headers={"Token": token}, timeout=10
        )
        assert key.status_code == 201, key.text
        return key.json()["key"]

    def signed_in(self, email):
        form = {"grant_type": "password", "username": email, "password": PASSWORD}
        answer = requests.post(f"{URL}/token", data=form, timeout=10).json()
        return answer.get("access_token")


def new_admin():
    """The address of one who is there for the first time."""
    email = f"{secrets.token_hex(8)}@example.org"
    command = [os.environ["LATCHKEY"], "user", "create", email, "--name", "Newcomer", "--role", "admin"]
    subprocess.run(command, input=PASSWORD + "\n", text=True, capture_output=True, check=True)
    return email


if os.environ["CREDENTIAL"] != "none":
    schemathesis.auth(refresh_interval=None)(Credential)
