use crate::support::app::PASSWORD;
use crate::support::{Answer, App, Credential, specify};

const PARALLEL: usize = 32;

/// Sends all requests at once.
async fn at_once<F: Future<Output = Answer> + Send + 'static>(requests: impl IntoIterator<Item = F>) -> Vec<Answer> {
    let running: Vec<_> = requests.into_iter().map(tokio::spawn).collect();
    let mut answers = Vec::new();
    for request in running {
        answers.push(request.await.unwrap());
    }
    answers
}

fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

specify! {
    async fn of_parallel_registrations_one_wins(app: App) {
        for round in 0..3 {
            let bodies = (0..PARALLEL).map(|number| {
                // The same address in 32 spellings of its case.
                let local: String = "races".chars().enumerate().map(|(bit, letter)| {
                    if number >> bit & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
                }).collect();
                crate::support::app::registration(&format!("{local}{round}@example.org"))
            });
            let answers = at_once(bodies.map(|body| app.request("POST", "/register").json(&body).send())).await;
            assert_eq!(count(&answers, 201), 1, "{answers:?}");
            assert_eq!(count(&answers, 409), PARALLEL - 1, "{answers:?}");
        }
        assert_eq!(app.database.number("SELECT count(*) FROM users").await, 3);
    }

    async fn of_parallel_sign_ins_one_token_lives(app: App) {
        app.register("ada@example.org").await;
        let form = [("grant_type", "password"), ("username", "ada@example.org"), ("password", PASSWORD)];
        let answers = at_once((0..PARALLEL).map(|_| app.request("POST", "/token").form(&form).send())).await;
        assert_eq!(count(&answers, 200), PARALLEL, "{answers:?}");

        let tokens = answers.iter().map(|answer| answer.body["access_token"].as_str().unwrap().to_owned());
        let uses = at_once(tokens.map(|token| app.request("GET", "/me").credential(&Credential::Bearer(token)).send())).await;
        assert_eq!(count(&uses, 200), 1, "{uses:?}");
        assert_eq!(count(&uses, 401), PARALLEL - 1, "{uses:?}");
        assert_eq!(app.database.number("SELECT count(*) FROM access_tokens").await, 1);
    }

    async fn parallel_writes_never_find_the_database_locked(app: App) {
        let ada = app.user("ada@example.org").await;
        let body = serde_json::json!({ "title": "t", "body": "b" });
        let writes = (0..4 * PARALLEL).map(|_| app.request("POST", "/page/").credential(&ada).json(&body).send());
        let answers = at_once(writes).await;
        assert_eq!(count(&answers, 201), 4 * PARALLEL, "{answers:?}");
        assert_eq!(app.get("/page/", &ada).await.body["total"], 4 * PARALLEL);
    }

    async fn of_parallel_changes_to_one_version_one_wins(app: App) {
        let ada = app.user("ada@example.org").await;
        let body = serde_json::json!({ "title": "t", "body": "b" });
        app.post("/page/", &ada, &body).await;
        let changes = (0..PARALLEL).map(|_| {
            app.request("PUT", "/page/1").credential(&ada).header("If-Match", "\"1\"").json(&body).send()
        });
        let answers = at_once(changes).await;
        assert_eq!(count(&answers, 200), 1, "{answers:?}");
        assert_eq!(count(&answers, 412), PARALLEL - 1, "{answers:?}");
    }

    async fn a_signed_out_token_is_dead_for_every_later_request(app: App) {
        for _ in 0..10 {
            let email = format!("user{}@example.org", rand::random::<u64>());
            let ada = app.user(&email).await;
            let signed_out = app.request("DELETE", "/token").credential(&ada).send().await;
            assert_eq!(signed_out.status, 204);
            let uses = at_once((0..16).map(|_| app.request("GET", "/me").credential(&ada).send())).await;
            assert_eq!(count(&uses, app.expected.bad_token_header), 16, "{uses:?}");
        }
    }

    async fn a_user_deleted_during_sign_in_leaves_no_token(app: App) {
        app.register("ada@example.org").await;
        let form = [("grant_type", "password"), ("username", "ada@example.org"), ("password", PASSWORD)];
        let running: Vec<_> = (0..8).map(|_| tokio::spawn(app.request("POST", "/token").form(&form).send())).collect();
        app.database.execute("DELETE FROM users").await;
        for request in running {
            let answer = request.await.unwrap();
            assert!([200, app.expected.bad_password].contains(&answer.status), "{answer:?}");
        }
        assert_eq!(app.database.number("SELECT count(*) FROM access_tokens").await, 0);
    }

    async fn a_request_parked_before_its_token_died_changes_nothing(app: App) {
        let ada = app.user("ada@example.org").await;
        let eve = app.user("eve@example.org").await;
        let (Credential::Token(ada_token), Credential::Token(eve_token)) = (&ada, &eve) else { panic!("tokens") };
        let (ada_parked, eve_parked) = (park(&app, ada_token).await, park(&app, eve_token).await);
        assert_eq!(app.request("DELETE", "/token").credential(&ada).send().await.status, 204);
        app.database.execute("DELETE FROM users WHERE email = 'eve@example.org'").await;
        for parked in [ada_parked, eve_parked] {
            let answer = parked.finish().await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {} ", app.expected.bad_token_header)), "{answer}");
        }
        assert_eq!(app.database.number("SELECT count(*) FROM pages").await, 0);
    }
}

const PARKED_BODY: &str = r#"{"title":"parked","body":""}"#;

/// A request whose head has passed the guard and whose body is still to come.
struct Parked(tokio::net::TcpStream);

async fn park(app: &App, token: &str) -> Parked {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let head = format!(
        "POST /page/ HTTP/1.1\r\nHost: x\r\nToken: {token}\r\nContent-Type: application/json\r\n\
         Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        PARKED_BODY.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server asks for the body at once; a second exchange on the same worker then follows the guard's lookup.
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    for _ in 0..20 {
        app.get("/me", &Credential::Token(token.to_owned())).await;
    }
    Parked(stream)
}

impl Parked {
    async fn finish(mut self) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        self.0.write_all(PARKED_BODY.as_bytes()).await.unwrap();
        let mut answer = vec![0; 2048];
        let length = self.0.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }
}
