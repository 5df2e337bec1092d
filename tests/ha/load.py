"""Load on the replicas: reads by known credentials, changes, and attempts to use revoked credentials."""

import dataclasses
import random
import threading
import time

from replica import Client

# Threads of each replica.
READERS = 3
WRITERS = 2
# Keys of a user that stay valid. All further ones are revoked. Latchkey allows 100.
KEPT_KEYS = 40
# Seconds within which a replica must see a revocation by another one.
REVOCATION_BOUND = 1.0


@dataclasses.dataclass
class Revoked:
    """A credential and the moment at which its revocation was acknowledged."""

    secret: str
    at: float
    # Names of the replicas that have rejected it since.
    rejected_by: set = dataclasses.field(default_factory=set)


@dataclasses.dataclass
class Record:
    """What the load observed. Lists are only appended to."""

    reads: int = 0
    failed_reads: list = dataclasses.field(default_factory=list)
    # Answers of changes by replica.
    changes: dict = dataclasses.field(default_factory=dict)
    unexpected: list = dataclasses.field(default_factory=list)
    pages: dict = dataclasses.field(default_factory=dict)
    refused_pages: list = dataclasses.field(default_factory=list)
    valid: list = dataclasses.field(default_factory=list)
    revoked: list = dataclasses.field(default_factory=list)
    attempts: int = 0
    # Replica, credential and time of each accepted use after the bound.
    accepted: list = dataclasses.field(default_factory=list)
    # The same for uses after that replica had rejected the credential.
    accepted_again: list = dataclasses.field(default_factory=list)


class Load:
    """Threads that send requests until the context is left."""

    def __init__(self, replicas, admin):
        self.record = Record()
        self._replicas = replicas
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = []
        first = Client(replicas[0].port)
        token = first.new_token(admin)
        key = first.must("POST", "/me/keys", token, {"name": "service", "scopes": ["tokens:introspect"]})["key"]
        known = [first.new_user(f"reader{number}@example.org") for number in range(READERS)]
        for replica in replicas:
            self.record.changes[replica.name] = []
            for number in range(READERS):
                self._add(self._read, replica, known[number], key, number)
            for number in range(WRITERS):
                email = f"{replica.name}-writer{number}@example.org"
                self._add(self._write, replica, first.new_user(email), email)
            self._add(self._use_revoked, replica)

    def _add(self, work, *arguments):
        self._threads.append(threading.Thread(target=self._guarded, args=(work, *arguments), daemon=True))

    def _guarded(self, work, *arguments):
        try:
            work(*arguments)
        except Exception as error:  # pylint: disable=broad-except
            self.record.unexpected.append(f"{work.__name__}: {error!r}")

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _read(self, replica, token, key, number):
        """Reads with a known credential, in turn through the guard, forward-auth and introspection."""
        client = Client(replica.port)
        requests = [
            lambda: client.send("GET", "/protected-route", token),
            lambda: client.send("GET", "/authz", token),
            lambda: client.send("POST", "/introspect", key, form={"token": token}),
        ]
        while not self._stop.wait(0.02):
            answer = requests[number]()
            with self._lock:
                self.record.reads += 1
            if answer.status != 200 or answer.body.get("active") is False:
                self.record.failed_reads.append((replica.name, answer))

    def _write(self, replica, token, email):
        """Writes pages, creates and revokes keys, and signs in again, which revokes the token before."""
        client = Client(replica.port)
        others = [Client(other.port) for other in self._replicas]
        kept = 0
        for number in range(1_000_000):
            if self._stop.wait(0.05):
                return
            title = f"{email} {number}"
            page = self._change(replica, client, "POST", "/page/", token, {"title": title, "body": "text"})
            if page.is_success:
                self.record.pages[page.body["id"]] = title
            elif page.status == 503:
                self.record.refused_pages.append(title)
            key = self._change(replica, client, "POST", "/me/keys", token, {"name": title, "scopes": []})
            if not key.is_success:
                continue
            if kept < KEPT_KEYS and number % 8 == 0:
                kept += 1
                self.record.valid.append(key.body["key"])
                continue
            # Both replicas know the key before it is revoked.
            for other in others:
                other.send("GET", "/protected-route", key.body["key"])
            deleted = self._change(replica, client, "DELETE", f"/me/keys/{key.body['id']}", token)
            if deleted.is_success:
                self.record.revoked.append(Revoked(key.body["key"], deleted.received))
            if number % 20 == 10:
                answer = self._note(replica, client.sign_in(email))
                if answer.is_success:
                    self.record.revoked.append(Revoked(token, answer.received))
                    token = answer.body["access_token"]
                elif answer.status == 504:
                    # The token may have been replaced.
                    token = self._sign_in_again(client, email)

    def _sign_in_again(self, client, email):
        while not (answer := client.sign_in(email)).is_success:
            self._stop.wait(0.5)
        return answer.body["access_token"]

    def _change(self, replica, client, method, path, token, body=None):
        return self._note(replica, client.send(method, path, token, body))

    def _note(self, replica, answer):
        self.record.changes[replica.name].append(answer)
        # A deletion whose outcome was unknown is never repeated, so 404 is unexpected, too.
        if not answer.is_success and not answer.is_temporary:
            self.record.unexpected.append(f"{replica.name}: {answer}")
        return answer

    def _use_revoked(self, replica):
        """Presents the newest revoked credentials and some older ones."""
        client = Client(replica.port)
        while not self._stop.wait(0.01):
            revoked = self.record.revoked
            for credential in [*revoked[-8:], *random.sample(revoked, min(4, len(revoked)))]:
                answer = client.send("GET", "/protected-route", credential.secret)
                self.record.attempts += 1
                if answer.status in (401, 403):
                    credential.rejected_by.add(replica.name)
                elif answer.status == 200:
                    self._accepted(replica, credential, answer)
                time.sleep(0.005)

    def _accepted(self, replica, credential, answer):
        seen = (replica.name, credential.at, answer.sent)
        if replica.name in credential.rejected_by:
            self.record.accepted_again.append(seen)
        if answer.sent > credential.at + REVOCATION_BOUND:
            self.record.accepted.append(seen)
