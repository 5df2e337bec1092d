"""Uses the package that openapi-python-client generated. Fails if a response differs from what is expected here."""

import sys

from latchkey_client import AuthenticatedClient, Client
from latchkey_client.api.my_account import me
from latchkey_client.api.my_api_keys import create_key, revoke_key
from latchkey_client.api.pages import create_page, list_pages, replace_page
from latchkey_client.api.sign_in import protected_route, register, sign_in
from latchkey_client.api.sign_out import sign_out
from latchkey_client.models import (
    KeyCreateRequest,
    OAuthError,
    PageCreateRequest,
    PageRequest,
    Problem,
    RegisterRequest,
    Scope,
    SignInBody,
    SignInBodyGrantType,
)

url, profile = sys.argv[1:]
PASSWORD = "a garden of forking paths"
GRANT = SignInBodyGrantType.PASSWORD

# Responses that the document does not describe raise an exception.
anonymous = Client(base_url=url, raise_on_unexpected_status=True)

new = RegisterRequest(name="Edsger", surname="Dijkstra", email="edsger@example.org", password=PASSWORD)
user = register.sync(client=anonymous, body=new)
assert (user.name, user.role, user.disabled) == ("Edsger", "member", False), user
assert user.created_at.tzinfo is not None

repeated = register.sync_detailed(client=anonymous, body=new)
assert isinstance(repeated.parsed, Problem), repeated
assert (repeated.status_code, repeated.parsed.code) == (409, "email_taken")

invalid = RegisterRequest(name="E", surname="", email="nowhere", password=PASSWORD)
problem = register.sync(client=anonymous, body=invalid)
assert isinstance(problem, Problem)
assert (problem.status, problem.code) == (422, "invalid")
assert {(one.field, one.code) for one in problem.errors} == {("email", "email"), ("name", "length")}
assert problem.request_id

wrong = sign_in.sync_detailed(client=anonymous, body=SignInBody(username=user.email, password="x", grant_type=GRANT))
assert isinstance(wrong.parsed, OAuthError), wrong
assert (wrong.status_code, wrong.parsed.error) == ({"fastapi": 401, "rfc": 400}[profile], "invalid_grant")

token = sign_in.sync(client=anonymous, body=SignInBody(username=user.email, password=PASSWORD, grant_type=GRANT))
assert token.expires_in == 86400
edsger = AuthenticatedClient(base_url=url, token=token.access_token, raise_on_unexpected_status=True)
assert me.sync(client=edsger) == user

page = create_page.sync(client=edsger, body=PageCreateRequest(title="EWD", body="Two or more, use a for"))
assert (page.owner, page.version) == (user.id, 1)
edited = PageRequest(title="EWD 498", body=page.body)
stale = replace_page.sync_detailed(page.id, client=edsger, body=edited, if_match='"7"')
assert (stale.status_code, stale.parsed.code) == (412, "stale")
page = replace_page.sync(page.id, client=edsger, body=edited, if_match='"1"')
assert (page.title, page.version) == ("EWD 498", 2)
listed = list_pages.sync(client=edsger, size=1)
assert (listed.page, listed.size, listed.total, listed.next_) == (1, 1, 1, None)
assert [item.to_dict() for item in listed.items] == [page.to_dict()]
out_of_range = list_pages.sync(client=edsger, size=0)
assert [(one.field, one.code) for one in out_of_range.errors] == [("size", "range")]

request = KeyCreateRequest(name="reader", scopes=[Scope.PAGESREAD])
key = create_key.sync(client=edsger, body=request)
assert (key.name, key.scopes, key.expires_at) == ("reader", ["pages:read"], None)
reader = AuthenticatedClient(base_url=url, token=key.key, prefix="", auth_header_name="Token")
assert protected_route.sync(client=reader).hello == "Edsger"
assert list_pages.sync(client=reader).items == listed.items
denied = create_page.sync_detailed(client=reader, body=PageCreateRequest(title="t", body="b"))
assert (denied.status_code, denied.parsed.code) == (403, "insufficient_scope")
assert revoke_key.sync_detailed(key.id, client=edsger).status_code == 204
revoked = protected_route.sync_detailed(client=reader)
assert (revoked.status_code, revoked.parsed.code) == ({"fastapi": 403, "rfc": 401}[profile], "invalid_token")

assert sign_out.sync_detailed(client=edsger).status_code == 204
assert me.sync_detailed(client=edsger).status_code == 401
print("done")
