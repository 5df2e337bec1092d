"""Notes that require the scope notes:read. Latchkey checks the credential of each request."""

import os

import httpx
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import APIKeyHeader, OAuth2PasswordBearer

LATCHKEY = os.environ.get("LATCHKEY_URL", "http://127.0.0.1:8080")
latchkey = httpx.AsyncClient(base_url=LATCHKEY, timeout=2)
# Both are for the page /docs only. The page signs in at Latchkey.
password = OAuth2PasswordBearer(f"{LATCHKEY}/token", auto_error=False)
token = APIKeyHeader(name="Token", auto_error=False)


def requires(scope: str):
    async def caller(request: Request, _password=Depends(password), _token=Depends(token)):
        sent = [pair for pair in request.headers.raw if pair[0] in (b"token", b"authorization", b"x-request-id")]
        sent.append((b"x-forwarded-for", request.client.host.encode()))
        try:
            answer = await latchkey.head("/authz", params={"scope": scope}, headers=sent)
        except httpx.HTTPError:
            raise HTTPException(503, headers={"Retry-After": "1"}) from None
        if answer.status_code == 200:
            return answer.headers
        known = answer.status_code in (400, 401, 403, 429, 503)
        passed = {name: answer.headers[name] for name in ("www-authenticate", "retry-after") if name in answer.headers}
        raise HTTPException(answer.status_code if known else 500, headers=passed)

    return Depends(caller)


app = FastAPI(title="Notes")


@app.get("/notes")
def notes(caller=requires("notes:read")):
    return {"user": caller.get("remote-user"), "notes": ["Buy milk"]}
