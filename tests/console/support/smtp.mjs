// An SMTP server that keeps mails in memory.

import { createServer } from 'node:net';
import { createInterface } from 'node:readline';

import { pause } from './server.mjs';

export class Smtp {
  static async start() {
    const smtp = new Smtp();
    await new Promise((resolve) => smtp.server.listen(0, '127.0.0.1', resolve));
    return smtp;
  }

  constructor() {
    this.mails = [];
    this.server = createServer((socket) => this.#serve(socket));
  }

  /** The settings of a server of Latchkey that sends its mails here. */
  get settings() {
    return {
      LATCHKEY__MAIL__URL: `smtp://127.0.0.1:${this.server.address().port}`,
      LATCHKEY__MAIL__STARTTLS: 'none',
      LATCHKEY__MAIL__FROM: 'no-reply@example.org',
      // The port of the server is not known yet; the tests open the links on its origin.
      LATCHKEY__LINKS__URL: 'http://localhost/console/',
    };
  }

  /** Waits for a mail to this address, and returns the fragment of its newest link. */
  async link(to, purpose) {
    for (let tries = 0; tries < 800; tries += 1) {
      const found = this.mails.filter((mail) => mail.to === to && mail.text.includes(`#/${purpose}/`)).at(-1);
      const link = found && new RegExp(`http://localhost/console/(#/${purpose}/lkm_\\w+)`).exec(found.text);
      if (link) return link[1];
      await pause(25);
    }
    throw new Error(`no mail to ${to}: ${JSON.stringify(this.mails)}`);
  }

  stop() {
    this.server.close();
  }

  #serve(socket) {
    const say = (text) => socket.write(`${text}\r\n`);
    let [to, data] = ['', undefined];
    socket.on('error', () => {});
    createInterface({ input: socket }).on('line', (line) => {
      if (data !== undefined) {
        if (line === '.') {
          // Quoted-printable: a soft line break, and `=3D` for the equals sign.
          const text = data.join('\n').replace(/=\n/g, '').replace(/=3D/g, '=');
          this.mails.push({ to, text });
          data = undefined;
          say('250 kept');
        } else data.push(line);
      } else if (/^EHLO/i.test(line)) say('250 test');
      else if (/^RCPT TO:/i.test(line)) {
        to = /<(.*)>/.exec(line)[1];
        say('250 ok');
      } else if (/^DATA/i.test(line)) {
        data = [];
        say('354 go ahead');
      } else if (/^QUIT/i.test(line)) {
        say('221 bye');
        socket.end();
      } else say('250 ok');
    });
    say('220 test');
  }
}
