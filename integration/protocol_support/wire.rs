//! The socket of such a client, and its answers as text that can be compared.

use std::time::Duration;

use foreshard::backend::NodeAddress;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that has logged in to a server that trusts.
pub struct RawClient {
    stream: TcpStream,
    incoming: Vec<u8>,
    step: usize,
    /// What the login answered, less the key data.
    pub greeting: Vec<String>,
}

impl RawClient {
    /// Logs in as `postgres` with further startup parameters.
    pub async fn connect(port: u16, database: &str, parameters: &[(&str, &str)]) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        let fixed = [("user", "postgres"), ("database", database)];
        for (name, value) in fixed.iter().chain(parameters) {
            for text in [name, value] {
                body.extend_from_slice(text.as_bytes());
                body.push(0);
            }
        }
        body.push(0);
        stream.write_all(&(body.len() as u32 + 4).to_be_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let mut client = Self { stream, incoming: Vec::new(), step: 0, greeting: Vec::new() };
        client.greeting = client.until_ready(1).await;
        client.greeting.sort();
        client
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The answers up to `count` times ReadyForQuery, or to the end of the connection.
    pub async fn until_ready(&mut self, mut count: usize) -> Vec<String> {
        let mut answers = Vec::new();
        while count > 0 {
            match self.next().await {
                None => {
                    answers.push("(closed)".to_owned());
                    break;
                }
                Some((tag, body)) => {
                    count -= usize::from(tag == b'Z');
                    answers.extend(shown(tag, &body));
                }
            }
        }
        answers
    }

    /// The next `count` answers.
    pub async fn next_answers(&mut self, count: usize) -> Vec<String> {
        let mut answers = Vec::new();
        while answers.len() < count {
            match self.next().await {
                None => {
                    answers.push("(closed)".to_owned());
                    break;
                }
                Some((tag, body)) => answers.extend(shown(tag, &body)),
            }
        }
        answers
    }

    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let [tag, a, b, c, d, ..] = self.incoming[..] {
                let len = u32::from_be_bytes([a, b, c, d]) as usize + 1;
                if self.incoming.len() >= len {
                    let rest = self.incoming.split_off(len);
                    let frame = std::mem::replace(&mut self.incoming, rest);
                    return Some((tag, frame[5..].to_vec()));
                }
            }
            let mut chunk = vec![0; 16 * 1024];
            let read = timeout(PATIENCE, self.stream.read(&mut chunk)).await;
            let read =
                read.unwrap_or_else(|_| panic!("no answer after {PATIENCE:?}, step {}", self.step));
            match read {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.incoming.extend_from_slice(&chunk[..count]),
            }
        }
    }
}

/// One answer, every byte of it: tag and body. Key data, process ids in notifications and object
/// ids of tables differ by nature.
fn shown(tag: u8, body: &[u8]) -> Option<String> {
    let without_oids;
    let body = match tag {
        b'K' => return None,
        b'A' => &body[4..],
        b'T' => {
            without_oids = without_table_oids(body);
            &without_oids
        }
        _ => body,
    };
    let text: String = if body.len() > 2_000 {
        let sum = body.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
        format!("{} bytes, sum {sum}", body.len())
    } else {
        body.escape_ascii().to_string()
    };
    Some(format!("{} {text}", char::from(tag)))
}

fn without_table_oids(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    let mut at = 2;
    while at < body.len() {
        at += body[at..].iter().position(|byte| *byte == 0).unwrap() + 1;
        body[at..at + 4].fill(0);
        at += 18;
    }
    body
}

/// An error of the proxy's own has no place in PostgreSQL's source: without it.
pub fn without_source(answer: &str) -> String {
    let place = |field: &&str| !(field.starts_with(['F', 'L', 'R']) && field.len() > 1);
    match answer.as_bytes().first() {
        Some(b'E' | b'N') => {
            let fields: Vec<_> = answer.split("\\x00").collect();
            let (first, rest) = fields.split_first().unwrap();
            let rest: Vec<_> = rest.iter().copied().filter(place).collect();
            std::iter::once(*first).chain(rest).collect::<Vec<_>>().join("\\x00")
        }
        _ => answer.to_owned(),
    }
}

/// What a server answers to each step: the bytes of the step are sent at once, then answers are
/// read up to as many ReadyForQuery as it says.
pub async fn answers_of(
    address: &NodeAddress,
    database: &str,
    steps: &[(Vec<Vec<u8>>, usize)],
) -> Vec<Vec<String>> {
    let mut client = RawClient::connect(address.port, database, &[]).await;
    let mut answers = Vec::new();
    for (index, (messages, ready)) in steps.iter().enumerate() {
        client.step = index;
        client.send(&messages.concat()).await;
        answers.push(client.until_ready(*ready).await);
    }
    answers
}
