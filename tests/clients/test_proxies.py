"""Reverse proxies as their packages come, with the settings of docs/forward-auth, between a client and a service."""

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

from conftest import Latchkey, empty_database, end, free_port, wait_for

DOCS = Path(__file__).parents[2] / "docs" / "forward-auth"
HOST = "api.example.com"
CONSTANT_KEY = "0123456789abcdef0123456789abcdef"
BAD_TOKENS = 5
SETTINGS = f"""
[http]
trusted_proxies = ["127.0.0.1"]

[auth]
api_key_token = "{CONSTANT_KEY}"

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
# How a client may try to be somebody, in spellings that one service or another takes for the same.
SPOOFED = [
    ("Remote-User", "1"),
    ("remote-email", "ada@example.org"),
    ("REMOTE-NAME", "Augusta"),
    ("Remote-Scopes", "users:write"),
    ("Remote-Key", "1"),
    ("Remote_User", "1"),
    ("remote_email", "ada@example.org"),
    ("REMOTE_SCOPES", "users:write"),
    ("Remote.User", "1"),
]
CALLER = ["Remote-User", "Remote-Email", "Remote-Name", "Remote-Scopes", "Remote-Key"]
BAD_TOKEN = "lkt_" + "0" * 49
CHALLENGE = 'Bearer realm="latchkey"'
# What a stranger gets, and whoever shows a bad credential in Token.
STRANGER = {"fastapi": 403, "rfc": 401}
# While nobody answers at /authz.
DOWN = {"nginx": 503, "caddy": 502, "haproxy": 503}
# nginx refuses with pages of its own.
PASSES_BODIES_ON = ["caddy", "haproxy"]

Seen = namedtuple("Seen", "method target headers body")
Answer = namedtuple("Answer", "status headers body")


class Service:
    """Knows nothing of Latchkey, and keeps what reaches it."""

    def __init__(self):
        self.seen = seen = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self):
                # Proxies end connections as they like.
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
        """The one request that came since the last look."""
        [seen] = self.seen
        self.seen.clear()
        return seen

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def values(seen, name):
    """Of all headers of this name."""
    return [value for header, value in seen.headers if header.lower() == name.lower()]


def caller(seen):
    """Whatever a service may take for a word on who sends the request, as a sorted list."""
    return sorted((name.title(), value) for name, value in seen.headers if re.match("remote[^a-z]", name.lower()))


class Client:
    """A connection to a proxy, from an address that no other client has."""

    addresses = (f"127.7.{count // 250}.{count % 250 + 1}" for count in itertools.count())

    def __init__(self, port):
        self.address = next(self.addresses)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15, source_address=(self.address, 0))

    def ask(self, method, target, *headers, body=None, host=HOST):
        """The answer to a request that is sent as it is written here."""
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
    """Latchkey with rules, the keys of some callers, and the service that is to be guarded."""

    def __init__(self, database_url, profile, folder):
        self.profile, self.database_url = profile, database_url
        self.latchkey = Latchkey(database_url, profile, folder, SETTINGS)
        self.service = Service()
        self.own = self.latchkey.key("pages:read")
        self.token = self.latchkey.sign_in(scope="pages:read")
        self.sold = self.issue("translate:use", name="Zoë")

    def issue(self, *scopes, name="sold", **more):
        """A key that is issued to others on the account of Ada."""
        options = [f"--{option.replace('_', '-')}={value}" for option, value in more.items()]
        scopes = [f"--scope={scope}" for scope in scopes]
        return json.loads(
            self.latchkey.command("key", "issue", "ada@example.org", "--json", "--name", name, *options, *scopes)
        )

    def callers(self):
        """Secrets, and who holds them."""
        grace = [("Remote-Email", "grace@example.org"), ("Remote-Name", "Grace"), ("Remote-Scopes", "pages:read")]
        sold = [("Remote-Key", str(self.sold["id"])), ("Remote-Name", "Zo%C3%AB"), ("Remote-Scopes", "translate:use")]
        return [
            (self.token, sorted([*grace, ("Remote-User", "2")])),
            (self.own["key"], sorted([*grace, ("Remote-User", "2"), ("Remote-Key", str(self.own["id"]))])),
            (self.sold["key"], sold),
            (CONSTANT_KEY, [("Remote-Name", "constant key")]),
        ]

    @contextmanager
    def nothing_can_be_recorded(self):
        """Somebody else holds the lock that writes take."""
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
    """One for all tests of this file."""
    kind, profile = request.param
    folder = tmp_path_factory.mktemp("site")
    with empty_database(kind, folder) as database_url:
        site = Site(database_url, profile, folder)
        yield site
        site.stop()


def nginx(folder):
    """Around the file goes what every nginx.conf has."""
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
    """Without the port of its own on which it takes commands."""
    (folder / "main").write_text(f"{{\n\tadmin off\n\tlog {{\n\t\tlevel ERROR\n\t}}\n}}\nimport {folder}/Caddyfile\n")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", folder / "main"]


def haproxy(folder):
    """With its script beside it."""
    shutil.copy(DOCS / "haproxy.lua", folder)
    return ["haproxy", "-db", "-q", "-f", folder / "haproxy.cfg"]


PROXIES = {"nginx": (nginx, "nginx.conf"), "caddy": (caddy, "Caddyfile"), "haproxy": (haproxy, "haproxy.cfg")}


def place(name, folder, latchkey, service, listen):
    """A file of the documentation, in which nothing but the addresses is changed."""
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
    """One of them, between clients and the service of a site."""

    def __init__(self, name, site, folder, command=None):
        self.name, self.site, self.port, self.latest = name, site, free_port(), None
        usual, file = PROXIES[name]
        place(file, folder, site.latchkey.port, site.service.port, self.port)
        # Debian keeps servers where the path of users does not lead.
        path = os.environ["PATH"] + ":/usr/sbin"
        environment = {"PATH": path, "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
        self.process = subprocess.Popen((command or usual)(folder), env=environment, cwd=folder)
        wait_for(self.port, self.process)

    def client(self):
        """A new one, in place of the one before."""
        if self.latest:
            self.latest.connection.close()
        self.site.service.seen.clear()
        self.latest = Client(self.port)
        return self.latest

    def refuses(self, client, *request, **more):
        """The answer to a request that the service does not see."""
        answer = client.ask(*request, **more)
        assert self.site.service.seen == [], request
        assert answer.status >= 400, request
        return answer

    def passes(self, client, *request, **more):
        """A request as the service sees it."""
        answer = client.ask(*request, **more)
        assert (answer.status, answer.body) == (200, b"service"), (request, answer)
        return self.site.service.only()


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request, site, tmp_path_factory):
    """Each of the proxies that can be run."""
    proxy = Proxy(request.param, site, tmp_path_factory.mktemp(request.param))
    yield proxy
    end(proxy.process)


def test_the_service_learns_who_it_is_and_nothing_that_the_client_says_of_it(proxy):
    client = proxy.client()
    spoofed = [*SPOOFED, ("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https")]
    for secret, who in proxy.site.callers():
        for credential in [("Token", secret), ("token", secret), ("Authorization", f"Bearer {secret}")]:
            seen = proxy.passes(client, "GET", "/wiki/page?a=1&b=%2F;c", *spoofed, credential)
            assert caller(seen) == who
            assert (seen.method, values(seen, "Host")) == ("GET", [HOST])
            assert not any(secret in value for _, value in seen.headers)
            assert values(seen, "X-Forwarded-For") == [client.address]


def test_public_paths_take_nobody_s_word(proxy):
    client = proxy.client()
    for credential in [(), (("Token", BAD_TOKEN),), (("Token", proxy.site.token),)]:
        seen = proxy.passes(client, "GET", "/public/page", *SPOOFED, *credential)
        assert (caller(seen), values(seen, "Token")) == ([], [])


def test_strangers_are_refused_as_by_latchkey_itself(proxy):
    stranger = STRANGER[proxy.site.profile]
    for credential, status, error in [
        ((), stranger, ""),
        ([("Token", BAD_TOKEN)], stranger, ', error="invalid_token"'),
        ([("Authorization", f"Bearer {BAD_TOKEN}")], 401, ', error="invalid_token"'),
        ([("Token", proxy.site.token), ("Authorization", f"Bearer {CONSTANT_KEY}")], 400, ', error="invalid_request"'),
    ]:
        answer = proxy.refuses(proxy.client(), "GET", "/wiki", *SPOOFED, *credential)
        assert (answer.status, answer.headers.get_all("WWW-Authenticate")) == (status, [CHALLENGE + error])
        if proxy.name in PASSES_BODIES_ON:
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert json.loads(answer.body)["status"] == status


def test_who_lacks_the_scope_is_told_which(proxy):
    client, site = proxy.client(), proxy.site
    answer = proxy.refuses(client, "GET", "/translate", ("Token", site.token))
    challenge = CHALLENGE + ', error="insufficient_scope", scope="translate:use"'
    assert (answer.status, answer.headers.get_all("WWW-Authenticate")) == (403, [challenge])
    assert proxy.passes(client, "GET", "/translate", ("Token", site.sold["key"])).target == "/translate"


def test_rules_are_for_the_request_that_the_client_sends_and_not_for_the_one_that_it_tells_of(proxy):
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
        for told in [
            (),
            [("X-Forwarded-Uri", "/public"), ("X-Forwarded-Host", HOST), ("X-Forwarded-Method", "POST")],
            [("X-Original-URI", "/public"), ("X-Original-Host", HOST), ("X-Original-Method", "POST")],
            [("X-Original-URL", f"http://{HOST}/public")],
            [("X-HTTP-Method-Override", "POST")],
            [("X_Original_URI", "/public"), ("X_Forwarded_Uri", "/public")],
        ]:
            answer = proxy.refuses(client, method, target, credential, *told, host=host)
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
def test_no_way_round_leads_from_a_public_path_to_a_guarded_one(proxy, target):
    for credential in [(), (("Token", proxy.site.sold["key"]),)]:
        assert proxy.refuses(proxy.client(), "GET", target, *credential).status < 500


def test_the_service_gets_the_request_whole(proxy):
    client, credential = proxy.client(), ("Token", proxy.site.token)
    target = "/wiki/caf%C3%A9%20au+lait/?a=b&a=%2F..%2f&scope=x&c=d;e&f=//%&g"
    assert proxy.passes(client, "PUT", target, credential, body=b"").target == target
    body = os.urandom(300_000)
    assert proxy.passes(client, "POST", "/wiki", credential, body=body).body == body
    chunks = [body[:10], body[10:200_000], body[200_000:]]
    assert proxy.passes(client, "POST", "/wiki", credential, body=iter(chunks)).body == body


def test_a_refused_body_does_not_reach_the_service(proxy):
    body = b"GET /wiki HTTP/1.1\r\nHost: api.example.com\r\n\r\n" * 2000
    assert proxy.refuses(proxy.client(), "POST", "/translate", ("Token", proxy.site.token), body=body).status == 403


def test_a_client_cannot_have_the_word_on_who_it_is_taken_away(proxy):
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


def test_a_key_is_refused_from_the_moment_of_its_end(proxy):
    end = datetime.now(timezone.utc) + timedelta(seconds=2)
    key = proxy.site.issue(expires_at=end.isoformat())["key"]
    client = proxy.client()
    passed = 0
    while client.ask("GET", "/wiki", ("Token", key)).status == 200:
        passed += 1
        assert datetime.now(timezone.utc) < end + timedelta(seconds=1)
        time.sleep(0.05)
    assert passed > 0 and datetime.now(timezone.utc) >= end
    assert proxy.refuses(proxy.client(), "GET", "/wiki", ("Token", key)).status == STRANGER[proxy.site.profile]


def test_what_is_revoked_is_refused_at_once_on_the_same_connection(proxy):
    key = proxy.site.issue()["key"]
    client = proxy.client()
    proxy.passes(client, "GET", "/wiki", ("Token", key))
    socket = client.connection.sock
    revoked = requests.post(f"{proxy.site.latchkey.url}/revoke", data={"token": key}, timeout=10)
    assert (revoked.status_code, client.connection.sock) == (200, socket)
    assert proxy.refuses(client, "GET", "/wiki", ("Token", key)).status == STRANGER[proxy.site.profile]


def test_all_scopes_that_a_key_may_have_reach_the_service(proxy):
    scopes = [f"long:{number:0123}" for number in range(100)]
    cookies = [("Cookie", "a" * 7000), ("Cookie", "b" * 7000)]
    seen = proxy.passes(proxy.client(), "GET", "/wiki", *cookies, ("Token", proxy.site.issue(*scopes)["key"]))
    assert sorted(dict(caller(seen))["Remote-Scopes"].split(" ")) == scopes


def test_limits_and_the_trail_know_clients_by_their_addresses(proxy):
    client, site = proxy.client(), proxy.site
    for count in range(BAD_TOKENS):
        spoofed = ("X-Forwarded-For", f"192.0.2.{count}")
        assert proxy.refuses(client, "GET", "/wiki", ("Authorization", f"Bearer {BAD_TOKEN}"), spoofed).status == 401
    answer = proxy.refuses(client, "GET", "/wiki", ("Token", BAD_TOKEN), ("X-Forwarded-For", "192.0.2.99"))
    assert answer.status == 429 and 1 <= int(answer.headers["Retry-After"]) <= 60
    proxy.passes(client, "POST", "/wiki?secret", ("Token", site.token), ("X-Forwarded-For", "192.0.2.99"), body=b"")
    entry = json.loads(site.latchkey.command("audit", "list", "--json", "--limit", "1"))
    assert (entry["action"], entry["target"], entry["client"]) == ("request.forward", "POST /wiki", client.address)


def test_what_cannot_be_recorded_does_not_pass(proxy):
    client, credential = proxy.client(), ("Token", proxy.site.token)
    with proxy.site.nothing_can_be_recorded():
        answer = proxy.refuses(client, "POST", "/wiki", credential, body=b"")
    assert answer.status == 503 and int(answer.headers["Retry-After"]) >= 1
    proxy.passes(client, "POST", "/wiki", credential, body=b"")


def test_nothing_passes_while_latchkey_is_down_and_all_is_well_afterwards(proxy):
    client, credential = proxy.client(), ("Token", proxy.site.token)
    proxy.passes(client, "GET", "/wiki", credential)
    proxy.site.latchkey.stop()
    try:
        for target in ["/wiki", "/public"]:
            assert proxy.refuses(client, "GET", target, *SPOOFED, credential).status == DOWN[proxy.name]
    finally:
        proxy.site.latchkey.start()
    seen = proxy.passes(client, "GET", "/wiki", *SPOOFED, credential)
    assert caller(seen) == proxy.site.callers()[0][1]


def test_haproxy_lets_nothing_pass_if_its_script_fails(site, tmp_path):
    def failing(folder):
        command = haproxy(folder)
        settings = (folder / "haproxy.cfg").read_text()
        # The other one may still hold its socket.
        (folder / "haproxy.cfg").write_text(settings.replace("abns@latchkey", "abns@failing"))
        script = 'core.register_action("latchkey", { "http-req" }, function() error("failing") end, 0)'
        (folder / "haproxy.lua").write_text(script)
        return command

    proxy = Proxy("haproxy", site, tmp_path, failing)
    try:
        for target in ["/wiki", "/public"]:
            assert proxy.refuses(proxy.client(), "GET", target, ("Token", site.token)).status == 503
    finally:
        end(proxy.process)


def test_caddy_finds_no_connection_that_has_just_ended(site, tmp_path):
    # 320 requests that Caddy may not send twice, in the 50 milliseconds around the five seconds that connections of other
    # clients may be idle. A trusted proxy has longer.
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


def test_traefik_s_file_holds_nothing_but_what_its_documentation_knows():
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
