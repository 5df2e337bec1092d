//! The guard: credentials in the headers of a request, and the responses without a valid one.

use latchkey::domain::secret::{Secret, SecretKind};

use crate::support::app::STATIC_KEY;
use crate::support::{Credential, specify};

specify! {
    async fn both_headers_open_the_protected_route(app: App) {
        let token = app.token_of("ada@example.org").await;
        for credential in [Credential::Token(token.clone()), Credential::Bearer(token.clone())] {
            let answer = app.get("/protected-route", &credential).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.text, r#"{"hello":"Adaline"}"#);
            assert_eq!(answer.header("cache-control"), "no-store");
            assert_eq!(answer.header("vary"), "Authorization, Cookie, Token");
        }
        for scheme in ["bearer", "BEARER", "BeArEr"] {
            let request = app.request("GET", "/me").header("Authorization", &format!("{scheme} {token}"));
            assert_eq!(request.send().await.status, 200, "{scheme}");
        }
    }

    async fn the_static_key_is_named_and_is_not_a_user(app: App) {
        for key in [Credential::Token(STATIC_KEY.into()), Credential::Bearer(STATIC_KEY.into())] {
            let answer = app.get("/protected-route", &key).await;
            assert_eq!(answer.text, r#"{"hello":"static key"}"#, "{answer:?}");
            app.get("/me", &key).await.assert_error(403, "user_required");
        }
    }

    async fn without_a_credential_the_guard_challenges(app: App) {
        let token = app.token_of("ada@example.org").await;
        // Other cookies than that of a session are not credentials.
        let cookies = format!("Token={token}; access_token={token}; Authorization=Bearer {token}");
        for (header, value) in [
            ("Accept", "*/*"),
            ("Token", ""),
            ("Authorization", ""),
            ("Authorization", "Basic YTpi"),
            ("Authorization", "Digest x"),
            ("Cookie", cookies.as_str()),
        ] {
            let answer = app.request("GET", "/protected-route").header(header, value).send().await;
            answer.assert_error(app.expected.no_credential, "not_authenticated");
            assert_eq!(answer.body["detail"], "Not authenticated");
            assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="latchkey""#, "{header}: {value}");
        }
    }

    async fn an_invalid_credential_is_refused_without_a_reason(app: App) {
        let token = app.token_of("ada@example.org").await;
        // Store a key that an unknown secret could be mistaken for.
        app.key_of(&Credential::Token(token.clone()), &[]).await;
        let unknown = SecretKind::ALL.map(|kind| Secret::generate(kind).unwrap().reveal());
        let [sign_in, key, claim, session, link] = &unknown;
        let flipped = format!("{}{}", &token[..token.len() - 1], if token.ends_with('x') { 'y' } else { 'x' });
        for bad in ["x", "lkt_", "undefined", "Bearer", &flipped, sign_in, key, claim, session, link, &"a".repeat(513), &"a".repeat(50_000)] {
            let answer = app.get("/protected-route", &Credential::Token(bad.to_owned())).await;
            answer.assert_error(app.expected.bad_token_header, "invalid_token");
            assert_eq!(answer.body["detail"], "Not authenticated");
            let challenge = r#"Bearer realm="latchkey", error="invalid_token""#;
            assert_eq!(answer.header("www-authenticate"), challenge);

            let answer = app.get("/protected-route", &Credential::Bearer(bad.to_owned())).await;
            answer.assert_error(app.expected.bad_bearer, "invalid_token");
            assert_eq!(answer.header("www-authenticate"), challenge);
        }
        for raw in [&b"\xff\xfe"[..], b"caf\xc3\xa9"] {
            let answer = app.request("GET", "/me").raw_header("Token", raw).send().await;
            answer.assert_error(app.expected.bad_token_header, "invalid_token");
        }
        let empty = app.request("GET", "/me").header("Authorization", "Bearer").send().await;
        empty.assert_error(app.expected.bad_bearer, "invalid_token");
    }

    async fn more_than_one_credential_is_a_bad_request(app: App) {
        let ada = app.token_of("ada@example.org").await;
        let eve = app.token_of("eve@example.org").await;
        let (bearer_ada, bearer_eve) = (format!("Bearer {ada}"), format!("Bearer {eve}"));
        let list = format!("{ada}, {eve}");
        let bearer_list = format!("Bearer {ada}, Bearer {eve}");
        for headers in [
            vec![("Token", &ada), ("Authorization", &bearer_eve)],
            vec![("Token", &ada), ("Token", &eve)],
            vec![("Token", &ada), ("Token", &ada)],
            vec![("Authorization", &bearer_ada), ("Authorization", &bearer_eve)],
            vec![("Token", &list)],
            vec![("Authorization", &bearer_list)],
        ] {
            let request = headers.iter().fold(app.request("GET", "/me"), |request, (name, value)| request.header(name, value));
            let answer = request.send().await;
            answer.assert_error(400, "ambiguous_credential");
            assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="latchkey", error="invalid_request""#);
        }
        // The same credential in both headers is accepted, because Swagger UI sends every credential that it has.
        let same = app.request("GET", "/me").header("Token", &ada).header("Authorization", &bearer_ada).send().await;
        assert_eq!(same.status, 200, "{same:?}");
        // Another scheme is ignored. It may be meant for a proxy.
        let basic = app.request("GET", "/me").header("Token", &ada).header("Authorization", "Basic YTpi").send().await;
        assert_eq!(basic.status, 200, "{basic:?}");
    }

    async fn a_token_in_the_query_is_not_a_credential(app: App) {
        let caller = app.admin("root@example.org").await;
        let token = app.token_of("ada@example.org").await;
        for path in [format!("/me?access_token={token}"), format!("/me?token={token}")] {
            app.get(&path, &Credential::None).await.assert_error(app.expected.no_credential, "not_authenticated");
        }
        let response = app.request("POST", &format!("/introspect?token={token}")).credential(&caller).form(&[]).send().await;
        response.assert_error(400, "invalid_request");
    }

    async fn malformed_tokens_never_reach_the_database(app: App) {
        let token = app.token_of("ada@example.org").await;
        // Every query fails from now on, with a 5xx status.
        app.database.execute("DROP TABLE access_tokens").await;
        for malformed in ["x", &token[1..], &token.to_lowercase(), &"a".repeat(600)] {
            let answer = app.get("/me", &Credential::Bearer(malformed.to_owned())).await;
            answer.assert_error(app.expected.bad_bearer, "invalid_token");
        }
        let answer = app.get("/me", &Credential::Bearer(token)).await;
        assert!(answer.status >= 500, "a well-formed token is looked up: {answer:?}");
    }

    async fn me_returns_the_caller(app: App) {
        let registered = app.register("ada@example.org").await;
        let token = app.new_token_of("ada@example.org").await;
        app.register("eve@example.org").await;
        let me = app.get("/me", &Credential::Token(token)).await;
        assert_eq!(me.status, 200, "{me:?}");
        assert_eq!(me.body, registered.body);
    }

    async fn head_responds_like_get_without_a_body(app: App) {
        let ada = app.user("ada@example.org").await;
        for path in ["/me", "/protected-route", "/page/", "/health/live", "/docs/", "/openapi.json"] {
            let get = app.get(path, &ada).await;
            let head = app.request("HEAD", path).credential(&ada).send().await;
            assert_eq!((head.status, head.text.as_str()), (200, ""), "{path}");
            assert_eq!(head.header("content-length"), get.text.len().to_string(), "{path}");
            assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        }
    }

    async fn a_request_keeps_its_id(app: App) {
        let with_id = |id: &str| app.request("GET", "/health/live").header("X-Request-Id", id);
        for valid in ["a", "0b1c-2d_3e.4F", &"x".repeat(128)] {
            assert_eq!(with_id(valid).send().await.header("x-request-id"), valid);
        }
        for invalid in ["", "two words", "quote\"", &"x".repeat(129), "a,b"] {
            let answer = with_id(invalid).send().await;
            let given = answer.header("x-request-id");
            assert_eq!(given.len(), 32, "{invalid:?} → {given:?}");
        }
    }
}

#[tokio::test]
async fn without_the_setting_there_is_no_static_key() {
    use crate::support::{App, Backend, Profile};

    let unset = |settings: &mut latchkey::config::Settings| {
        settings.auth.api_key_token = latchkey::config::Settings::defaults().unwrap().auth.api_key_token;
    };
    let app = App::start_with(Backend::Sqlite, Profile::Rfc, unset).await.unwrap();
    for (header, value, code) in [
        ("Token", STATIC_KEY, "invalid_token"),
        ("Token", "", "not_authenticated"),
        ("Authorization", "Bearer", "invalid_token"),
    ] {
        let answer = app.request("GET", "/protected-route").header(header, value).send().await;
        answer.assert_error(401, code);
    }
}

/// Mounts handlers without the guard.
#[tokio::test]
async fn a_guarded_handler_outside_the_guard_fails_closed() {
    use actix_web::middleware::from_fn;
    use actix_web::{App, test, web};
    use latchkey::http::account::me;
    use latchkey::http::page;
    use latchkey::http::token::sign_in;
    use latchkey::http::transport::edge;

    let database = crate::support::database::Database::create(crate::support::Backend::Sqlite).unwrap();
    let mut settings = latchkey::config::Settings::defaults().unwrap();
    settings.database = database.settings();
    database.open().migrate_up().await.unwrap();
    let service = latchkey::server::open_service(&settings, latchkey::clock::Clock::default()).await.unwrap();
    let app = App::new()
        .app_data(web::Data::new(service))
        .wrap(from_fn(edge::edge))
        .route("/me", web::get().to(me::read))
        .route("/protected-route", web::get().to(sign_in::protected_route))
        .route("/page/", web::get().to(page::list))
        .route("/page/{id}", web::delete().to(page::delete));
    let app = test::init_service(app).await;
    for (method, path) in [("GET", "/me"), ("GET", "/protected-route"), ("GET", "/page/"), ("DELETE", "/page/1")] {
        let request = test::TestRequest::with_uri(path)
            .method(method.parse().unwrap())
            .insert_header(("Token", STATIC_KEY))
            .to_request();
        assert_eq!(test::call_service(&app, request).await.status(), 403, "{method} {path}");
    }
}
