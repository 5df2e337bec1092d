"""An independent SMTP server (aiosmtpd) with STARTTLS and AUTH receives the mails, and their links work."""

import asyncio
import email
import email.policy
import re
import ssl
import subprocess
import time

import requests
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult

from conftest import PASSWORD, free_port

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
