//! A client that keeps everything a server says: names, types, raw values, tags, SQLSTATEs.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection.
pub struct Wire {
    stream: TcpStream,
}

/// What a statement gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Name, type OID and type modifier of each column.
    pub columns: Vec<(String, u32, i32)>,
    /// The rows; each value as its bytes.
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
    /// Command tags.
    pub tags: Vec<String>,
    /// The SQLSTATE and the message of an error.
    pub error: Option<(String, String)>,
}

impl Wire {
    /// Connects without a password.
    pub async fn connect(port: u16, database: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut body = 196_608_i32.to_be_bytes().to_vec();
        for text in ["user", "postgres", "database", database, ""] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        let mut message = i32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
        message.extend(body);
        stream.write_all(&message).await.unwrap();
        let mut wire = Self { stream };
        assert_eq!(wire.outcome().await.error, None);
        wire
    }

    /// Runs a text by the simple protocol.
    pub async fn simple(&mut self, sql: &str) -> Outcome {
        self.send(b'Q', &[sql.as_bytes(), b"\0"].concat()).await;
        self.outcome().await
    }

    /// Runs a statement by the extended protocol with results in binary.
    pub async fn binary(&mut self, sql: &str, parameters: &[Option<String>]) -> Outcome {
        let mut bind = b"\0\0\0\0".to_vec();
        bind.extend(u16::try_from(parameters.len()).unwrap().to_be_bytes());
        for parameter in parameters {
            match parameter {
                None => bind.extend((-1_i32).to_be_bytes()),
                Some(text) => {
                    bind.extend(i32::try_from(text.len()).unwrap().to_be_bytes());
                    bind.extend_from_slice(text.as_bytes());
                }
            }
        }
        bind.extend([0, 1, 0, 1]);
        let mut out = frame(b'P', &[b"\0", sql.as_bytes(), b"\0\0\0"].concat());
        out.extend(frame(b'B', &bind));
        out.extend(frame(b'D', b"P\0"));
        out.extend(frame(b'E', b"\0\0\0\0\0"));
        out.extend(frame(b'S', b""));
        self.stream.write_all(&out).await.unwrap();
        self.outcome().await
    }

    async fn send(&mut self, tag: u8, body: &[u8]) {
        self.stream.write_all(&frame(tag, body)).await.unwrap();
    }

    /// Everything up to `ReadyForQuery`.
    async fn outcome(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            let tag = self.stream.read_u8().await.unwrap();
            let length = usize::try_from(self.stream.read_i32().await.unwrap()).unwrap() - 4;
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.unwrap();
            match tag {
                b'T' => outcome.columns = columns(&body),
                b'D' => outcome.rows.push(row(&body)),
                // A line of COPY TO STDOUT.
                b'd' => outcome.rows.push(vec![Some(body)]),
                b'C' => outcome.tags.push(text(&body)),
                b'E' => outcome.error = Some(error(&body)),
                b'Z' => return outcome,
                _ => {}
            }
        }
    }
}

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![tag];
    frame.extend(i32::try_from(body.len() + 4).unwrap().to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

/// A C string at the start of `bytes`.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap();
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn columns(body: &[u8]) -> Vec<(String, u32, i32)> {
    let mut columns = Vec::new();
    let mut at = 2;
    while at < body.len() {
        let name = text(&body[at..]);
        at += name.len() + 1;
        let oid = u32::from_be_bytes(body[at + 6..at + 10].try_into().unwrap());
        let modifier = i32::from_be_bytes(body[at + 12..at + 16].try_into().unwrap());
        columns.push((name, oid, modifier));
        at += 18;
    }
    columns
}

fn row(body: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut row = Vec::new();
    let mut at = 2;
    while at < body.len() {
        let length = i32::from_be_bytes(body[at..at + 4].try_into().unwrap());
        at += 4;
        row.push(usize::try_from(length).ok().map(|length| {
            at += length;
            body[at - length..at].to_vec()
        }));
    }
    row
}

fn error(body: &[u8]) -> (String, String) {
    let (mut code, mut message) = (String::new(), String::new());
    for field in body.split(|byte| *byte == 0).filter(|field| !field.is_empty()) {
        let value = || String::from_utf8_lossy(&field[1..]).into_owned();
        match field[0] {
            b'C' => code = value(),
            b'M' => message = value(),
            b'D' => message = format!("{message} ({})", value()),
            _ => {}
        }
    }
    (code, message)
}
