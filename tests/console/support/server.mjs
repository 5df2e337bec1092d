// Starts servers of Latchkey, each with a database of its own.

import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

import { send } from './http.mjs';

const run = promisify(execFile);
const PROGRAM = process.env.LATCHKEY;

export const PASSWORD = 'correct horse battery';

/** The databases and status profiles. The first two cover each of the four once. */
export const CONFIGURATIONS = [
  { database: 'sqlite', profile: 'fastapi' },
  { database: 'postgres', profile: 'rfc' },
  { database: 'sqlite', profile: 'rfc' },
  { database: 'postgres', profile: 'fastapi' },
];

export class Server {
  /** Starts a server. `settings` are environment variables, such as `LATCHKEY__SESSION__MAX_PER_USER`. */
  static async start({ database, profile }, settings = {}) {
    const home = await mkdtemp(join(tmpdir(), 'latchkey-console-'));
    const server = new Server(home, profile);
    server.database = database === 'sqlite' ? await sqlite(home) : await postgres();
    server.environment = {
      PATH: process.env.PATH,
      DATABASE_URL: server.database.url,
      LATCHKEY__HTTP__STATUS_CODES: profile,
      LATCHKEY__AUTH__BCRYPT_COST: '10',
      LATCHKEY__LIMITS__ENABLED: 'false',
      LATCHKEY__SERVER__SHUTDOWN_DELAY: '0',
      ...settings,
    };
    await server.resume();
    return server;
  }

  constructor(home, profile) {
    this.home = home;
    this.profile = profile;
    this.port = 0;
    this.log = [];
  }

  /** The origin that the browser uses: Chromium keeps Secure cookies of http://localhost. */
  get origin() {
    return `http://localhost:${this.port}`;
  }

  /** The status of a guarded route without a credential. */
  get unauthenticated() {
    return this.profile === 'rfc' ? 401 : 403;
  }

  /** Starts the process, on the same port as before. */
  async resume() {
    const environment = { ...this.environment, LATCHKEY__SERVER__LISTEN: `127.0.0.1:${this.port}` };
    this.process = spawn(PROGRAM, ['serve'], { env: environment, cwd: this.home, stdio: ['ignore', 'pipe', 'pipe'] });
    this.ended = new Promise((resolve) => this.process.once('exit', resolve));
    const address = new Promise((resolve, reject) => {
      const read = (line) => {
        this.log.push(line);
        const found = /listening on http:\/\/127\.0\.0\.1:(\d+)/.exec(line);
        if (found) resolve(Number(found[1]));
      };
      for (const output of [this.process.stdout, this.process.stderr]) createInterface(output).on('line', read);
      this.ended.then((status) => reject(new Error(`latchkey has ended (${status}):\n${this.log.join('\n')}`)));
    });
    this.port = await address;
    while ((await send(this, 'GET', '/health/ready')).status !== 200) await pause(20);
  }

  /** Ends the process and keeps the database. */
  async suspend() {
    this.process.kill('SIGTERM');
    await this.ended;
  }

  /** Ends the process and removes its files. */
  async stop() {
    await this.suspend();
    await rm(this.home, { recursive: true, force: true });
  }

  /** Runs a command of the program. */
  async command(args, input = '') {
    const running = run(PROGRAM, args, { env: this.environment, cwd: this.home });
    running.child.stdin.end(input);
    return (await running).stdout;
  }

  /** Creates a user on the command line. */
  async createUser(email, name, role) {
    await this.command(['user', 'create', email, '--name', name, '--role', role], `${PASSWORD}\n`);
  }

  /** Executes SQL on the database, beside the server. */
  async sql(statements) {
    await this.database.execute(statements);
  }
}

async function sqlite(home) {
  const file = join(home, 'latchkey.db');
  return {
    url: `sqlite://${file}`,
    execute: (statements) => feed('python3', ['-c', SQLITE_CLIENT, file], statements),
  };
}

// Debian's python3 has SQLite; the command line of SQLite is not installed everywhere.
const SQLITE_CLIENT = 'import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=60).executescript(sys.stdin.read())';

async function postgres() {
  const base = process.env.TEST_POSTGRES_URL;
  const schema = `console_${randomBytes(6).toString('hex')}`;
  await feed('psql', ['--quiet', '--set=ON_ERROR_STOP=1', base], `CREATE DATABASE ${schema};`);
  const url = base.replace('/postgres?', `/${schema}?`);
  return { url, execute: (statements) => feed('psql', ['--quiet', '--set=ON_ERROR_STOP=1', url], statements) };
}

async function feed(program, args, input) {
  const running = run(program, args, { maxBuffer: 1 << 26 });
  running.child.stdin.end(input);
  await running;
}

export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
