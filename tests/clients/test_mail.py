"""Independent SMTP servers, aiosmtpd and postfix, receive the mails, and their links work."""

import asyncio
import email
import email.policy
import os
import re
import shutil
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import requests
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult

from conftest import PASSWORD, free_port, wait_for

USER, SMTP_PASSWORD = "latchkey@example.org", "p:w/d@1"


class Mailbox:
    def __init__(self, needs_tls=True, seconds=0):
        self.mails, self.needs_tls, self.seconds = [], needs_tls, seconds

    async def handle_DATA(self, server, session, envelope):
        assert session.ssl is not None or not self.needs_tls, "the connection is encrypted"
        self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        if envelope.rcpt_tos[0].startswith("slow"):
            await asyncio.sleep(self.seconds)
        return "250 OK"

    def wait(self, subject, to="grace@example.org"):
        for _ in range(200):
            found = [mail for mail in self.mails if (mail["Subject"], mail["To"]) == (subject, to)]
            if found:
                return found[-1]
            time.sleep(0.05)
        raise AssertionError([mail["Subject"] for mail in self.mails])


def certificate(folder):
    """A certification authority, and a certificate of it for localhost, made by openssl."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    (folder / "leaf.cnf").write_text("subjectAltName = DNS:localhost\nbasicConstraints = CA:FALSE\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=Test CA")
    openssl("req", *key, "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=localhost")
    signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "leaf.cnf"]
    openssl("x509", "-req", "-in", "leaf.csr", "-out", "leaf.crt", *signed)


def authenticate(server, session, envelope, mechanism, data):
    is_right = (data.login, data.password) == (USER.encode(), SMTP_PASSWORD.encode())
    return AuthResult(success=is_right, handled=is_right)


def test_aiosmtpd_receives_mails_and_their_links_work(start, tmp_path):
    certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "leaf.crt", tmp_path / "leaf.key")
    mailbox = Mailbox()

    class WithStarttls(Controller):
        def factory(self):
            return SMTP(
                self.handler, tls_context=context, require_starttls=True, authenticator=authenticate, auth_required=True
            )

    port = free_port()
    controller = WithStarttls(mailbox, hostname="localhost", port=port)
    controller.start()
    try:
        latchkey = start(
            f"""
            [mail]
            url = "smtp://latchkey%40example.org:p%3Aw%2Fd%401@localhost:{port}"
            ca_file = "{tmp_path}/ca.crt"
            from = "Example <no-reply@example.org>"
            """
        )
        sent = latchkey.command("mail", "test", "grace@example.org")
        assert sent.startswith("sent a test mail to grace@example.org by smtp://***:***@localhost:"), sent
        answer = requests.post(f"{latchkey.url}/password-reset", json={"email": "grace@example.org"}, timeout=10)
        assert (answer.status_code, answer.text) == (202, "")
        mail = mailbox.wait("Set a new password")
        assert mail["To"] == "grace@example.org" and mail["Auto-Submitted"] == "auto-generated"
        assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
        text = mail.get_body(("plain",)).get_content()
        link = re.search(rf"^{latchkey.url}/console/#/password-reset/(lkm_\w+)\r?$", text, re.M)
        assert link, text
        body = {"secret": link[1], "new_password": PASSWORD}
        answer = requests.post(f"{latchkey.url}/password-reset/confirm", json=body, timeout=10)
        assert answer.status_code == 204, answer.text
        latchkey.sign_in()
    finally:
        controller.stop()


def test_a_slow_recipient_delays_no_other_mail_and_a_stop_waits_for_its_answer(start):
    mailbox, port = Mailbox(needs_tls=False, seconds=4), free_port()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        latchkey = start(
            f"""
            [mail]
            url = "smtp://127.0.0.1:{port}"
            starttls = "none"
            from = "no-reply@example.org"
            """
        )
        body = {"name": "Slowly", "surname": "", "website": "", "password": PASSWORD}
        answer = requests.post(f"{latchkey.url}/register", json={**body, "email": "slow@example.org"}, timeout=10)
        assert answer.status_code == 201, answer.text
        mailbox.wait("Verify your e-mail address", "slow@example.org")
        began = time.monotonic()
        requests.post(f"{latchkey.url}/password-reset", json={"email": "grace@example.org"}, timeout=10)
        mailbox.wait("Set a new password")
        assert time.monotonic() - began < 3
        latchkey.stop()
        assert latchkey.process.returncode == 0
        latchkey.start()
        requests.post(f"{latchkey.url}/password-reset", json={"email": "ada@example.org"}, timeout=10)
        mailbox.wait("Set a new password", "ada@example.org")
        assert [mail["To"] for mail in mailbox.mails].count("slow@example.org") == 1, "it is not sent again"
    finally:
        controller.stop()


MAIN_CF = """
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {home}/log
maillog_file_prefixes = {home}
myhostname = localhost
alias_maps =
mydestination =
inet_protocols = ipv4
smtpd_tls_security_level = encrypt
smtpd_tls_cert_file = {certificates}/leaf.crt
smtpd_tls_key_file = {certificates}/leaf.key
smtpd_relay_restrictions = reject_unauth_destination
virtual_mailbox_domains = example.org
virtual_mailbox_base = {home}/mail
virtual_mailbox_maps = inline:{{ grace@example.org=grace/ }}
virtual_minimum_uid = 1
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
"""
MASTER_CF = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


@pytest.fixture
def postfix(tmp_path):
    """Debian's postfix, which delivers mails to grace@example.org into a directory, and knows no other address."""
    if os.geteuid() != 0 or not Path("/usr/sbin/postfix").exists():
        pytest.skip("requires root, and the package postfix")
    certificate(tmp_path)
    port = free_port()
    # Its processes have users of their own, who cannot enter the folder of the test.
    with tempfile.TemporaryDirectory(prefix="latchkey-postfix-") as name:
        home = Path(name)
        home.chmod(0o755)
        for folder, owner in [("etc", "root"), ("queue", "root"), ("data", "postfix"), ("mail", "nobody")]:
            (home / folder).mkdir()
            shutil.chown(home / folder, owner)
        (home / "etc/main.cf").write_text(MAIN_CF.format(home=home, certificates=tmp_path))
        (home / "etc/master.cf").write_text(MASTER_CF.format(port=port))
        command = ["/usr/sbin/postfix", "-c", home / "etc"]
        process = subprocess.Popen([*command, "start-fg"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(port, process)
            yield port, home
        finally:
            subprocess.run([*command, "stop"], check=True, capture_output=True)
            process.wait(15)


def test_postfix_delivers_mails_whose_links_work_and_refuses_unknown_recipients(start, postfix, tmp_path):
    port, home = postfix
    latchkey = start(
        f"""
        [mail]
        url = "smtp://localhost:{port}"
        ca_file = "{tmp_path}/ca.crt"
        from = "Example <no-reply@example.org>"
        """
    )
    latchkey.command("mail", "test", "grace@example.org")
    for address in ["grace@example.org", "ada@example.org"]:
        answer = requests.post(f"{latchkey.url}/password-reset", json={"email": address}, timeout=10)
        assert answer.status_code == 202, answer.text
    mail = eventually(home, lambda: delivered(home, "Set a new password"))
    assert (mail["To"], mail["Delivered-To"]) == ("grace@example.org", "grace@example.org")
    assert "with ESMTPS" in mail["Received"], "the connection is encrypted"
    text = mail.get_body(("plain",)).get_content()
    secret = re.search(r"#/password-reset/(lkm_\w+)", text)[1]
    body = {"secret": secret, "new_password": PASSWORD}
    answer = requests.post(f"{latchkey.url}/password-reset/confirm", json=body, timeout=10)
    assert answer.status_code == 204, answer.text
    latchkey.sign_in()
    eventually(home, lambda: delivered(home, "Your password was changed"))
    eventually(home, lambda: "550 5.1.1 <ada@example.org>" in (home / "log").read_text())


def delivered(home, subject):
    """The mail with this subject in the mailbox of Grace, or None."""
    files = (home / "mail/grace/new").glob("*")
    mails = [email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files]
    return next((mail for mail in mails if mail["Subject"] == subject), None)


def eventually(home, find):
    """Waits until `find` returns something."""
    for _ in range(200):
        if found := find():
            return found
        time.sleep(0.05)
    raise AssertionError((home / "log").read_text())
