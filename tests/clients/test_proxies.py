"""Reverse proxies with the settings of docs/forward-auth, between a client and a service."""

import http.client
import itertools
import json
import os
import re
import shutil
import sqlite3
import subprocess
import threading
import time
from collections import namedtuple
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest
import requests
import yaml

from conftest import PASSWORD, Latchkey, empty_database, end, free_port, wait_for

DOCS = Path(__file__).parents[2] / "docs" / "forward-auth"
HOST = "api.example.com"
STATIC_KEY = "0123456789abcdef0123456789abcdef"
BAD_TOKENS = 5
SETTINGS = f"""
[http]
trusted_proxies = ["127.0.0.1"]

[auth]
api_key_token = "{STATIC_KEY}"

[limits.invalid_tokens]
burst = {BAD_TOKENS}
per_hour = 60

[authz]
audit = "writes"

[[authz.rules]]
host = "{HOST}"
path = "/public"
public = true

[[authz.rules]]
host = "{HOST}"
path = "/translate"
scopes = ["translate:use"]

[[authz.rules]]
host = "{HOST}"
path = "/form"
methods = ["POST"]
scopes = []

[[authz.rules]]
host = "{HOST}"
path = "/wiki"
scopes = []
"""
# Headers with which a client may claim an identity, in spellings that some services treat as equal.
SPOOFED = [
    ("Remote-User", "1"),
    ("remote-email", "ada@example.org"),
    ("Remote-Email-Verified", "true"),
    ("REMOTE-NAME", "Augusta"),
    ("Remote-Scopes", "users:write"),
    ("Remote-Key", "1"),
    ("Remote_User", "1"),
    ("remote_email", "ada@example.org"),
    ("Remote_Email_Verified", "true"),
    ("REMOTE_SCOPES", "users:write"),
    ("Remote.User", "1"),
]
CALLER = ["Remote-User", "Remote-Email", "Remote-Email-Verified", "Remote-Name", "Remote-Scopes", "Remote-Key"]
BAD_TOKEN = "lkt_" + "0" * 49
CHALLENGE = 'Bearer realm="latchkey"'
# The status for a missing credential, and for an invalid one in Token.
UNAUTHENTICATED = {"fastapi": 403, "rfc": 401}
# The status while /authz is unavailable.
DOWN = {"nginx": 503, "caddy": 502, "haproxy": 503}
# Proxies that forward the body of a rejection. nginx sends its own pages.
FORWARDS_BODIES = ["caddy", "haproxy"]

Seen = namedtuple("Seen", "method target headers body")
Answer = namedtuple("Answer", "status headers body")


class Service:
    """A service without knowledge of Latchkey. It records the requests that reach it."""

    def __init__(self):
        self.seen = seen = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self):
                # A proxy may close a connection at any time.
                with suppress(ConnectionResetError):
                    super().handle()

            def answer(self):
                method, target, _ = self.requestline.split(" ")
                seen.append(Seen(method, target, self.headers.items(), self.body()))
                self.send_response(200)
                self.send_header("Content-Length", "7")
                self.end_headers()
                self.wfile.write(b"service")

            def body(self):
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def only(self):
        """Returns the only request since the last call."""
        [seen] = self.seen
        self.seen.clear()
        return seen

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def values(seen, name):
    """Returns the values of all headers with this name."""
    return [value for header, value in seen.headers if header.lower() == name.lower()]


def caller(seen):
    """Returns all headers that a service may take for the identity of the caller, sorted."""
    return sorted((name.title(), value) for name, value in seen.headers if re.match("remote[^a-z]", name.lower()))


class Client:
    """A connection to a proxy, from an address that only this client uses."""

    addresses = (f"127.7.{count // 250}.{count % 250 + 1}" for count in itertools.count())

    def __init__(self, port):
        self.address = next(self.addresses)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15, source_address=(self.address, 0))

    def ask(self, method, target, *headers, body=None, host=HOST):
        """Sends a request without changes and returns the response."""
        self.connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in [("Host", host), *headers]:
            self.connection.putheader(name, value)
        if isinstance(body, bytes):
            self.connection.putheader("Content-Length", len(body))
        elif body:
            self.connection.putheader("Transfer-Encoding", "chunked")
        self.connection.endheaders(body, encode_chunked=not isinstance(body, bytes))
        answer = self.connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())


