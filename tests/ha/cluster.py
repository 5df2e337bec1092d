"""A PostgreSQL cluster of three nodes. Each node runs etcd, Patroni and PostgreSQL as an unprivileged user."""

import contextlib
import glob
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import psutil
import psycopg2

HOST = "127.0.0.1"
UNPRIVILEGED = "nobody"
# Seconds after which a leader that does not renew its lock is replaced, and between two actions of Patroni.
TTL = 20
LOOP_WAIT = 2
# Seconds that a node has to start, or that the cluster has to become healthy.
START_TIMEOUT = 60
# Seconds for which a switch-over is requested again while Patroni rejects it.
SWITCH_OVER_TIMEOUT = 30


def free_ports(count):
    """Returns free ports below the range from which the system assigns ports to clients."""
    ports = set()
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            port = random.randrange(20_000, 32_000)
            bound = held.enter_context(socket.socket())
            try:
                bound.bind((HOST, port))
            except OSError:
                continue
            ports.add(port)
    return list(ports)


def as_unprivileged():
    """Arguments of Popen that run a program as another user if this one is root."""
    return {"user": UNPRIVILEGED, "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


def wait_for(condition, what, seconds=START_TIMEOUT):
    """Returns the first result of `condition` that is true."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what} within {seconds} s")
        time.sleep(0.1)
    return result


class Node:
    """One machine of the cluster."""

    def __init__(self, name, home, ports):
        self.name, self.home = name, home
        self.postgres, self.rest, self.etcd, self.peer = ports
        self.processes = []
        home.mkdir()
        if os.geteuid() == 0:
            shutil.chown(home, UNPRIVILEGED, "nogroup")

    def start(self, nodes, is_new):
        """Starts etcd and Patroni, which starts PostgreSQL."""
        peers = ",".join(f"{node.name}=http://{HOST}:{node.peer}" for node in nodes)
        client, peer = f"http://{HOST}:{self.etcd}", f"http://{HOST}:{self.peer}"
        config = self.home / "patroni.json"
        config.write_text(json.dumps(self._patroni([node.etcd for node in nodes])))
        self.processes = [
            self._run("etcd", "--name", self.name, "--data-dir", str(self.home / "etcd"), "--log-level", "warn",
                      "--listen-client-urls", client, "--advertise-client-urls", client,
                      "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                      "--initial-cluster", peers, "--initial-cluster-state", "new" if is_new else "existing",
                      "--unsafe-no-fsync"),
            self._run("patroni", str(config)),
        ]

    def _run(self, *command):
        with open(self.home / f"{command[0]}.log", "ab") as log:
            return subprocess.Popen(command, cwd=self.home, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                    env={"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C.UTF-8"},
                                    **as_unprivileged())

    def _patroni(self, etcd_ports):
        initdb = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))[-1]
        return {
            "scope": "latchkey",
            "name": self.name,
            "restapi": {"listen": f"{HOST}:{self.rest}", "connect_address": f"{HOST}:{self.rest}"},
            "etcd3": {"hosts": [f"{HOST}:{port}" for port in etcd_ports]},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL, "loop_wait": LOOP_WAIT, "retry_timeout": 5,
                    "synchronous_mode": True,
                    "postgresql": {
                        "use_pg_rewind": True,
                        "parameters": {"max_connections": 60, "shared_buffers": "32MB", "wal_keep_size": "256MB"},
                    },
                },
                "initdb": ["data-checksums", {"encoding": "UTF8"}],
            },
            "postgresql": {
                "listen": f"{HOST}:{self.postgres}",
                "connect_address": f"{HOST}:{self.postgres}",
                "data_dir": str(self.home / "data"),
                "bin_dir": os.path.dirname(initdb),
                "pgpass": str(self.home / "pgpass"),
                "authentication": {"superuser": {"username": "postgres"}, "replication": {"username": "replicator"}},
                "parameters": {"unix_socket_directories": str(self.home)},
                "pg_hba": [f"host all all {HOST}/32 trust", f"host replication all {HOST}/32 trust",
                           "local all all trust"],
            },
        }

    def all_processes(self):
        """All processes of the node. The postmaster is no child of Patroni."""
        found = []
        with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
            pid = int((self.home / "data/postmaster.pid").read_text().splitlines()[0])
            postmaster = psutil.Process(pid)
            if str(self.home) in " ".join(postmaster.cmdline()):
                found = [postmaster, *postmaster.children(recursive=True)]
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(process.pid)
                found += [process, *process.children(recursive=True)]
        return found

    def signal(self, number):
        """Sends a signal to all processes of the node. Repeats it for processes that have started meanwhile."""
        done = set()
        while new := [process for process in self.all_processes() if process not in done]:
            for process in new:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            done.update(new)

    def kill(self):
        """Kills all processes at once, as a power failure does."""
        self.signal(signal.SIGSTOP)
        killed = self.all_processes()
        for process in killed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(killed, timeout=10)
        for process in self.processes:
            process.wait()
        self.processes = []

    def request(self, path, body=None):
        """Returns the response of Patroni's REST API, or None."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{HOST}:{self.rest}{path}", data=data)
        try:
            with urllib.request.urlopen(request, timeout=30 if data else 2) as response:
                return response.read().decode()
        except urllib.error.HTTPError as error:
            return None if data is None else error.read().decode()
        except OSError:
            return None

    def reach(self, database="postgres"):
        """Opens a connection to this node, which is healthy but may be busy for a moment."""
        def connected():
            try:
                return self.connect(database)
            except psycopg2.OperationalError:
                return None
        return wait_for(connected, f"{self.name} accepts no connection")

    def connect(self, database="postgres", **options):
        """Opens a connection to this node. Each statement is a transaction."""
        connection = psycopg2.connect(host=HOST, port=self.postgres, user="postgres", dbname=database,
                                      connect_timeout=2, **options)
        connection.autocommit = True
        return connection


class Cluster:
    """The nodes. Leave the context to end all their processes."""

    def __init__(self, home):
        self.home = pathlib.Path(home)
        if os.geteuid() == 0:
            os.chmod(home, 0o755)
        ports = free_ports(12)
        self.nodes = [Node(f"node{number}", self.home / f"node{number}", ports[4 * number:4 * number + 4])
                      for number in range(3)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            node.kill()

    def start(self):
        """Starts all nodes, and creates the database and its owner."""
        for node in self.nodes:
            node.start(self.nodes, is_new=True)
        leader = self.wait_until_healthy()
        with contextlib.closing(leader.reach()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE ROLE latchkey LOGIN")
            cursor.execute("CREATE DATABASE latchkey OWNER latchkey")
            cursor.execute("CREATE TABLE probes (at timestamptz)")

    def url(self):
        """The URL of the database, with all nodes."""
        hosts = ",".join(f"{HOST}:{node.postgres}" for node in self.nodes)
        return f"postgres://latchkey@{hosts}/latchkey?target_session_attrs=read-write"

    def members(self):
        """Names of the nodes by role, if all nodes run and replicate on one timeline; otherwise nothing."""
        answers = [answer for node in self.nodes if node.processes and (answer := node.request("/cluster"))]
        if len(answers) < len(self.nodes):
            return {}
        members = json.loads(answers[0])["members"]
        timelines = {member.get("timeline") for member in members}
        is_whole = len(members) == len(self.nodes) and len(timelines) == 1
        if not is_whole or any(member["state"] not in ("running", "streaming") for member in members):
            return {}
        return {member["role"]: self._named(member["name"]) for member in members}

    def _named(self, name):
        return next(node for node in self.nodes if node.name == name)

    def wait_until_healthy(self):
        """Waits until there are a leader, a synchronous standby and another standby. Returns the leader."""
        def leader():
            members = self.members()
            return members["leader"] if {"leader", "sync_standby", "replica"} <= members.keys() else None
        return wait_for(leader, "the cluster is not healthy")

    def switch_over(self, leader):
        """Makes the synchronous standby the leader."""
        answers = []

        def is_done():
            candidate = self.members().get("sync_standby")
            if candidate is None:
                return False
            body = {"leader": leader.name, "candidate": candidate.name}
            answers.append(leader.request("/switchover", body) or "no response")
            return "Successfully" in answers[-1]
        try:
            wait_for(is_done, "the switch-over fails", SWITCH_OVER_TIMEOUT)
        except TimeoutError as error:
            raise RuntimeError(f"{error}: {answers}") from error

    def logs(self):
        """The last lines of the logs."""
        for path in sorted(self.home.glob("*/*.log")) + sorted(self.home.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-25:]
            yield f"--- {path}\n" + "\n".join(lines)


class Probe:
    """Writes to each node every 50 ms, to find out when PostgreSQL itself accepts changes."""

    def __init__(self, nodes):
        self.successes = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(node,), daemon=True) for node in nodes]
        for thread in self._threads:
            thread.start()

    def _run(self, node):
        connection = None
        while not self._stop.wait(0.05):
            try:
                connection = connection or node.connect(target_session_attrs="read-write")
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO probes VALUES (now())")
                self.successes.append(time.monotonic())
            except psycopg2.Error:
                if connection:
                    connection.close()
                connection = None

    def stop(self):
        self._stop.set()

    def outage(self, since):
        """Start and end of the longest time without a success since `since`, where it began at the earliest."""
        times = [since, *sorted(at for at in self.successes if at > since)]
        return max(zip(times, times[1:]), key=lambda gap: gap[1] - gap[0])
