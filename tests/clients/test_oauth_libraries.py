"""OAuth libraries as they come from their registry."""

from oauthlib.oauth2 import LegacyApplicationClient
from requests_oauthlib import OAuth2Session

from conftest import PASSWORD


def test_requests_oauthlib_signs_in_and_uses_the_token(latchkey, monkeypatch):
    # It insists on TLS, and the server is on this machine.
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    session = OAuth2Session(client=LegacyApplicationClient(client_id=""))
    session.fetch_token(f"{latchkey.url}/token", username="grace@example.org", password=PASSWORD)
    assert session.get(f"{latchkey.url}/protected-route").json() == {"hello": "Grace"}