class Site:
    """Latchkey with rules, credentials of some callers, and the guarded service."""

    def __init__(self, database_url, profile, folder):
        self.profile, self.database_url = profile, database_url
        self.latchkey = Latchkey(database_url, profile, folder, SETTINGS)
        self.service = Service()
        self.own = self.latchkey.key("pages:read")
        self.token = self.latchkey.sign_in(scope="pages:read")
        self.issued = self.issue("translate:use", name="Zoë")

    def issue(self, *scopes, name="issued", **settings):
        """Issues a key on the account of Ada."""
        options = [f"--{option.replace('_', '-')}={value}" for option, value in settings.items()]
        scopes = [f"--scope={scope}" for scope in scopes]
        return json.loads(
            self.latchkey.command("key", "issue", "ada@example.org", "--json", "--name", name, *options, *scopes)
        )

    def callers(self):
        """Returns secrets with the caller headers that they lead to."""
        # Her address is not verified, whatever a client claims.
        email = [("Remote-Email", "grace@example.org"), ("Remote-Email-Verified", "false")]
        grace = [*email, ("Remote-Name", "Grace"), ("Remote-Scopes", "pages:read")]
        issued = [("Remote-Key", str(self.issued["id"])), ("Remote-Name", "Zo%C3%AB"), ("Remote-Scopes", "translate:use")]
        return [
            (self.token, sorted([*grace, ("Remote-User", "2")])),
            (self.own["key"], sorted([*grace, ("Remote-User", "2"), ("Remote-Key", str(self.own["id"]))])),
            (self.issued["key"], issued),
            (STATIC_KEY, [("Remote-Name", "static key")]),
        ]

    @contextmanager
    def audit_trail_locked(self):
        """Holds a lock that blocks audit entries."""
        if self.database_url.startswith("sqlite"):
            path = self.database_url.removeprefix("sqlite://")
            with closing(sqlite3.connect(path, isolation_level=None)) as database:
                database.execute("BEGIN IMMEDIATE")
                yield
            return
        with closing(psycopg.connect(self.database_url)) as database:
            database.execute("LOCK TABLE audit_entries IN EXCLUSIVE MODE")
            yield

    def stop(self):
        self.latchkey.stop()
        self.service.stop()


@pytest.fixture(
    scope="module", params=[("sqlite", "fastapi"), ("sqlite", "rfc"), ("postgres", "fastapi")], ids="-".join
)
def site(request, tmp_path_factory):
    """A site for all tests of this file."""
    kind, profile = request.param
    folder = tmp_path_factory.mktemp("site")
    with empty_database(kind, folder) as database_url:
        site = Site(database_url, profile, folder)
        yield site
        site.stop()


def nginx(folder):
    """Includes the file in a minimal nginx.conf. Returns the command."""
    (folder / "main.conf").write_text(f"""
        daemon off; master_process off; pid {folder}/pid; error_log stderr crit;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
            uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
            include {folder}/nginx.conf;
        }}
    """)
    return ["nginx", "-c", folder / "main.conf"]


def caddy(folder):
    """Disables the admin port. Returns the command."""
    (folder / "main").write_text(f"{{\n\tadmin off\n\tlog {{\n\t\tlevel ERROR\n\t}}\n}}\nimport {folder}/Caddyfile\n")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", folder / "main"]


def haproxy(folder):
    """Copies the Lua script. Returns the command."""
    shutil.copy(DOCS / "haproxy.lua", folder)
    # Abstract sockets belong to the machine, and other tests run at the same time.
    for file in ["haproxy.cfg", "haproxy.lua"]:
        text = (folder / file).read_text()
        (folder / file).write_text(text.replace("abns@latchkey", f"abns@latchkey-{os.getpid()}-{folder.name}"))
    return ["haproxy", "-db", "-q", "-f", folder / "haproxy.cfg"]


