//! A page of a metrics server on the network of the nodes: plain HTTP, one request a connection.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not `http://host[:port]/path`.
    #[error("{0:?} is no URL that can be asked: write http://host:port/path")]
    Url(String),
    /// Nobody answers, or not in time.
    #[error("no answer from {url}: {reason}")]
    NoAnswer {
        /// Who was asked.
        url: String,
        /// Why.
        reason: String,
    },
}

/// The host with its port, and the path, of a URL that can be asked.
pub fn parts(url: &str) -> Result<(String, String), FetchError> {
    let bad = || FetchError::Url(url.to_owned());
    let rest = url.strip_prefix("http://").ok_or_else(bad)?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    if host.is_empty() || !url.bytes().all(|byte| byte.is_ascii_graphic()) || host.contains('@') {
        return Err(bad());
    }
    let has_port = host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
    let host = if has_port { host.to_owned() } else { format!("{host}:80") };
    Ok((host, path.to_owned()))
}

/// The body of a page, of `bytes_max` at the most.
///
/// # Errors
/// There is none.
pub async fn get(url: &str, bytes_max: u64) -> Result<String, FetchError> {
    let (host, path) = parts(url)?;
    let no_answer = |reason: String| FetchError::NoAnswer { url: url.to_owned(), reason };
    // HTTP/1.0: the answer is not in chunks and ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nhost: {host}\r\naccept: */*\r\n\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(&host).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(bytes_max).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(DEADLINE, exchange)
        .await
        .map_err(|_| no_answer(format!("nothing within {} s", DEADLINE.as_secs())))?
        .map_err(|error| no_answer(error.to_string()))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| no_answer("it does not speak HTTP, or says too much".to_owned()))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        return Err(no_answer(format!("status {status}")));
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn only_plain_urls_are_asked() {
        for (url, expected) in [
            ("http://n1:9100/metrics", Some(("n1:9100", "/metrics"))),
            ("http://n1", Some(("n1:80", "/"))),
            ("http://10.0.0.1/a?b=c", Some(("10.0.0.1:80", "/a?b=c"))),
            ("https://n1:9100", None),
            ("http://user:secret@n1/", None),
            ("http://n1/a b", None),
            ("http:///x", None),
        ] {
            let expected = expected.map(|(host, path)| (host.to_owned(), path.to_owned()));
            assert_eq!(parts(url).ok(), expected, "{url}");
        }
    }
}
