//! A client that signs in, requests a guarded route, and creates, uses and revokes an API key.

use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Token {
    access_token: String,
}

#[derive(Deserialize)]
struct Key {
    key: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("LATCHKEY_URL").unwrap_or_else(|_| "http://127.0.0.1:8080".to_owned());
    let client = Client::new();

    let form = [("grant_type", "password"), ("username", "grace@example.org"), ("password", "correct horse battery")];
    let answer = client.post(format!("{url}/token")).form(&form).send().await?.error_for_status()?;
    let Token { access_token } = answer.json().await?;
    let answer = client.get(format!("{url}/protected-route")).bearer_auth(&access_token).send().await?;
    println!("{}", answer.error_for_status()?.json::<Value>().await?);

    let wanted = json!({ "name": "reader", "scopes": ["pages:read"] });
    let answer = client.post(format!("{url}/me/keys")).bearer_auth(&access_token).json(&wanted).send().await?;
    let Key { key } = answer.error_for_status()?.json().await?;
    let answer = client.get(format!("{url}/page/?size=10")).bearer_auth(&key).send().await?;
    println!("{}", answer.error_for_status()?.json::<Value>().await?);

    client.post(format!("{url}/revoke")).form(&[("token", &key)]).send().await?.error_for_status()?;
    let answer = client.get(format!("{url}/page/")).bearer_auth(&key).send().await?;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    Ok(())
}
