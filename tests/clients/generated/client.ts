// Uses the types that openapi-typescript generated. Throws if a response differs from what is expected here.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };
const [url, profile] = process.argv.slice(2) as [string, "fastapi" | "rfc"];
const password = "a garden of forking paths";

function check(holds: boolean, what: unknown): asserts holds {
  if (!holds) throw new Error(JSON.stringify(what));
}

const anonymous = createClient<paths>({ baseUrl: url });
const form = { "Content-Type": "application/x-www-form-urlencoded" };

const registered = await anonymous.POST("/register", {
  body: { name: "Barbara", surname: "Liskov", email: "barbara@example.org", password },
});
check(registered.data !== undefined, registered.error);
const user: components["schemas"]["UserResponse"] = registered.data;
check(user.role === "member" && !user.disabled, user);

const invalid = await anonymous.POST("/register", { body: { name: "B", surname: "", email: "nowhere", password } });
check(invalid.error !== undefined && invalid.response.status === 422, invalid);
const fields = invalid.error.errors?.map(({ field, code }) => `${field}: ${code}`).sort();
check(JSON.stringify(fields) === '["email: email","name: length"]', invalid.error);

const wrong = await anonymous.POST("/token", {
  body: { grant_type: "password", username: user.email, password: "x" },
  headers: form,
});
check(wrong.error?.error === "invalid_grant", wrong);
check(wrong.response.status === { fastapi: 401, rfc: 400 }[profile], wrong.response.status);

const signedIn = await anonymous.POST("/token", {
  body: { grant_type: "password", username: user.email, password },
  headers: form,
});
check(signedIn.data !== undefined, signedIn.error);
const barbara = createClient<paths>({
  baseUrl: url,
  headers: { Authorization: `Bearer ${signedIn.data.access_token}` },
});

const created = await barbara.POST("/page/", { body: { title: "CLU", body: "Data abstraction" } });
check(created.data !== undefined, created.error);
const edited = await barbara.PUT("/page/{id}", {
  params: { path: { id: created.data.id }, header: { "If-Match": created.response.headers.get("ETag") ?? "" } },
  body: { title: "CLU", body: "Data abstraction, iterators" },
});
check(edited.data?.version === 2, edited);
const listed = await barbara.GET("/page/", { params: { query: { size: 1 } } });
check(listed.data?.total === 1 && listed.data.items[0]?.id === created.data.id, listed);

const newKey = await barbara.POST("/me/keys", { body: { name: "reader", scopes: ["pages:read"] } });
check(newKey.data !== undefined, newKey.error);
const reader = createClient<paths>({ baseUrl: url, headers: { Token: newKey.data.key } });
const hello = await reader.GET("/protected-route");
check(hello.data?.hello === "Barbara", hello);
const denied = await reader.POST("/page/", { body: { title: "t", body: "b" } });
check(denied.response.status === 403 && denied.error?.code === "insufficient_scope", denied);

const revoked = await anonymous.POST("/revoke", { body: { token: newKey.data.key }, headers: form });
check(revoked.response.status === 200, revoked);
const afterwards = await reader.GET("/protected-route");
check(
  afterwards.response.status === { fastapi: 403, rfc: 401 }[profile] && afterwards.error?.code === "invalid_token",
  afterwards,
);
console.log("done");