PROXIES = {"nginx": (nginx, "nginx.conf"), "caddy": (caddy, "Caddyfile"), "haproxy": (haproxy, "haproxy.cfg")}


def place(name, folder, latchkey, service, listen):
    """Copies a file of the documentation and changes only the addresses."""
    text = (DOCS / name).read_text()
    for written, here in [
        (r"\blatchkey:8080\b", f"127.0.0.1:{latchkey}"),
        (r"\bservice:9000\b", f"127.0.0.1:{service}"),
        (r":80\b", f":{listen}"),
    ]:
        text, found = re.subn(written, here, text)
        assert found == 1, f"{name} has {found} of {written}"
    (folder / name).write_text(text)


class Proxy:
    """A running proxy between clients and the service of a site."""

    def __init__(self, name, site, folder, command=None):
        self.name, self.site, self.port, self.latest = name, site, free_port(), None
        default_command, file = PROXIES[name]
        place(file, folder, site.latchkey.port, site.service.port, self.port)
        # Debian installs servers in /usr/sbin, which is not in every user's PATH.
        path = os.environ["PATH"] + ":/usr/sbin"
        environment = {"PATH": path, "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
        self.process = subprocess.Popen((command or default_command)(folder), env=environment, cwd=folder)
        wait_for(self.port, self.process)

    def client(self):
        """Returns a new client and closes the previous one."""
        if self.latest:
            self.latest.connection.close()
        self.site.service.seen.clear()
        self.latest = Client(self.port)
        return self.latest

    def rejects(self, client, *request, **options):
        """Sends a request that the proxy must reject, and returns the response."""
        answer = client.ask(*request, **options)
        assert self.site.service.seen == [], request
        assert answer.status >= 400, request
        return answer

    def passes(self, client, *request, **options):
        """Sends a request that must reach the service, and returns it as the service received it."""
        answer = client.ask(*request, **options)
        assert (answer.status, answer.body) == (200, b"service"), (request, answer)
        return self.site.service.only()


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request, site, tmp_path_factory):
    """Each of the proxies."""
    proxy = Proxy(request.param, site, tmp_path_factory.mktemp(request.param))
    yield proxy
    end(proxy.process)


def test_the_service_gets_the_verified_caller_and_no_spoofed_headers(proxy):
    client = proxy.client()
    spoofed = [*SPOOFED, ("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https")]
    for secret, expected in proxy.site.callers():
        for credential in [("Token", secret), ("token", secret), ("Authorization", f"Bearer {secret}")]:
            seen = proxy.passes(client, "GET", "/wiki/page?a=1&b=%2F;c", *spoofed, credential)
            assert caller(seen) == expected
            assert (seen.method, values(seen, "Host")) == ("GET", [HOST])
            assert not any(secret in value for _, value in seen.headers)
            assert values(seen, "X-Forwarded-For") == [client.address]


def test_the_service_gets_whether_the_address_is_verified_whatever_the_client_claims(proxy):
    latchkey, email = proxy.site.latchkey, f"verified-{proxy.name}@example.org"
    latchkey.command("user", "create", email, "--name", "Verified", stdin=PASSWORD + "\n")
    for command, expected in [(None, "false"), ("verify-email", "true")]:
        if command:
            latchkey.command("user", command, email)
        token = latchkey.sign_in(email, scope="pages:read")
        client = proxy.client()
        for claimed in ["true", "false", ""]:
            spoofed = [(name, claimed) for name in ["Remote-Email-Verified", "remote_email_verified"]]
            seen = proxy.passes(client, "GET", "/wiki", *spoofed, ("Token", token))
            assert [value for name, value in caller(seen) if "Verified" in name] == [expected]


