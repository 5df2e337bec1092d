// An HTTP client that sends exactly the headers that a test names.

import http from 'node:http';

/** The name of the session cookie. */
export const COOKIE = '__Host-latchkey';

/**
 * Sends a request and returns `{status, headers, text, json}`. Options: `headers`, `json` (a body), `form` (fields of
 * a form), `text` with `type`, `cookie` (the secret of a session), `site` (`Sec-Fetch-Site`), `token`.
 */
export function send(server, method, path, options = {}) {
  const headers = { Host: `localhost:${server.port}`, ...options.headers };
  let body = options.text;
  if (options.type) headers['Content-Type'] = options.type;
  if ('json' in options) [body, headers['Content-Type']] = [JSON.stringify(options.json), 'application/json'];
  if (options.form) {
    [body, headers['Content-Type']] = [String(new URLSearchParams(options.form)), 'application/x-www-form-urlencoded'];
  }
  if (options.cookie) headers.Cookie = `${COOKIE}=${options.cookie}`;
  if (options.site) headers['Sec-Fetch-Site'] = options.site;
  if (options.token) headers.Authorization = `Bearer ${options.token}`;
  if (body !== undefined) headers['Content-Length'] = Buffer.byteLength(body);
  return new Promise((resolve, reject) => {
    // Without an agent, each request has a connection of its own: the server closes idle ones after 5 s.
    const to = { host: '127.0.0.1', port: server.port, agent: false };
    const request = http.request({ ...to, method, path, headers }, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('error', reject);
      response.on('end', () => resolve(new Answer(response, Buffer.concat(parts).toString())));
    });
    request.on('error', reject);
    request.end(body);
  });
}

class Answer {
  constructor(response, text) {
    this.status = response.statusCode;
    this.headers = response.headers;
    this.text = text;
  }

  get json() {
    return JSON.parse(this.text);
  }

  /** `status code`, such as `403 cross_site_request`, or the status alone. */
  get summary() {
    const isProblem = /problem\+json/.test(this.headers['content-type'] ?? '');
    return isProblem ? `${this.status} ${this.json.code}` : `${this.status}`;
  }

  /** The attributes of the session cookie that the response sets. `undefined` if it sets none. */
  get setCookie() {
    return this.headers['set-cookie']?.find((cookie) => cookie.startsWith(`${COOKIE}=`));
  }

  /** The secret in the cookie that the response sets. */
  get secret() {
    return this.setCookie?.slice(COOKIE.length + 1).split(';')[0];
  }
}

/** Like `send`, with the headers that the console in a browser sends: it presents a session. */
export function sendInSession(server, cookie, method, path, options = {}) {
  return send(server, method, path, { cookie, site: 'same-origin', ...options });
}
