"""Kills, switches over and cuts off leaders of PostgreSQL under load, and counts what clients of Latchkey notice."""

import argparse
import contextlib
import pathlib
import shutil
import signal
import sys
import tempfile
import time

from cluster import TTL, Cluster, Probe, free_ports, wait_for
from load import Load
from replica import Client, Replica

ADMIN = "root@example.org"
SHORT = ["kill", "switch_over"]
LONG = 5 * SHORT + ["cut_off"]
# Seconds by which the failure of changes may be longer than that of PostgreSQL.
RECOVERY_BOUND = 2.0
# Seconds of load between two events.
PAUSE = 2
# Seconds for which a node is cut off: the cluster has a new leader long before the old one returns.
CUT_OFF = TTL + 20


class Scenario:
    """The events, and the figures of each."""

    def __init__(self, cluster, probe, load):
        self._cluster, self._probe, self._load = cluster, probe, load
        self.failures = []
        # Start and end of each event, from its beginning until changes must succeed again.
        self.windows = []
        self._events = []

    def kill(self):
        """Kills all processes of the leader's node, and restarts the node after the failover."""
        leader = self._cluster.wait_until_healthy()
        began = time.monotonic()
        leader.kill()
        self._wait_for_new_leader(leader)
        time.sleep(PAUSE)
        leader.start(self._cluster.nodes, is_new=False)
        self._finish(f"kill -9 of {leader.name}", began)

    def switch_over(self):
        """Moves the leader's role to the synchronous standby."""
        leader = self._cluster.wait_until_healthy()
        began = time.monotonic()
        self._cluster.switch_over(leader)
        self._finish(f"switch-over from {leader.name}", began)

    def cut_off(self):
        """Stops all processes of the leader's node. It accepts connections and does not answer, and then returns."""
        leader = self._cluster.wait_until_healthy()
        began = time.monotonic()
        leader.signal(signal.SIGSTOP)
        self._wait_for_new_leader(leader)
        time.sleep(max(0, began + CUT_OFF - time.monotonic()))
        self._judge(f"{leader.name} is cut off", began)
        returned = time.monotonic()
        leader.signal(signal.SIGCONT)
        self._finish(f"{leader.name} returns", returned)

    def _wait_for_new_leader(self, old):
        others = [node for node in self._cluster.nodes if node is not old]
        wait_for(lambda: any(node.request("/primary") for node in others), "there is no new leader", 90)
        time.sleep(PAUSE)

    def _finish(self, event, began):
        self._cluster.wait_until_healthy()
        time.sleep(PAUSE)
        self._judge(event, began)

    def _judge(self, event, began):
        """Compares the outage of PostgreSQL with that of each replica."""
        down, up = self._probe.outage(began)
        self.windows.append((began, up + RECOVERY_BOUND))
        self._events.append((event, began, up))
        line = f"{event}: PostgreSQL accepts no changes for {up - down:.2f} s"
        for name, answers in self._load.record.changes.items():
            answers = [answer for answer in answers if answer.sent > began]
            failed = [answer for answer in answers if not answer.is_success]
            # Both in seconds after PostgreSQL accepts changes again.
            last = max((answer.sent - up for answer in failed), default=0)
            first = min((answer.received - up for answer in answers if answer.is_success and answer.received > up),
                        default=float("inf"))
            line += f"; {name}: {len(failed)} changes failed"
            line += f", the last was sent {last:+.2f} s after that" if failed else ""
            if max(first, last) > RECOVERY_BOUND:
                self.failures.append(f"{event}: {name}: first success {first:+.2f} s, last failure {last:+.2f} s")
        print(line, flush=True)

    def place(self, moment):
        """Describes a moment by the last event before it."""
        before = [event for event in self._events if event[1] <= moment]
        if not before:
            return "before the first event"
        event, began, up = before[-1]
        return f"{moment - began:.2f} s after {event} began, {moment - up:+.2f} s after the outage"

    def is_in_window(self, moment):
        """Whether a replica may have served a stale credential at this moment."""
        return any(began <= moment <= end for began, end in self.windows)


