// Uses the client that openapi-generator generated with typescript-fetch. Throws if a response differs from what is
// expected here.
import {
  Configuration,
  type FieldError,
  MyAccountApi,
  MyAPIKeysApi,
  OAuthErrorFromJSON,
  type Problem,
  ProblemFromJSON,
  ResponseError,
  Scope,
  SignInApi,
  SignInGrantTypeEnum,
} from "./typescript/index.js";

declare const process: { argv: string[] };
const [basePath, profile] = process.argv.slice(2) as [string, "fastapi" | "rfc"];
const password = "a garden of forking paths";

function check(holds: boolean, what: unknown): asserts holds {
  if (!holds) throw new Error(JSON.stringify(what));
}

async function failure(call: Promise<unknown>): Promise<Response> {
  const reason = await call.then(
    () => new Error("the request succeeded"),
    (reason: unknown) => reason,
  );
  if (reason instanceof ResponseError) return reason.response;
  throw reason;
}

async function problem(call: Promise<unknown>): Promise<Problem> {
  const response = await failure(call);
  check(response.headers.get("Content-Type") === "application/problem+json", response.headers.get("Content-Type"));
  const problem = ProblemFromJSON(await response.json());
  check(problem.status === response.status && problem.requestId !== "", problem);
  return problem;
}

const anonymous = new SignInApi(new Configuration({ basePath }));

const registerRequest = { name: "Barbara", surname: "Liskov", email: "barbara@example.org", password };
// With registration.mode = "verified" there is no user yet: the response is 202.
const user = (await anonymous.register({ registerRequest }))!;
check(user.role === "member" && !user.disabled, user);
check(Math.abs(Date.now() - user.createdAt.getTime()) < 60_000, user.createdAt);

const invalid = await problem(anonymous.register({ registerRequest: { ...registerRequest, name: "B", email: "nowhere" } }));
check(invalid.status === 422 && invalid.code === "invalid", invalid);
const fields = invalid.errors?.map(({ field, code }: FieldError) => `${field}: ${code}`).sort();
check(JSON.stringify(fields) === '["email: email","name: length"]', invalid);

const form = { grantType: SignInGrantTypeEnum.Password, username: user.email, password };
const wrong = await failure(anonymous.signIn({ ...form, password: "x" }));
check(wrong.status === { fastapi: 401, rfc: 400 }[profile], wrong.status);
check(OAuthErrorFromJSON(await wrong.json()).error === "invalid_grant", wrong);

const token = await anonymous.signIn(form);
check(token.expiresIn === 86_400, token);
// Sent as `Token: …`. The generated code would send `accessToken` as it is, without `Bearer`.
const barbara = new Configuration({ basePath, apiKey: token.accessToken });
const me = await new MyAccountApi(barbara).me();
check(JSON.stringify(me) === JSON.stringify(user), me);

const keyCreateRequest = { name: "reader", scopes: new Set([Scope.PagesRead]) };
const key = await new MyAPIKeysApi(barbara).createKey({ keyCreateRequest });
const reader = new Configuration({ basePath, apiKey: key.key });
check((await new SignInApi(reader).protectedRoute()).hello === "Barbara", key);
const denied = await problem(new MyAPIKeysApi(reader).listKeys());
check(denied.status === 403 && denied.code === "insufficient_scope", denied);

const missing = await problem(new MyAccountApi(new Configuration({ basePath })).me());
check(missing.status === { fastapi: 403, rfc: 401 }[profile] && missing.code === "not_authenticated", missing);
const unknown = await problem(new MyAccountApi(new Configuration({ basePath, accessToken: "Bearer unknown" })).me());
check(unknown.status === 401 && unknown.code === "invalid_token", unknown);
console.log("done");
