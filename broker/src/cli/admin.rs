//! Asking the HTTP side of a broker.

use super::args::Admin;
use super::client::ClientError;

/// A client that asks nobody in between.
pub(super) fn http() -> Result<reqwest::Client, ClientError> {
    reqwest::Client::builder().no_proxy().build().map_err(|error| ClientError::Other(error.to_string()))
}

/// Where `path` is.
pub(super) fn url(at: &Admin, path: &str) -> String {
    format!("http://{}{path}", at.admin)
}

/// Asks; an error is what the broker says, or that it cannot be reached.
pub(super) async fn send(at: &Admin, request: reqwest::RequestBuilder) -> Result<String, ClientError> {
    let answer = request.send().await.map_err(|error| {
        let why = if error.is_timeout() { "it did not answer in time" } else { "nothing answers there" };
        ClientError::Other(format!("asking {}: {why} (is Firn running? --admin names its HTTP address)", at.admin))
    })?;
    let ok = answer.status().is_success();
    let text = answer.text().await.map_err(|error| ClientError::Other(error.to_string()))?;
    if ok { Ok(text) } else { Err(ClientError::Other(text.trim().to_owned())) }
}
