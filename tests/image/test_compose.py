"""The compose files, with Debian's docker.io and docker-compose.

The official images of PostgreSQL and nginx are replaced by this machine's packages: small images whose /usr is mounted
from the host. With ROLLING_RESTARTS=N, the replicas restart N times under load instead of once.
"""

import http.client
import itertools
import json
import os
import shutil
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import HOME, PASSWORD, ROOT, USER_CREATE, free_port, request, run, sign_in, wait_until

OTHER_EMAIL = "grace@example.org"
# docker-entrypoint.sh of the official image, as far as the compose file relies on it.
START_POSTGRES = """#!/bin/sh
set -e
umask 077
if [ ! -s data/PG_VERSION ]; then
    initdb --pgdata data --username "$POSTGRES_USER" --pwfile "$POSTGRES_PASSWORD_FILE" --auth scram-sha-256 --no-sync
    echo "host all all all scram-sha-256" >>data/pg_hba.conf
    echo "CREATE DATABASE $POSTGRES_USER" | postgres --single -D data postgres
fi
exec postgres -D data -k /tmp -c listen_addresses='*'
"""
# Added to compose.yaml, to save time.
OFTEN_CHECKED = """services:
  latchkey: {healthcheck: {interval: 1s}}
"""
# Added to compose.postgres.yaml.
STAND_INS = """services:
  postgres: {volumes: ["/usr:/usr:ro"], healthcheck: {interval: 1s}}
  latchkey-1: {healthcheck: {interval: 1s}}
  latchkey-2: {healthcheck: {interval: 1s}}
  nginx: {volumes: ["/usr:/usr:ro"]}
"""


def compose(folder, environment, files, *arguments, **options):
    """Runs docker-compose on files of a copy of deploy/."""
    variables = {"PATH": os.environ["PATH"], "COMPOSE_PROJECT_NAME": "test", **environment}
    named = [word for file in files for word in ("--file", folder / file)]
    return run("docker-compose", *named, *arguments, env=variables, **options)


@pytest.fixture(scope="module")
def deploy():
    """A copy of deploy/ with the secrets of docs/deployment.md."""
    copy = HOME / "compose/deploy"
    shutil.copytree(ROOT / "deploy", copy)
    secrets = copy / "secrets"
    secrets.mkdir(0o700)
    (secrets / "postgres_password").write_text("not-secret\n")
    (secrets / "database_url").write_text("postgres://latchkey:not-secret@postgres/latchkey\n")
    (copy / "often-checked.yaml").write_text(OFTEN_CHECKED)
    (copy / "stand-ins.yaml").write_text(STAND_INS)
    return copy


@contextmanager
def started(docker, folder, files, *services, **environment):
    """Starts services of compose files, and removes them with their volumes. Yields the published port and docker-compose."""
    port = free_port()
    environment = {"DOCKER_HOST": docker.socket, "PUBLISH": f"127.0.0.1:{port}", **environment}

    def command(*arguments, **options):
        return compose(folder, environment, files, *arguments, **options)

    try:
        command("up", "--detach", "--no-build", *services)
        yield port, command
    except BaseException:
        print(command("logs", "--no-color", "--tail", "20"))
        raise
    finally:
        command("down", "--volumes", "--timeout", "1")


def wait_for_health(docker, command, service):
    """Waits until the health check of a service succeeds."""
    name = command("ps", "--quiet", service)
    healthy = lambda: docker.run("inspect", "--format", "{{.State.Health.Status}}", name) == "healthy"
    wait_until(healthy, 60, f"{service} is healthy")


def create_user(docker, command, service, arguments):
    """Runs `latchkey user create` in a running container."""
    name = command("ps", "--quiet", service)
    return docker.run("exec", "--interactive", name, "/latchkey", *arguments, input=f"{PASSWORD}\n")


@pytest.mark.parametrize("file", ["compose.yaml", "compose.postgres.yaml"])
def test_the_file_is_valid(deploy, file):
    assert "latchkey" in compose(deploy, {}, [file], "config", "--services")


def test_one_command_starts_a_healthy_service_on_sqlite(docker, deploy):
    with started(docker, deploy, ["compose.yaml", "often-checked.yaml"]) as (port, command):
        wait_for_health(docker, command, "latchkey")
        assert create_user(docker, command, "latchkey", USER_CREATE) == "created admin 1 ada@example.org"
        token = sign_in(port)
        # A new container finds the data of the old one.
        command("up", "--detach", "--no-build", "--force-recreate")
        wait_for_health(docker, command, "latchkey")
        status, body = request(port, "GET", "/protected-route", Token=token)
        assert status == 200, body


