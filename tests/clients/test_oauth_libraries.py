"""Unmodified OAuth libraries, which are configured with the server metadata (RFC 8414)."""

import asyncio

import pytest
import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.integrations.httpx_client import OAuth2Client as HttpxSession
from authlib.integrations.requests_client import OAuth2Session as RequestsSession
from authlib.oauth2.rfc6749 import MissingAuthorizationError, OAuth2Request, ResourceProtector
from authlib.oauth2.rfc6750 import InsufficientScopeError, InvalidTokenError
from authlib.oauth2.rfc7662 import IntrospectTokenValidator
from oauthlib.oauth2 import InvalidGrantError, InvalidScopeError, LegacyApplicationClient
from requests_oauthlib import OAuth2Session

from conftest import PASSWORD, scopes_of

GRACE = {"username": "grace@example.org", "password": PASSWORD}
ADA = {"username": "ada@example.org", "password": PASSWORD}
WRONG = {"username": "grace@example.org", "password": "wrong horse battery"}


@pytest.fixture(autouse=True)
def plain_http(monkeypatch):
    """Allows plain HTTP, because oauthlib requires https by default."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


@pytest.fixture
def metadata(latchkey):
    """The server metadata (RFC 8414)."""
    metadata = requests.get(f"{latchkey.url}/.well-known/oauth-authorization-server", timeout=10).json()
    assert metadata["issuer"] == latchkey.url, "clients reject another issuer (section 3.3)"
    return metadata


@pytest.fixture(params=[RequestsSession, HttpxSession], ids=["requests", "httpx"])
def session_of(request, metadata):
    """Creates sessions of Authlib with the server metadata, and closes them."""
    opened = []

    def session(**client):
        opened.append(request.param(**client, **metadata))
        return opened[-1]

    yield session
    for one in opened:
        one.close()


def wrong_password_status(profile):
    """The status for a wrong password, which the status profile selects."""
    return {"fastapi": 401, "rfc": 400}[profile]


def statuses_of(session):
    """Returns a list to which each status of the token endpoint is added."""
    statuses = []

    def record(answer):
        statuses.append(answer.status_code)
        return answer

    session.register_compliance_hook("access_token_response", record)
    return statuses


def test_requests_oauthlib_signs_in_with_any_client_authentication(latchkey, metadata):
    for client_id, options in [
        ("", {}),
        # Sends HTTP Basic with an empty secret, its default.
        ("my-app", {}),
        ("my-app", {"client_secret": "unknown secret"}),
        ("my-app", {"include_client_id": True}),
        ("my-app", {"include_client_id": True, "client_secret": ""}),
        ("my-app", {"include_client_id": True, "client_secret": "unknown secret"}),
    ]:
        session = OAuth2Session(client=LegacyApplicationClient(client_id=client_id))
        session.fetch_token(metadata["token_endpoint"], **GRACE, **options)
        assert session.get(f"{latchkey.url}/protected-route").json() == {"hello": "Grace"}, (client_id, options)


def test_requests_oauthlib_narrows_a_token(latchkey, metadata):
    narrow = OAuth2Session(client=LegacyApplicationClient(client_id="", scope=["pages:read"]))
    token = narrow.fetch_token(metadata["token_endpoint"], **GRACE)
    assert token["scope"] == ["pages:read"]
    assert narrow.get(f"{latchkey.url}/page/").status_code == 200
    refused = narrow.post(f"{latchkey.url}/page/", json={"title": "t", "body": "b"})
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")

    excessive = OAuth2Session(client=LegacyApplicationClient(client_id="", scope=["users:write"]))
    with pytest.raises(InvalidScopeError):
        excessive.fetch_token(metadata["token_endpoint"], **GRACE)


def test_requests_oauthlib_reports_a_wrong_password(metadata, profile):
    session = OAuth2Session(client=LegacyApplicationClient(client_id=""))
    statuses = statuses_of(session)
    with pytest.raises(InvalidGrantError) as refusal:
        session.fetch_token(metadata["token_endpoint"], **WRONG)
    assert refusal.value.description
    assert statuses == [wrong_password_status(profile)]
    assert not session.authorized


def test_oauthlib_revokes_a_token(latchkey, metadata):
    client = LegacyApplicationClient(client_id="my-app")
    session = OAuth2Session(client=client)
    token = session.fetch_token(metadata["token_endpoint"], **GRACE)
    url, headers, body = client.prepare_token_revocation_request(metadata["revocation_endpoint"], token["access_token"])
    assert requests.post(url, headers=headers, data=body, timeout=10).status_code == 200
    assert session.get(f"{latchkey.url}/protected-route").status_code == 401


def test_authlib_signs_in_with_any_client_authentication(latchkey, session_of):
    for client in [
        {},
        {"client_id": "my-app"},
        # Sends HTTP Basic, its default.
        {"client_id": "my-app", "client_secret": "unknown secret"},
        {"client_id": "my-app", "client_secret": "", "token_endpoint_auth_method": "client_secret_basic"},
        {"client_id": "my-app", "client_secret": "", "token_endpoint_auth_method": "client_secret_post"},
        {"client_id": "my-app", "client_secret": "unknown", "token_endpoint_auth_method": "client_secret_post"},
    ]:
        session = session_of(**client)
        token = session.fetch_token(**GRACE)
        assert (token["token_type"], token["expires_in"]) == ("bearer", 86400), client
        assert session.get(f"{latchkey.url}/protected-route").json() == {"hello": "Grace"}, client


def test_authlib_narrows_a_token(latchkey, session_of):
    session = session_of(scope="pages:read")
    assert session.fetch_token(**GRACE)["scope"] == "pages:read"
    assert session.get(f"{latchkey.url}/page/").status_code == 200
    refused = session.post(f"{latchkey.url}/page/", json={"title": "t", "body": "b"})
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    with pytest.raises(OAuthError) as refusal:
        session.fetch_token(scope="users:write", **GRACE)
    assert refusal.value.error == "invalid_scope"


def test_authlib_reports_a_wrong_password(session_of, profile):
    session = session_of()
    statuses = statuses_of(session)
    with pytest.raises(OAuthError) as refusal:
        session.fetch_token(**WRONG)
    assert refusal.value.error == "invalid_grant"
    assert refusal.value.description
    assert statuses == [wrong_password_status(profile)]
    assert not session.token


def test_authlib_revokes_and_introspects_a_token(latchkey, session_of, metadata):
    grace = session_of(client_id="my-app")
    token = grace.fetch_token(**GRACE)["access_token"]
    service = session_of(client_id="service", client_secret=introspecting_key(latchkey))

    def introspect():
        answer = service.introspect_token(metadata["introspection_endpoint"], token=token)
        assert answer.status_code == 200, answer.text
        return answer.json()

    before = introspect()
    assert (before["active"], before["username"], before["token_type"]) == (True, "grace@example.org", "Bearer")
    assert (before["iss"], before["sub"].split(":")[0]) == (latchkey.url, "user")
    assert set(before["scope"].split()) == scopes_of("member")
    assert before["exp"] - before["iat"] == 86400

    assert grace.revoke_token(metadata["revocation_endpoint"], token_type_hint="access_token").status_code == 200
    assert introspect() == {"active": False}
    assert grace.get(f"{latchkey.url}/protected-route").status_code == 401


def test_authlib_introspects_the_external_scope_of_an_issued_key(latchkey, session_of, metadata):
    service = session_of(client_id="translator", client_secret=introspecting_key(latchkey))
    issued = issued_key(latchkey)
    response = service.introspect_token(metadata["introspection_endpoint"], token=issued["key"]).json()
    assert (response["active"], response["scope"], response["username"]) == (True, "translate:use", "Charles")
    assert response["sub"] == f"key:{issued['id']}"
    assert "exp" not in response

    buyer = session_of(client_id="buyer")
    assert buyer.revoke_token(metadata["revocation_endpoint"], token=issued["key"]).status_code == 200
    assert service.introspect_token(metadata["introspection_endpoint"], token=issued["key"]).json() == {"active": False}


def test_authlib_introspects_with_the_token_of_an_admin(session_of, metadata):
    ada = session_of()
    token = ada.fetch_token(**ADA)["access_token"]
    response = ada.introspect_token(metadata["introspection_endpoint"], token=token, auth=ada.token_auth)
    assert (response.status_code, response.json()["username"]) == (200, "ada@example.org")


def test_authlib_gets_invalid_client_for_a_credential_that_must_not_introspect(latchkey, session_of, metadata):
    for secret in [latchkey.key("pages:read")["key"], "unknown secret"]:
        service = session_of(client_id="service", client_secret=secret)
        denied = service.introspect_token(metadata["introspection_endpoint"], token="x")
        assert (denied.status_code, denied.json()["error"]) == (401, "invalid_client")


def test_authlib_signs_in_and_revokes_without_blocking(latchkey, metadata):
    async def use_session():
        async with AsyncOAuth2Client(client_id="my-app", **metadata) as session:
            await session.fetch_token(**GRACE)
            hello = await session.get(f"{latchkey.url}/protected-route")
            revoked = await session.revoke_token(metadata["revocation_endpoint"])
            after = await session.get(f"{latchkey.url}/protected-route")
            return hello.json(), revoked.status_code, after.status_code

    assert asyncio.run(use_session()) == ({"hello": "Grace"}, 200, 401)


def test_a_service_guarded_by_authlib_accepts_issued_keys(latchkey, session_of, metadata):
    service = session_of(client_id="translator", client_secret=introspecting_key(latchkey))

    class Validator(IntrospectTokenValidator):
        def introspect_token(self, token_string):
            return service.introspect_token(metadata["introspection_endpoint"], token=token_string).json()

    protector = ResourceProtector()
    protector.register_token_validator(Validator())

    def ask(scope, headers):
        return protector.validate_request([scope], OAuth2Request("GET", "https://translate.example.org/", headers=headers))

    issued = issued_key(latchkey)
    buyer = {"Authorization": f"Bearer {issued['key']}"}
    assert ask("translate:use", buyer)["sub"] == f"key:{issued['id']}"
    with pytest.raises(InsufficientScopeError):
        ask("translate:train", buyer)
    with pytest.raises(MissingAuthorizationError):
        ask("translate:use", {})
    session_of().revoke_token(metadata["revocation_endpoint"], token=issued["key"])
    with pytest.raises(InvalidTokenError):
        ask("translate:use", buyer)


def introspecting_key(latchkey):
    """A key for a service that introspects the keys of its users."""
    return latchkey.key("tokens:introspect", email="ada@example.org")["key"]


def issued_key(latchkey):
    """An issued key with an external scope."""
    shop = latchkey.key("keys:issue", email="ada@example.org")["key"]
    response = requests.post(
        f"{latchkey.url}/keys",
        json={"name": "Charles", "scopes": ["translate:use"]},
        headers={"Token": shop},
        timeout=10,
    )
    assert response.status_code == 201, response.text
    return response.json()