def test_public_paths_pass_without_caller_headers(proxy):
    client = proxy.client()
    for credential in [(), (("Token", BAD_TOKEN),), (("Token", proxy.site.token),)]:
        seen = proxy.passes(client, "GET", "/public/page", *SPOOFED, *credential)
        assert (caller(seen), values(seen, "Token")) == ([], [])


def test_unauthenticated_requests_are_rejected_as_by_latchkey(proxy):
    unauthenticated = UNAUTHENTICATED[proxy.site.profile]
    for credential, status, error in [
        ((), unauthenticated, ""),
        ([("Token", BAD_TOKEN)], unauthenticated, ', error="invalid_token"'),
        ([("Authorization", f"Bearer {BAD_TOKEN}")], 401, ', error="invalid_token"'),
        ([("Token", proxy.site.token), ("Authorization", f"Bearer {STATIC_KEY}")], 400, ', error="invalid_request"'),
    ]:
        answer = proxy.rejects(proxy.client(), "GET", "/wiki", *SPOOFED, *credential)
        assert (answer.status, answer.headers.get_all("WWW-Authenticate")) == (status, [CHALLENGE + error])
        if proxy.name in FORWARDS_BODIES:
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert json.loads(answer.body)["status"] == status


def test_a_missing_scope_is_named_in_the_challenge(proxy):
    client, site = proxy.client(), proxy.site
    answer = proxy.rejects(client, "GET", "/translate", ("Token", site.token))
    challenge = CHALLENGE + ', error="insufficient_scope", scope="translate:use"'
    assert (answer.status, answer.headers.get_all("WWW-Authenticate")) == (403, [challenge])
    assert proxy.passes(client, "GET", "/translate", ("Token", site.issued["key"])).target == "/translate"


def test_rules_apply_to_the_actual_request_and_not_to_what_client_headers_claim(proxy):
    credential = ("Token", proxy.site.token)
    client = proxy.client()
    assert proxy.passes(client, "POST", "/form", credential, body=b"").method == "POST"
    for method, target, host in [
        ("GET", "/nowhere", HOST),
        ("GET", "/form", HOST),
        ("GET", "/wiki", "other.example.com"),
        ("GET", "/public", "other.example.com"),
        ("GET", "http://other.example.com/public", HOST),
    ]:
        for claimed in [
            (),
            [("X-Forwarded-Uri", "/public"), ("X-Forwarded-Host", HOST), ("X-Forwarded-Method", "POST")],
            [("X-Original-URI", "/public"), ("X-Original-Host", HOST), ("X-Original-Method", "POST")],
            [("X-Original-URL", f"http://{HOST}/public")],
            [("X-HTTP-Method-Override", "POST")],
            [("X_Original_URI", "/public"), ("X_Forwarded_Uri", "/public")],
        ]:
            answer = proxy.rejects(client, method, target, credential, *claimed, host=host)
            assert answer.status in (400, 403)


@pytest.mark.parametrize("target", [
    "/public/../wiki",
    "/public/..",
    "/public/%2e%2e/wiki",
    "/public/%2E./wiki",
    "/public/..%2fwiki",
    "/public/%2e%2e%2fwiki",
    "/public/..;/wiki",
    "/public\\..\\wiki",
    "/public/%5c../wiki",
    "/public/%252e%252e/wiki",
    "//public/../wiki",
    "//wiki",
    "/./wiki",
    "/public/./../wiki",
    "/public/..?/public",
    "/public#/../../wiki",
    "/public%23/../../wiki",
    "/public%00/../wiki",
    "/public%3f/../../wiki",
    "/public/%c0%ae%c0%ae/wiki",
    "wiki",
    "*",
])  # fmt: skip
def test_path_variants_below_a_public_path_do_not_reach_a_guarded_one(proxy, target):
    for credential in [(), (("Token", proxy.site.issued["key"]),)]:
        assert proxy.rejects(proxy.client(), "GET", target, *credential).status < 500