def import_image(docker, name, folder, *changes):
    """Makes an image of a folder. Its /usr is empty, and the host's is mounted there."""
    for link in ["bin", "lib", "lib64", "sbin"]:
        (folder / link).symlink_to(f"usr/{link}")
    (folder / "usr").mkdir()
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o1777)
    archive = folder.with_suffix(".tar")
    run("tar", "--create", "--directory", folder, "--file", archive, ".")
    docker.run("import", *(word for change in changes for word in ("--change", change)), archive, name)


@pytest.fixture(scope="module")
def stand_ins(docker):
    """Images of PostgreSQL and nginx. Returns the variables that select them."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    postgres = HOME / "stand-in-postgres"
    data = postgres / "var/lib/postgresql/data"
    data.mkdir(parents=True)
    data.chmod(0o700)
    os.chown(data, 999, 999)
    (postgres / "etc").mkdir()
    (postgres / "etc/passwd").write_text("postgres:x:999:999::/var/lib/postgresql:/bin/sh\n")
    (postgres / "start").write_text(START_POSTGRES)
    (postgres / "start").chmod(0o755)
    import_image(
        docker, "stand-in-postgres", postgres, f"ENV PATH={binaries}:/usr/bin", "WORKDIR /var/lib/postgresql", "USER 999:999",
        'CMD ["/start"]',
    )
    nginx = HOME / "stand-in-nginx"
    for folder in ["etc/nginx", "var/log/nginx", "var/lib/nginx"]:
        (nginx / folder).mkdir(parents=True)
    import_image(docker, "stand-in-nginx", nginx, 'CMD ["/usr/sbin/nginx", "-g", "daemon off;"]')
    return {"POSTGRES_IMAGE": "stand-in-postgres", "NGINX_IMAGE": "stand-in-nginx"}


class Load:
    """Clients that send requests without pause: reads, changes, and sign-ins of a second user."""

    def __init__(self, port, token):
        self.port, self.token = port, token
        self.stopped = threading.Event()
        self.results = Counter()
        self.failures = []
        work = [self.read] * 4 + [self.change] * 3 + [self.sign_in]
        self.threads = [threading.Thread(target=self.repeat, args=(function,)) for function in work]

    def repeat(self, function):
        """Sends requests on one connection, which nginx keeps open."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        for number in itertools.count():
            if self.stopped.is_set():
                break
            try:
                function(connection, number)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{function.__name__}: {error!r}")
                connection.close()

    def expect(self, expected, connection, method, path, body=None, **headers):
        """Sends a request and counts it."""
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read()
        self.results[f"{method} {path}"] += 1
        if response.status != expected:
            self.failures.append(f"{method} {path}: {response.status} {text[:200]}")

    def read(self, connection, _):
        self.expect(200, connection, "GET", "/protected-route", Token=self.token)

    def change(self, connection, number):
        body = json.dumps({"title": f"{threading.get_ident()}-{number}", "body": "text"})
        self.expect(201, connection, "POST", "/page/", body, **{"Token": self.token, "Content-Type": "application/json"})

    def sign_in(self, connection, _):
        form = f"grant_type=password&username={OTHER_EMAIL}&password={PASSWORD.replace(' ', '+')}"
        self.expect(200, connection, "POST", "/token", form, **{"Content-Type": "application/x-www-form-urlencoded"})

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def test_a_rolling_restart_of_two_replicas_under_load_loses_no_request(docker, deploy, stand_ins):
    files = ["compose.postgres.yaml", "stand-ins.yaml"]
    with started(docker, deploy, files, "nginx", **stand_ins) as (port, command):
        for service in ["latchkey-1", "latchkey-2"]:
            wait_for_health(docker, command, service)
        create_user(docker, command, "latchkey-1", USER_CREATE)
        create_user(docker, command, "latchkey-1", ["user", "create", OTHER_EMAIL, "--name", "Grace"])
        token = sign_in(port)
        with Load(port, token) as load:
            for _ in range(int(os.environ.get("ROLLING_RESTARTS", "1"))):
                for replica in ["latchkey-1", "latchkey-2"]:
                    before = sum(load.results.values())
                    command("up", "--detach", "--no-build", "--no-deps", "--force-recreate", replica)
                    wait_for_health(docker, command, replica)
                    assert sum(load.results.values()) > before
        assert load.failures == [], dict(load.results)
        # nginx repeats a GET whose connection was closed without a response, and logs it.
        log = command("logs", "--no-color", "nginx").splitlines()
        assert [line for line in log if "while reading response" in line or "while sending request" in line] == []
        # The list of pages counts up to 10,000 only.
        count = ["psql", "--host=127.0.0.1", "--username=latchkey", "--tuples-only", "--command=SELECT count(*) FROM pages"]
        count = command("exec", "-T", "-e", "PGPASSWORD=not-secret", "postgres", *count)
        assert int(count) == load.results["POST /page/"]
        print(f"{dict(load.results)}, 0 failed")
