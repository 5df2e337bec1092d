//! Notes that require the scope notes:read. Latchkey checks the credential of each request.

use std::{env, io, time::Duration};

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, Error, HttpMessage, HttpResponse, HttpServer, web};
use reqwest::{Client, header::HeaderMap, redirect::Policy};

type Caller = web::ReqData<HeaderMap>;

async fn guard(
    latchkey: web::Data<Client>,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse, Error> {
    let url = env::var("LATCHKEY_URL").unwrap_or_else(|_| "http://127.0.0.1:8080".to_owned());
    let mut question = latchkey.head(format!("{url}/authz?scope=notes:read"));
    for name in ["token", "authorization", "x-request-id"] {
        for value in request.headers().get_all(name) {
            question = question.header(name, value.as_bytes());
        }
    }
    if let Some(client) = request.peer_addr() {
        question = question.header("x-forwarded-for", client.ip().to_string());
    }
    let Ok(answer) = question.send().await else {
        let refusal = HttpResponse::ServiceUnavailable().insert_header(("retry-after", "1")).finish();
        return Ok(request.into_response(refusal));
    };
    let (status, headers) = (answer.status().as_u16(), answer.headers());
    if status == 200 {
        request.extensions_mut().insert(headers.clone());
        return next.call(request).await;
    }
    let known = [400, 401, 403, 429, 503].contains(&status);
    let mut refusal = HttpResponse::InternalServerError();
    if let (true, Ok(status)) = (known, StatusCode::from_u16(status)) {
        refusal.status(status);
    }
    for name in ["www-authenticate", "retry-after"] {
        if let Some(value) = headers.get(name) {
            refusal.insert_header((name, value.as_bytes()));
        }
    }
    Ok(request.into_response(refusal.finish()))
}

async fn notes(caller: Caller) -> HttpResponse {
    let user = caller.get("remote-user").and_then(|user| user.to_str().ok());
    HttpResponse::Ok().json(serde_json::json!({ "user": user, "notes": ["Buy milk"] }))
}

#[actix_web::main]
async fn main() -> io::Result<()> {
    let latchkey =
        Client::builder().timeout(Duration::from_secs(2)).redirect(Policy::none()).build().map_err(io::Error::other)?;
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8004);
    HttpServer::new(move || {
        let guarded = web::get().to(notes).wrap(from_fn(guard));
        App::new().app_data(web::Data::new(latchkey.clone())).route("/notes", guarded)
    })
    .bind(("127.0.0.1", port))?
    .run()
    .await
}