def test_the_service_gets_the_request_unchanged(proxy):
    client, credential = proxy.client(), ("Token", proxy.site.token)
    target = "/wiki/caf%C3%A9%20au+lait/?a=b&a=%2F..%2f&scope=x&c=d;e&f=//%&g"
    assert proxy.passes(client, "PUT", target, credential, body=b"").target == target
    body = os.urandom(300_000)
    assert proxy.passes(client, "POST", "/wiki", credential, body=body).body == body
    chunks = [body[:10], body[10:200_000], body[200_000:]]
    assert proxy.passes(client, "POST", "/wiki", credential, body=iter(chunks)).body == body


def test_a_rejected_body_does_not_reach_the_service(proxy):
    body = b"GET /wiki HTTP/1.1\r\nHost: api.example.com\r\n\r\n" * 2000
    assert proxy.rejects(proxy.client(), "POST", "/translate", ("Token", proxy.site.token), body=body).status == 403


def test_a_connection_header_cannot_remove_the_caller_headers(proxy):
    names = ", ".join(CALLER)
    forwarded = "close, X-Forwarded-For, X-Forwarded-Uri, X-Original-URI"
    for connection in [names, f"keep-alive, {names}", f"Upgrade, {names.lower()}", forwarded]:
        client = proxy.client()
        answer = client.ask("GET", "/wiki", ("Token", proxy.site.token), ("Connection", connection))
        if answer.status == 200:
            seen = proxy.site.service.only()
            assert caller(seen) == proxy.site.callers()[0][1]
            assert values(seen, "X-Forwarded-For") == [client.address]
        else:
            assert (answer.status, proxy.site.service.seen) == (400, [])


def test_a_key_is_rejected_as_soon_as_it_expires(proxy):
    end = datetime.now(timezone.utc) + timedelta(seconds=2)
    key = proxy.site.issue(expires_at=end.isoformat())["key"]
    client = proxy.client()
    passed = 0
    while client.ask("GET", "/wiki", ("Token", key)).status == 200:
        passed += 1
        assert datetime.now(timezone.utc) < end + timedelta(seconds=1)
        time.sleep(0.05)
    assert passed > 0 and datetime.now(timezone.utc) >= end
    assert proxy.rejects(proxy.client(), "GET", "/wiki", ("Token", key)).status == UNAUTHENTICATED[proxy.site.profile]


def test_a_revoked_key_is_rejected_at_once_on_the_same_connection(proxy):
    key = proxy.site.issue()["key"]
    client = proxy.client()
    proxy.passes(client, "GET", "/wiki", ("Token", key))
    socket = client.connection.sock
    revoked = requests.post(f"{proxy.site.latchkey.url}/revoke", data={"token": key}, timeout=10)
    assert (revoked.status_code, client.connection.sock) == (200, socket)
    assert proxy.rejects(client, "GET", "/wiki", ("Token", key)).status == UNAUTHENTICATED[proxy.site.profile]


def test_the_maximum_number_of_scopes_of_a_key_reaches_the_service(proxy):
    scopes = [f"long:{number:0123}" for number in range(100)]
    cookies = [("Cookie", "a" * 7000), ("Cookie", "b" * 7000)]
    seen = proxy.passes(proxy.client(), "GET", "/wiki", *cookies, ("Token", proxy.site.issue(*scopes)["key"]))
    assert sorted(dict(caller(seen))["Remote-Scopes"].split(" ")) == scopes


def test_limits_and_the_audit_trail_use_the_address_of_the_client(proxy):
    client, site = proxy.client(), proxy.site
    for count in range(BAD_TOKENS):
        spoofed = ("X-Forwarded-For", f"192.0.2.{count}")
        assert proxy.rejects(client, "GET", "/wiki", ("Authorization", f"Bearer {BAD_TOKEN}"), spoofed).status == 401
    answer = proxy.rejects(client, "GET", "/wiki", ("Token", BAD_TOKEN), ("X-Forwarded-For", "192.0.2.99"))
    assert answer.status == 429 and 1 <= int(answer.headers["Retry-After"]) <= 60
    proxy.passes(client, "POST", "/wiki?secret", ("Token", site.token), ("X-Forwarded-For", "192.0.2.99"), body=b"")
    entry = json.loads(site.latchkey.command("audit", "list", "--json", "--limit", "1"))
    assert (entry["action"], entry["target"], entry["client"]) == ("request.forward", "POST /wiki", client.address)


