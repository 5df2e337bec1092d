"""Fixtures: the image in podman, and a Docker daemon of the tests' own."""

import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOME = Path(os.environ["IMAGE_HOME"])
PROGRAM = Path(os.environ["IMAGE_PROGRAM"])
IS_RELEASE = os.environ["IMAGE_PROFILE"] == "release"
IMAGE = "localhost/latchkey"
EMAIL, PASSWORD = "ada@example.org", "correct horse battery"
USER_CREATE = ["user", "create", EMAIL, "--name", "Augusta", "--role", "admin"]


def run(*command, **options):
    """Runs a command and returns its standard output. Fails with its standard error."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
    return done.stdout.strip()


def free_port():
    """Returns a port that is free on all addresses, below the range from which the system assigns ports to clients."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
                return port
            except OSError:
                continue


def wait_until(condition, seconds, what):
    """Polls until the condition is true, and returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return value


def request(port, method, path, body=None, **headers):
    """Sends one request to 127.0.0.1 and returns the status and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def sign_in(port):
    """Signs in as the first admin, and returns the token."""
    form = f"grant_type=password&username={EMAIL}&password={PASSWORD.replace(' ', '+')}"
    status, body = request(port, "POST", "/token", form, **{"Content-Type": "application/x-www-form-urlencoded"})
    assert status == 200, body
    return json.loads(body)["access_token"]


def is_ready(port):
    """Whether a server at the port is ready."""
    try:
        return request(port, "GET", "/health/ready")[0] == 200
    except OSError:
        return False


STORAGE = ["--root", HOME / "storage", "--runroot", HOME / "run", "--storage-driver", "overlay"]


def podman(*arguments, **options):
    """Runs podman on the storage in which the image was built."""
    return run("podman", *STORAGE, "--runtime", shutil.which("runc"), "--cgroup-manager", "cgroupfs", *arguments, **options)


# Without systemd podman cannot run health checks, and without CAP_SYS_RESOURCE it cannot raise limits.
PODMAN_LIMITS = ["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=4096:4096", "--no-healthcheck"]
HARDENED = ["--network", "host", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]


class Container:
    """A container with 64 MB on a new volume, with a first admin. Its server is ready."""

    def __init__(self, name, *options):
        self.name, self.volume, self.port = name, f"{name}-data", free_port()
        mount = ["--volume", f"{self.volume}:/data"]
        listen = ["--env", f"LATCHKEY__SERVER__LISTEN=127.0.0.1:{self.port}"]
        podman("create", "--name", name, *PODMAN_LIMITS, *HARDENED, "--memory", "64m", *mount, *listen, *options, IMAGE)
        podman("start", name)
        started = time.monotonic()
        wait_until(lambda: is_ready(self.port), 20, f"{name} is ready")
        self.seconds_to_ready = time.monotonic() - started
        self.created = podman("exec", "--interactive", name, "/latchkey", *USER_CREATE, input=f"{PASSWORD}\n")
        self.pid = int(self.inspect("{{.State.Pid}}"))

    def inspect(self, template):
        """A property of the container, by a Go template."""
        return podman("inspect", self.name, "--format", template)

    def log(self):
        """The log of the server so far."""
        command = ["podman", *STORAGE, "logs", self.name]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout

    def proc(self, name):
        """A file of the server's process under /proc."""
        return Path(f"/proc/{self.pid}/{name}").read_text()

    def priorities(self):
        """The nice values of the threads that hash passwords."""
        stats = [path.read_text() for path in Path(f"/proc/{self.pid}/task").glob("*/stat")]
        return [int(stat.rsplit(")", 1)[1].split()[16]) for stat in stats if "(hasher-" in stat]


@contextmanager
def container(name, *options):
    """Starts a container, and removes it with its volume."""
    try:
        yield Container(name, *options)
    finally:
        podman("rm", "--force", "--time", "0", "--volumes", name)
        podman("volume", "rm", "--force", f"{name}-data")


class Docker:
    """A Docker daemon with its data in a folder of its own."""

    def __init__(self):
        self.folder = HOME / "docker"
        self.folder.mkdir()
        self.socket = f"unix://{self.folder}/socket"
        self.log = open(self.folder / "log", "w+")
        self.daemon = subprocess.Popen(
            [
                "dockerd", "--data-root", self.folder / "data", "--exec-root", self.folder / "exec", "--pidfile",
                self.folder / "pid", "--host", self.socket, "--storage-driver", "vfs", "--iptables=false",
                "--ip6tables=false", "--bridge=none",
            ],
            stdout=self.log, stderr=subprocess.STDOUT,
        )

    def is_up(self):
        """Whether the daemon answers. Waits for up to 30 seconds."""
        for _ in range(300):
            if self.daemon.poll() is not None:
                return False
            answer = subprocess.run(["docker", "--host", self.socket, "version"], capture_output=True, check=False)
            if answer.returncode == 0:
                return True
            time.sleep(0.1)
        return False

    def run(self, *arguments, **options):
        """Runs a docker command."""
        return run("docker", "--host", self.socket, *arguments, **options)

    def stop(self):
        """Stops the daemon."""
        self.daemon.terminate()
        self.daemon.wait(30)
        self.log.close()


@pytest.fixture(scope="session")
def docker():
    """The daemon, with the image latchkey. Tests are skipped where it does not start, or fail with REQUIRE_DOCKER=1."""
    daemon = Docker()
    try:
        if not daemon.is_up():
            reason = "the Docker daemon does not start:\n" + (daemon.folder / "log").read_text()[-2000:]
            pytest.fail(reason) if os.environ.get("REQUIRE_DOCKER") == "1" else pytest.skip(reason)
        archive = HOME / "latchkey.tar"
        run("buildah", *STORAGE, "push", "--quiet", IMAGE, f"docker-archive:{archive}:latchkey:latest")
        daemon.run("load", "--input", archive)
        yield daemon
    finally:
        daemon.stop()
