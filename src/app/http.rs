//! A client of the admin API: one request a connection, answers in JSON.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not `http://host:port`.
    #[error("{0:?} is not the URL of an admin API; write http://127.0.0.1:6433")]
    Url(String),
    /// Nobody answers there.
    #[error("no proxy answers at {url}: {reason}.\nIs it running? --admin says where it is")]
    NoAnswer {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// The proxy refused.
    #[error("{0}")]
    Refused(String),
}

/// The admin API of one proxy.
#[derive(Debug, Clone)]
pub struct AdminClient {
    url: String,
    authority: String,
}

impl AdminClient {
    /// The API at `http://host:port`.
    ///
    /// # Errors
    /// [`HttpError::Url`].
    pub fn new(url: &str) -> Result<Self, HttpError> {
        let url = url.trim_end_matches('/').to_owned();
        let authority = url.strip_prefix("http://").filter(|a| !a.contains('/'));
        let Some(authority) = authority.filter(|a| a.contains(':')).map(str::to_owned) else {
            return Err(HttpError::Url(url));
        };
        Ok(Self { url, authority })
    }

    /// What a path answers.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn get(&self, path: &str) -> Result<Value, HttpError> {
        self.request("GET", path, "").await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, HttpError> {
        self.request("POST", path, &body.to_string()).await
    }

    async fn request(&self, method: &str, path: &str, body: &str) -> Result<Value, HttpError> {
        let no_answer = |reason: String| HttpError::NoAnswer { url: self.url.clone(), reason };
        // HTTP/1.0: the answer is not in chunks and ends with the connection.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.authority,
            body.len()
        );
        let exchange = async {
            let mut stream = TcpStream::connect(&self.authority).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = timeout(DEADLINE, exchange)
            .await
            .map_err(|_| no_answer(format!("nothing within {} s", DEADLINE.as_secs())))?
            .map_err(|error| no_answer(error.to_string()))?;
        read_answer(&answer).unwrap_or_else(|| Err(no_answer("it does not speak HTTP".to_owned())))
    }
}

/// The body of an answer, or why it was refused; `None` if it is not an answer.
fn read_answer(answer: &[u8]) -> Option<Result<Value, HttpError>> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status: u16 = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let body: Value = serde_json::from_str(body).ok()?;
    if (200..300).contains(&status) {
        return Some(Ok(body));
    }
    let error = body["error"].as_str().unwrap_or("the proxy refused");
    let hint = body["hint"].as_str().map(|hint| format!(" ({hint})")).unwrap_or_default();
    Some(Err(HttpError::Refused(format!("{error}{hint}"))))
}

#[cfg(test)]
mod tests {
    use super::{AdminClient, read_answer};

    #[test]
    fn answers_and_refusals_are_told_apart() {
        let ok = b"HTTP/1.0 200 OK\r\na: b\r\n\r\n{\"x\":1}";
        assert_eq!(read_answer(ok).unwrap().unwrap()["x"], 1);
        let refused = b"HTTP/1.1 404 Not Found\r\n\r\n{\"error\":\"no\",\"hint\":\"try\"}";
        assert_eq!(read_answer(refused).unwrap().unwrap_err().to_string(), "no (try)");
        for broken in [&b"SSH-2.0"[..], b"", b"HTTP/1.1 200 OK\r\n\r\n<html>", b"\xff"] {
            assert!(read_answer(broken).is_none());
        }
    }

    #[test]
    fn only_urls_of_admin_apis_are_taken() {
        for (url, good) in [
            ("http://127.0.0.1:6433", true),
            ("http://127.0.0.1:6433/", true),
            ("http://[::1]:6433", true),
            ("127.0.0.1:6433", false),
            ("https://127.0.0.1:6433", false),
            ("http://127.0.0.1:6433/api", false),
            ("http://localhost", false),
        ] {
            assert_eq!(AdminClient::new(url).is_ok(), good, "{url}");
        }
    }
}