def check(cluster, replicas, scenario, record):
    """Compares what is stored with what was acknowledged, and prints the counts."""
    leader = cluster.wait_until_healthy()
    with contextlib.closing(leader.reach("latchkey")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id, title FROM pages")
        stored = dict(cursor.fetchall())
    lost = [page for page, title in record.pages.items() if stored.get(page) != title]
    titles = set(stored.values())
    refused = [title for title in record.refused_pages if title in titles]
    lost_keys, revived = [], []
    for replica in replicas:
        client = Client(replica.port)
        answers = [client.settled("GET", "/protected-route", key) for key in record.valid]
        lost_keys += [answer for answer in answers if answer.status != 200]
        answers = [client.settled("GET", "/protected-route", one.secret) for one in record.revoked]
        revived += [answer for answer in answers if answer.status not in (401, 403)]
    late = [seen for seen in record.accepted if not scenario.is_in_window(seen[2])]
    changes = sum(len(answers) for answers in record.changes.values())
    acknowledged = sum(answer.is_success for answers in record.changes.values() for answer in answers)
    panics = [line for replica in replicas for line in replica.log() if "panic" in line]
    counts = [
        ("acknowledged writes lost", len(lost) + len(lost_keys),
         f"of {len(record.pages)} pages and {len(record.valid)} keys; {acknowledged} of {changes} changes acknowledged"),
        ("changes answered with 503 that are stored", len(refused), f"of {len(record.refused_pages)}"),
        ("revoked credentials valid again", len(record.accepted_again) + len(revived),
         f"of {len(record.revoked)}, presented {record.attempts} times"),
        ("revoked credentials valid after 1 s without an outage", len(late),
         f"{len(record.accepted) - len(late)} served stale during one"),
        ("reads by known credentials that failed", len(record.failed_reads), f"of {record.reads}"),
        ("unexpected responses", len(record.unexpected), "; ".join(record.unexpected[:3])),
        ("panics", len(panics), ""),
    ]
    for name, count, remark in counts:
        print(f"{name}: {count} {'(' + remark + ')' if remark else ''}")
        if count:
            scenario.failures.append(f"{name}: {count}")
    for answer in (lost_keys + revived)[:10]:
        print(f"   after the load: {answer}")
    for name, answer in record.failed_reads[:10]:
        print(f"   {scenario.place(answer.sent)}: {name}, after {answer.received - answer.sent:.3f} s: {answer}")
    if not record.pages or not record.revoked or not record.reads:
        scenario.failures.append(f"there was no load: {len(record.pages)} pages, {len(record.revoked)} revocations, "
                                 f"{record.reads} reads")


def run(cluster, events):
    """Runs these events. Returns the failures."""
    cluster.start()
    ports = free_ports(2)
    replicas = [Replica(f"replica{number}", cluster.home, cluster.url(), port) for number, port in enumerate(ports, 1)]
    with contextlib.ExitStack() as stack:
        for number, replica in enumerate(replicas):
            stack.enter_context(replica)
            if number == 0:
                replica.create_admin(ADMIN)
        probe = Probe(cluster.nodes)
        stack.callback(probe.stop)
        load = Load(replicas, ADMIN)
        with load:
            time.sleep(PAUSE)
            scenario = Scenario(cluster, probe, load)
            for event in events:
                getattr(scenario, event)()
        check(cluster, replicas, scenario, load.record)
    return scenario.failures


def main():
    parser = argparse.ArgumentParser(prog="tests/ha/run", description=__doc__)
    parser.add_argument("--short", action="store_true", help="one kill and one switch-over")
    parser.add_argument("events", nargs="*", choices=[[], *sorted(set(LONG))], help="only these events, in this order")
    parser.add_argument("--keep", action="store_true", help="keep the directory with data and logs")
    arguments = parser.parse_args()
    # The processes of the cluster end with this one.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    home = pathlib.Path(tempfile.mkdtemp(prefix="latchkey-ha-"))
    began = time.monotonic()
    try:
        with Cluster(home) as cluster:
            try:
                failures = run(cluster, arguments.events or (SHORT if arguments.short else LONG))
            except Exception:
                print(*cluster.logs(), sep="\n", file=sys.stderr)
                raise
            if failures:
                print(*cluster.logs(), sep="\n", file=sys.stderr)
    finally:
        if arguments.keep:
            print(f"kept: {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    print(f"{'failed' if failures else 'passed'} after {time.monotonic() - began:.0f} s")
    for failure in failures:
        print(f"FAILED: {failure}")
    sys.exit(1 if failures else 0)


main()
