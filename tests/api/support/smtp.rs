//! An SMTP server for tests: it keeps mails in memory, and can refuse them, be silent, or cut connections.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use latchkey::config::Settings;
use mail_parser::MessageParser;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::app::{LINK_PAGE, mail_to};

/// How the server behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Accepts every mail.
    Accept,
    /// Greets with this, and closes the connection.
    Greet(&'static str),
    /// Answers this to `EHLO`.
    ReplyToHello(&'static str),
    /// Answers this to `MAIL FROM`.
    ReplyToSender(&'static str),
    /// Answers this to `RCPT TO`.
    Reply(&'static str),
    /// Does not answer `RCPT TO` for addresses that start with this.
    SilentFor(&'static str),
    /// Keeps a mail, and refuses it for now with an answer that quotes its text.
    Quote,
    /// Keeps a mail, and answers after this time if the address starts with this.
    AnswerLater(&'static str, Duration),
    /// Answers this to a mail after its data.
    ReplyToData(&'static str),
    /// Accepts connections and says nothing.
    Silent,
    /// Closes the connection within the data.
    CutInData,
    /// Keeps the mail, and closes the connection without an answer.
    CutAfterData,
    /// Requires this user and password, in base64 of `AUTH PLAIN`.
    Authenticate(&'static str),
}

/// A mail that the server has received.
#[derive(Clone, Debug)]
pub struct ReceivedMail {
    /// The address in `MAIL FROM`.
    pub from: String,
    /// The address in `RCPT TO`.
    pub to: String,
    /// The headers and the body as received.
    pub raw: String,
    pub subject: String,
    pub text: String,
    pub html: String,
    /// Whether the connection was encrypted.
    pub encrypted: bool,
}

impl ReceivedMail {
    /// The value of a header; empty if there is none.
    pub fn header(&self, name: &str) -> String {
        let message = MessageParser::default().parse(self.raw.as_bytes()).unwrap();
        message.header_raw(name).unwrap_or_default().trim().to_owned()
    }

    /// The link, which is alone on its line.
    pub fn link(&self) -> &str {
        let links: Vec<&str> = self.text.lines().filter(|line| line.starts_with(LINK_PAGE)).collect();
        let [link] = links.as_slice() else { panic!("one link in {self:?}") };
        link
    }

    /// The secret of the link.
    pub fn secret(&self) -> &str {
        self.link().rsplit_once('/').unwrap().1
    }
}

/// The server. It stops when it is dropped.
pub struct SmtpServer {
    pub address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
    /// Keeps the address while the server is down.
    reserved: Option<TcpSocket>,
}

/// How connections are encrypted.
pub enum Encryption {
    None,
    /// After `STARTTLS`, which is required.
    StartTls(TlsAcceptor),
    /// From the start.
    Tls(TlsAcceptor),
}

struct State {
    behaviour: Mutex<Behaviour>,
    mails: Mutex<Vec<ReceivedMail>>,
    encryption: Encryption,
}

impl State {
    fn has_starttls(&self) -> bool {
        matches!(self.encryption, Encryption::StartTls(_))
    }
}

impl SmtpServer {
    /// Starts a server without TLS.
    pub async fn start() -> Self {
        Self::start_with(Encryption::None).await
    }

    /// Starts a server with this encryption.
    pub async fn start_with(encryption: Encryption) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { behaviour: Mutex::new(Behaviour::Accept), mails: Mutex::default(), encryption });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, task, reserved: None }
    }

    /// Makes the system refuse connections to the server, until [`Self::go_up`].
    pub async fn go_down(&mut self) {
        self.task.abort();
        // The listener is closed when the task has ended.
        let _ = (&mut self.task).await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        self.reserved = Some(socket);
    }

    /// Accepts connections again, at the same address.
    pub fn go_up(&mut self) {
        let listener = self.reserved.take().expect("the server is down").listen(1_024).unwrap();
        self.task = tokio::spawn(accept(listener, Arc::clone(&self.state)));
    }

    /// Makes a server send its mails here.
    pub fn configure(&self, settings: &mut Settings) {
        mail_to(&self.address.to_string(), settings);
        // A busy machine must not reach them.
        settings.mail.connect_timeout = 20;
        settings.mail.send_timeout = 20;
        settings.mail.answer_timeout = 20;
    }

    /// Makes the process of a server send its mails here.
    pub fn configure_command(&self, command: &mut Command) {
        command.env("LATCHKEY__MAIL__URL", format!("smtp://{}", self.address));
        command.env("LATCHKEY__MAIL__STARTTLS", "none").env("LATCHKEY__MAIL__FROM", "no-reply@example.org");
        command.env("LATCHKEY__LINKS__URL", LINK_PAGE);
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap() = behaviour;
    }

    pub fn mails(&self) -> Vec<ReceivedMail> {
        self.state.mails.lock().unwrap().clone()
    }

    /// The number of mails with this subject to `to`.
    pub fn count(&self, to: &str, subject: &str) -> usize {
        self.state.mails.lock().unwrap().iter().filter(|mail| mail.to == to && mail.subject == subject).count()
    }

    /// Waits until `number` mails have arrived, and returns all.
    pub async fn wait_for(&self, number: usize) -> Vec<ReceivedMail> {
        for _ in 0..400 {
            let mails = self.mails();
            if mails.len() >= number {
                return mails;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{number} mails are expected: {:#?}", self.mails());
    }

    /// Waits for a mail with this subject to `to`, and returns the newest.
    pub async fn wait_for_mail(&self, to: &str, subject: &str) -> ReceivedMail {
        self.wait_for_mails(to, subject, 1).await
    }

    /// Waits until `number` mails with this subject to `to` have arrived, and returns the newest.
    pub async fn wait_for_mails(&self, to: &str, subject: &str, number: usize) -> ReceivedMail {
        for _ in 0..400 {
            let mut mails = self.mails();
            mails.retain(|mail| mail.to == to && mail.subject == subject);
            if mails.len() >= number
                && let Some(newest) = mails.pop()
            {
                return newest;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{number} mails {subject:?} to {to} are expected: {:#?}", self.mails());
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts connections. Never returns.
async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(serve(stream, Arc::clone(&state)));
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let behaviour = state.behaviour.lock().unwrap().clone();
    if behaviour == Behaviour::Silent {
        tokio::time::sleep(Duration::from_secs(60)).await;
        return;
    }
    if let Encryption::Tls(acceptor) = &state.encryption {
        if let Ok(stream) = acceptor.accept(stream).await {
            let mut session = Session::new(stream, &state, behaviour, true);
            session.say("220 test ESMTP").await;
            session.converse().await;
        }
        return;
    }
    let mut session = Session::new(stream, &state, behaviour, false);
    if let Behaviour::Greet(text) = session.behaviour {
        session.say(text).await;
        return;
    }
    session.say("220 test ESMTP").await;
    if session.converse().await
        && let Encryption::StartTls(acceptor) = &state.encryption
    {
        let (stream, behaviour) = (session.stream.into_inner(), session.behaviour);
        if let Ok(stream) = acceptor.accept(stream).await {
            Session::new(stream, &state, behaviour, true).converse().await;
        }
    }
}

struct Session<'s, S> {
    stream: BufReader<S>,
    state: &'s State,
    behaviour: Behaviour,
    encrypted: bool,
    from: String,
    to: String,
    authenticated: bool,
}

impl<'s, S: AsyncRead + AsyncWrite + Unpin> Session<'s, S> {
    fn new(stream: S, state: &'s State, behaviour: Behaviour, encrypted: bool) -> Self {
        let stream = BufReader::new(stream);
        Self { stream, state, behaviour, encrypted, from: String::new(), to: String::new(), authenticated: false }
    }

    async fn say(&mut self, text: &str) {
        let _ = self.stream.get_mut().write_all(format!("{text}\r\n").as_bytes()).await;
    }

    async fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await.ok()?;
        (read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Talks until the client quits. Returns whether it continues with TLS.
    async fn converse(&mut self) -> bool {
        while let Some(line) = self.hear().await {
            let command = line.to_ascii_uppercase();
            if command.starts_with("EHLO")
                && let Behaviour::ReplyToHello(reply) = self.behaviour
            {
                self.say(reply).await;
            } else if command.starts_with("EHLO") {
                let offers_tls = self.state.has_starttls() && !self.encrypted;
                let starttls = if offers_tls { "250-STARTTLS\r\n" } else { "" };
                self.say(&format!("250-test\r\n{starttls}250-AUTH PLAIN\r\n250 8BITMIME")).await;
            } else if command == "STARTTLS" && self.state.has_starttls() {
                self.say("220 go ahead").await;
                return true;
            } else if let Some(given) = line.strip_prefix("AUTH PLAIN ") {
                self.authenticated = matches!(self.behaviour, Behaviour::Authenticate(expected) if expected == given);
                let reply = if self.authenticated { "235 welcome" } else { "535 5.7.8 wrong password" };
                self.say(reply).await;
            } else if command.starts_with("MAIL FROM:") {
                let needs_password = matches!(self.behaviour, Behaviour::Authenticate(_)) && !self.authenticated;
                let needs_tls = self.state.has_starttls() && !self.encrypted;
                self.from = address(&line);
                let reply = if let Behaviour::ReplyToSender(reply) = self.behaviour { reply } else { "250 ok" };
                self.say(if needs_password || needs_tls { "530 5.7.0 not allowed" } else { reply }).await;
            } else if command.starts_with("RCPT TO:") {
                self.to = address(&line);
                if let Behaviour::SilentFor(start) = self.behaviour
                    && self.to.starts_with(start)
                {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
                let reply = if let Behaviour::Reply(reply) = self.behaviour { reply } else { "250 ok" };
                self.say(reply).await;
            } else if command == "DATA" {
                self.say("354 go ahead").await;
                if !self.receive().await {
                    return false;
                }
            } else if command == "QUIT" {
                self.say("221 bye").await;
                return false;
            } else {
                self.say("250 ok").await;
            }
        }
        false
    }

    /// Receives a mail. Returns whether the conversation continues.
    async fn receive(&mut self) -> bool {
        let mut raw = String::new();
        while let Some(line) = self.hear().await {
            if self.behaviour == Behaviour::CutInData {
                return false;
            }
            if line == "." {
                if let Behaviour::ReplyToData(reply) = self.behaviour {
                    self.say(reply).await;
                    return true;
                }
                self.keep(&raw);
                match self.behaviour {
                    Behaviour::CutAfterData => return false,
                    Behaviour::AnswerLater(start, time) if self.to.starts_with(start) => {
                        tokio::time::sleep(time).await;
                    }
                    Behaviour::Quote => {
                        let quoted: Vec<&str> = raw.split_whitespace().collect();
                        let at = quoted.iter().position(|word| word.contains("lkm_")).unwrap_or_default();
                        let end = quoted.len().min(at + 3);
                        self.say(&format!("451 4.7.1 refused, it contains {}", quoted[at..end].join(" "))).await;
                        return true;
                    }
                    _ => {}
                }
                self.say("250 kept").await;
                return true;
            }
            raw.push_str(line.strip_prefix('.').unwrap_or(&line));
            raw.push_str("\r\n");
        }
        false
    }

    fn keep(&self, raw: &str) {
        let message = MessageParser::default().parse(raw.as_bytes()).expect("a mail");
        let mail = ReceivedMail {
            from: self.from.clone(),
            to: self.to.clone(),
            subject: message.subject().unwrap_or_default().to_owned(),
            text: message.body_text(0).unwrap_or_default().replace("\r\n", "\n"),
            html: message.body_html(0).unwrap_or_default().into_owned(),
            raw: raw.to_owned(),
            encrypted: self.encrypted,
        };
        self.state.mails.lock().unwrap().push(mail);
    }
}

/// The address between angle brackets.
fn address(line: &str) -> String {
    line.split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map_or_else(String::new, |(address, _)| address.to_owned())
}
