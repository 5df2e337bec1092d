// Starts Swagger UI. The examples are those of the document; what is added here makes them work one after the other.

const METHODS = ["post", "get", "put", "patch", "delete"];

const operationsOf = (spec) =>
  Object.entries(spec.paths || {}).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ path, method, operation: item[method] })),
  );

// Optional fields start empty: a filter or a cursor would hide results. So does what `x-prefill` names.
const withoutOptionalExamples = (spec) => {
  for (const { operation } of operationsOf(spec)) {
    for (const parameter of operation.parameters || []) {
      if (!parameter.required || parameter["x-prefill"] === false) delete parameter.example;
    }
    for (const { schema } of Object.values(operation.requestBody?.content || {})) {
      for (const [name, property] of Object.entries(schema.properties || {})) {
        // Without an example, Swagger UI would make one up from the pattern.
        if (!schema.required?.includes(name) && !property.enum) property.example = "";
      }
    }
  }
  return spec;
};

// The value of a runtime expression in a link, such as `$response.body#/id`.
const evaluate = (expression, body) => {
  const [, member] = /^\$response\.body#\/(\w+)$/.exec(expression) || [];
  return member && body[member];
};

// Bodies to show instead of the example, by `method path`.
const linkedBodies = new Map();

// Fills in the id or code of a new object where a link of the response leads.
const followLinks = (system, operation, response, body) => {
  const operations = operationsOf(system.specSelectors.specJson().toJS());
  for (const link of Object.values(operation.responses[response.status].links)) {
    const { path, method } = operations.find((target) => target.operation.operationId === link.operationId);
    for (const [name, expression] of Object.entries(link.parameters || {})) {
      system.specActions.changeParam([path, method], name, "path", String(evaluate(expression, body)), false);
    }
    const template = Object.entries(JSON.parse(link.requestBody || "{}"));
    const members = template.map(([name, value]) => [name, evaluate(value.slice(1, -1), body)]);
    if (members.length && members.every(([, value]) => value)) {
      const value = JSON.stringify(Object.fromEntries(members), null, 2);
      linkedBodies.set(`${method} ${path}`, value);
      system.oas3Actions.setRequestBodyValue({ value, pathMethod: [path, method] });
    }
  }
};

// A sign-in replaces the token of its user. So the page takes over the new token, unless it is signed in as another user.
let signedIn = {};

const takeOverToken = (system, form, token) => {
  const authorized = system.authSelectors.authorized().toJS();
  const isOwn = authorized.token && authorized.token.value === signedIn.token;
  const user = isOwn ? signedIn.user : authorized.password?.username;
  if ((authorized.password || authorized.token) && user !== form.username) return;
  signedIn = { user: form.username, token };
  system.authActions.logout(["password", "token"]);
  const schema = system.specSelectors.specJson().getIn(["components", "securitySchemes", "token"]);
  system.authActions.authorize({ token: { name: "token", schema, value: token } });
};

// An error response as one line that opens, with its examples.
const ErrorResponse = ({ system, code, response }) => {
  const h = system.React.createElement;
  const Markdown = system.getComponent("Markdown", true);
  const content = response.toJS().content || {};
  const examples = Object.values(content).flatMap(({ example, examples }) =>
    example ? [example] : Object.values(examples || {}).map(({ value }) => value),
  );
  const summary = h("summary", null, h(Markdown, { source: response.get("description") }));
  const shown = examples.map((example, index) => h("pre", { key: index }, JSON.stringify(example, null, 2)));
  return h(
    "tr",
    { className: "response error-response", "data-code": code },
    h("td", { className: "response-col_status" }, code),
    h("td", { className: "response-col_description" }, h("details", null, summary, ...shown)),
  );
};

// A cookie in the dialog *Authorize*: only its description, because a page cannot set it.
const CookieDescription = ({ system, name, schema }) => {
  const h = system.React.createElement;
  const Markdown = system.getComponent("Markdown", true);
  const heading = h("h4", null, h("code", null, name), " (cookie)");
  return h("div", { className: "cookie-auth" }, heading, h(Markdown, { source: schema.get("description") }));
};

const Latchkey = () => ({
  wrapComponents: {
    apiKeyAuth: (Original, system) => (props) =>
      system.React.createElement(props.schema.get("in") === "cookie" ? CookieDescription : Original, { ...props, system }),
    response: (Original, system) => (props) => {
      const isError = props.code >= "400" && props.response.get("content");
      return isError
        ? system.React.createElement(ErrorResponse, { ...props, system })
        : system.React.createElement(Original, props);
    },
  },
  statePlugins: {
    oas3: {
      wrapActions: {
        // Swagger UI sets the example each time it shows an operation.
        setRequestBodyValue: (original, system) => (change) => {
          const [path, method] = change.pathMethod;
          const linked = linkedBodies.get(`${method} ${path}`);
          const content = ["paths", path, method, "requestBody", "content", "application/json", "example"];
          const example = linked && JSON.stringify(system.specSelectors.specJson().getIn(content), null, 2);
          return original(linked && change.value === example ? { ...change, value: linked } : change);
        },
      },
    },
    spec: {
      wrapActions: {
        updateJsonSpec: (original) => (spec) => original(withoutOptionalExamples(spec)),
        setResponse: (original, system) => (path, method, response) => {
          original(path, method, response);
          const operation = system.specSelectors.specJson().getIn(["paths", path, method])?.toJS();
          if (operation?.responses[response.status]?.links) {
            followLinks(system, operation, response, JSON.parse(response.text));
          }
          if (operation?.operationId === "signIn" && response.status === 200) {
            const form = system.oas3Selectors.requestBodyValue(path, method)?.toJS() || {};
            takeOverToken(system, { username: form.username?.value }, JSON.parse(response.text).access_token);
          }
        },
      },
    },
  },
});

// The dialog starts at its top, with the e-mail address: Swagger UI moves the focus to the token, which can be below.
new MutationObserver(() => {
  const dialog = document.querySelector(".modal-ux-content");
  if (dialog && !dialog.dataset.isAtTop) {
    dialog.dataset.isAtTop = "true";
    dialog.querySelector("input")?.focus({ preventScroll: true });
    dialog.scrollTop = 0;
  }
}).observe(document.getElementById("swagger-ui"), { childList: true, subtree: true });

window.ui = SwaggerUIBundle({
  url: "../openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  plugins: [Latchkey],
});
