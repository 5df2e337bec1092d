// Notes that require the scope notes:read. Latchkey checks the credential of each request.
import express from "express";

const { LATCHKEY_URL = "http://127.0.0.1:8080", PORT = "8002" } = process.env;

const requires = (scope) => async (request, response, next) => {
  const url = `${LATCHKEY_URL}/authz?scope=${encodeURIComponent(scope)}`;
  const sent = { "X-Forwarded-For": request.ip };
  for (const name of ["Token", "Authorization", "X-Request-Id"]) if (request.get(name)) sent[name] = request.get(name);
  let answer;
  try {
    answer = await fetch(url, { headers: sent, redirect: "manual", signal: AbortSignal.timeout(2000) });
    // fetch uses the connection again after the body has been read. After HEAD, it closes the connection.
    await answer.arrayBuffer();
  } catch {
    return response.set("Retry-After", "1").sendStatus(503);
  }
  if (answer.status === 200) {
    response.locals.caller = answer.headers;
    return next();
  }
  for (const name of ["WWW-Authenticate", "Retry-After"])
    if (answer.headers.has(name)) response.set(name, answer.headers.get(name));
  response.sendStatus([400, 401, 403, 429, 503].includes(answer.status) ? answer.status : 500);
};

const app = express();
app.get("/notes", requires("notes:read"), (_request, response) => {
  response.json({ user: response.locals.caller.get("Remote-User"), notes: ["Buy milk"] });
});
app.listen(Number(PORT), "127.0.0.1");