def test_a_request_that_cannot_be_recorded_is_rejected(proxy):
    client, credential = proxy.client(), ("Token", proxy.site.token)
    with proxy.site.audit_trail_locked():
        answer = proxy.rejects(client, "POST", "/wiki", credential, body=b"")
    assert answer.status == 503 and int(answer.headers["Retry-After"]) >= 1
    proxy.passes(client, "POST", "/wiki", credential, body=b"")


def test_requests_are_rejected_while_latchkey_is_down_and_pass_afterwards(proxy):
    client, credential = proxy.client(), ("Token", proxy.site.token)
    proxy.passes(client, "GET", "/wiki", credential)
    proxy.site.latchkey.stop()
    try:
        for target in ["/wiki", "/public"]:
            assert proxy.rejects(client, "GET", target, *SPOOFED, credential).status == DOWN[proxy.name]
    finally:
        proxy.site.latchkey.start()
    seen = proxy.passes(client, "GET", "/wiki", *SPOOFED, credential)
    assert caller(seen) == proxy.site.callers()[0][1]


def test_haproxy_rejects_requests_if_its_script_fails(site, tmp_path):
    def failing(folder):
        command = haproxy(folder)
        settings = (folder / "haproxy.cfg").read_text()
        # The other HAProxy may still use this socket.
        (folder / "haproxy.cfg").write_text(settings.replace("abns@latchkey", "abns@failing"))
        script = 'core.register_action("latchkey", { "http-req" }, function() error("failing") end, 0)'
        (folder / "haproxy.lua").write_text(script)
        return command

    proxy = Proxy("haproxy", site, tmp_path, failing)
    try:
        for target in ["/wiki", "/public"]:
            assert proxy.rejects(proxy.client(), "GET", target, ("Token", site.token)).status == 503
    finally:
        end(proxy.process)


def test_caddy_never_uses_a_connection_that_was_just_closed(site, tmp_path):
    # Connections may be idle for five seconds, and longer from a trusted proxy. The test sends 320 requests, which Caddy
    # must not repeat. Each follows the previous one on its connection after 4.96 to 5.01 seconds.
    port = free_port()
    (tmp_path / "Caddyfile").write_text(f":{port} {{\n\treverse_proxy 127.0.0.1:{site.latchkey.port}\n}}\n")
    environment = {"PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    process = subprocess.Popen(caddy(tmp_path), env=environment, cwd=tmp_path)
    answers = []

    def ask(number):
        client = Client(port)
        for _ in range(5):
            answers.append(client.ask("POST", "/register", ("Content-Type", "application/json"), body=b"{}").status)
            time.sleep(4.96 + number * 0.05 / 64)

    try:
        wait_for(port, process)
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        end(process)
    assert answers == [422] * 320


def test_the_traefik_file_contains_only_documented_options():
    settings = yaml.safe_load((DOCS / "traefik.yml").read_text())["http"]
    assert set(settings) == {"routers", "middlewares", "services"}
    [(_, router)] = settings["routers"].items()
    assert set(router) == {"rule", "middlewares", "service"}
    assert router["service"] in settings["services"]
    forward_auth, headers = (settings["middlewares"][name] for name in router["middlewares"])
    assert set(forward_auth["forwardAuth"]) == {"address", "authRequestHeaders", "authResponseHeaders"}
    assert forward_auth["forwardAuth"]["authResponseHeaders"] == CALLER
    removed = headers["headers"]["customRequestHeaders"]
    assert set(removed) == {"Token", "Authorization", *(name.replace("-", "_") for name in CALLER)}
    assert set(removed.values()) == {""}
