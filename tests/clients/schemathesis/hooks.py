"""Adjusts values that the document cannot describe, and renews the credential when a request has ended it."""

import datetime
import os
import pathlib
import re
import secrets
import subprocess

import requests
import schemathesis

URL = os.environ["LATCHKEY_URL"]
CREDENTIAL = os.environ["CREDENTIAL"]
COOKIE = "__Host-latchkey"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
PASSWORD = "correct horse battery"
# Without keys:write and users:write: a key can only grant scopes that it holds, which a schema cannot express.
LEVELS = (pathlib.Path(__file__).parents[3] / "docs/levels.md").read_text()
KEY_SCOPES = [
    scope for scope in re.findall(r"^\| `(\w+:\w+)` \|", LEVELS, re.MULTILINE) if scope not in ("keys:write", "users:write")
]
FORM_FIELDS = [
    "grant_type", "username", "password", "scope", "client_id", "client_secret", "token", "token_type_hint",
]
RFC_3339 = r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)"


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes values valid where the document cannot describe which values are."""
    # A comma separates two credentials, and a security scheme cannot have a pattern.
    if "Token" in case.headers:
        case.headers["Token"] = case.headers["Token"].replace(",", "")
    # The route serves every method, and schemathesis requires a refusal of those that the document does not list.
    if case.operation.path == "/authz" and case.method.upper() not in ("GET", "HEAD"):
        case.query = {**(case.query or {}), "scope": "held:by-no-caller"}
    # The coverage phase omits quotation marks in headers, so its positive cases contain an invalid If-Match.
    if case.meta.generation.mode.is_positive and not case.headers.get("If-Match", "*").startswith(("*", '"', "W/")):
        case.headers["If-Match"] = "*"
    # `page` and `after` exclude each other, and high page numbers are rejected.
    if case.operation.path == "/page/" and case.meta.generation.mode.is_positive and "page" in case.query:
        case.query.pop("after", None)
        case.query["page"] = min(int(case.query["page"]), 100)
    if not isinstance(case.body, dict):
        return
    body = dict(case.body)
    # An expiry must be in the future and within ten years.
    if is_out_of_range(body.get("expires_at")):
        body["expires_at"] = "2031-01-01T00:00:00Z"
    # A form must contain each field only once, even an unknown one.
    if case.media_type == "application/x-www-form-urlencoded":
        repeated = {name for name, value in body.items() if isinstance(value, (list, dict))}
        body = {name: value for name, value in body.items() if name in FORM_FIELDS or name not in repeated}
    # Common passwords are rejected.
    for field in ["password", "new_password"]:
        if isinstance(body.get(field), str) and 8 <= len(body[field]) <= 128:
            body[field] = ("Zürich " + body[field])[:128]
    # A new e-mail address requires the current password.
    if case.operation.path == "/me" and "email" in body:
        body.setdefault("current_password", "")
    # A body with only a version is rejected.
    if case.operation.path == "/page/{id}" and list(body) == ["version"]:
        body["title"] = "t"
    # A body with only the current password is rejected.
    if case.operation.path == "/me" and list(body) == ["current_password"]:
        body["surname"] = ""
    case.body = body


def is_out_of_range(value):
    """Returns whether this is a time outside the next ten years."""
    if not isinstance(value, str) or not re.fullmatch(RFC_3339, value):
        return False
    try:
        moment = datetime.datetime.fromisoformat(value.upper().replace(":60", ":59"))
    except ValueError:
        return False
    now = datetime.datetime.now(datetime.timezone.utc)
    return not now < moment < now + datetime.timedelta(days=3650)


class Credential:
    """A credential of an admin. It is renewed if a request ended it, its user, or the role of the user."""

    secret = ""

    def get(self, case, context):
        if requests.get(f"{URL}/audit?limit=1", headers=headers_with(self.secret), timeout=10).status_code != 200:
            self.secret = self.new_secret()
        return self.secret

    def set(self, case, data, context):
        case.headers.update(headers_with(data))

    def new_secret(self):
        secret = self.sign_in("ada@example.org") or self.sign_in(new_admin())
        if CREDENTIAL != "key":
            return secret
        key = requests.post(
            f"{URL}/me/keys", json={"name": "key", "scopes": KEY_SCOPES}, headers={"Token": secret}, timeout=10
        )
        assert key.status_code == 201, key.text
        return key.json()["key"]

    def sign_in(self, email):
        if CREDENTIAL == "session":
            answer = requests.post(
                f"{URL}/session", json={"email": email, "password": PASSWORD}, headers=SAME_ORIGIN, timeout=10
            )
            return answer.cookies.get(COOKIE)
        form = {"grant_type": "password", "username": email, "password": PASSWORD}
        answer = requests.post(f"{URL}/token", data=form, timeout=10).json()
        return answer.get("access_token")


def headers_with(secret):
    """Returns the headers that present a credential."""
    if CREDENTIAL == "session":
        return {"Cookie": f"{COOKIE}={secret}", **SAME_ORIGIN}
    return {"Token": secret}


def new_admin():
    """Creates an admin and returns the e-mail address."""
    email = f"{secrets.token_hex(8)}@example.org"
    command = [os.environ["LATCHKEY"], "user", "create", email, "--name", "Newcomer", "--role", "admin"]
    subprocess.run(command, input=PASSWORD + "\n", text=True, capture_output=True, check=True)
    return email


if CREDENTIAL != "none":
    schemathesis.auth(refresh_interval=None)(Credential)
