//! How etcd is spoken to: its JSON gateway, a request at a time, at whichever member answers.
//! <https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/>

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::EtcdConfig;

/// How long a member may take to be connected to, and to answer.
const CONNECT: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(3);
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Codes of gRPC that say that nothing was done: a wrong request, nobody who may, no room.
const NOTHING_DONE: [u64; 6] = [3, 5, 7, 8, 9, 11];
/// The code of gRPC for a token that is too old.
const UNAUTHENTICATED: u64 = 16;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody was reached: nothing was done.
    #[error("{endpoint} is not reached: {reason}")]
    NotReached {
        /// Who was asked.
        endpoint: String,
        /// Why not.
        reason: String,
    },
    /// It says no: nothing was done, and nothing will be.
    #[error("{endpoint} refuses it: {reason}")]
    Refused {
        /// Who was asked.
        endpoint: String,
        /// Its words.
        reason: String,
    },
    /// It was asked; whether it was done is not known.
    #[error("{endpoint} did not answer: {reason}")]
    NoAnswer {
        /// Who was asked.
        endpoint: String,
        /// What came instead.
        reason: String,
    },
}

/// The members of an etcd cluster.
pub(super) struct Gateway {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    config: Arc<EtcdConfig>,
    /// Which endpoint answered last.
    current: AtomicUsize,
    /// Requests since one was answered.
    unanswered: AtomicUsize,
    token: Mutex<Option<String>>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Gateway {
    pub(super) fn new(config: Arc<EtcdConfig>) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        http.set_nodelay(true);
        let tls = (*config.tls).clone();
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let client =
            Client::builder(TokioExecutor::new()).build(https.enable_http1().wrap_connector(http));
        let (current, unanswered) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { client, config, current, unanswered, token: Mutex::new(None) }
    }

    /// Whether no member has answered of late.
    pub(super) fn is_away(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) > self.config.endpoints.len()
    }

    /// Asks one member once; the next request goes to another one if this one does not answer.
    pub(super) async fn call(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let current = self.current.load(Ordering::Relaxed);
        let endpoint = &self.config.endpoints[current % self.config.endpoints.len()];
        let answered = match self.ask_with_token(endpoint, path, body).await {
            Err(Answered::Told { code: UNAUTHENTICATED, .. }) => {
                *self.token.lock() = None;
                self.ask_with_token(endpoint, path, body).await
            }
            answered => answered,
        };
        let endpoint = endpoint.clone();
        let failure = match answered {
            Ok(answer) => {
                self.unanswered.store(0, Ordering::Relaxed);
                return Ok(answer);
            }
            Err(Answered::Told { code, reason })
                if NOTHING_DONE.contains(&code) || code == UNAUTHENTICATED =>
            {
                self.unanswered.store(0, Ordering::Relaxed);
                return Err(Failure::Refused { endpoint, reason });
            }
            Err(Answered::Told { reason, .. } | Answered::Broken(reason)) => {
                Failure::NoAnswer { endpoint, reason }
            }
            Err(Answered::NotReached(reason)) => Failure::NotReached { endpoint, reason },
        };
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        self.current.store(current.wrapping_add(1), Ordering::Relaxed);
        Err(failure)
    }

    async fn ask_with_token(
        &self,
        endpoint: &str,
        path: &str,
        body: &Value,
    ) -> Result<Value, Answered> {
        let token = self.token(endpoint).await?;
        self.ask(endpoint, path, body, token.as_deref()).await
    }

    /// What requests show, if the members want to know who asks.
    async fn token(&self, endpoint: &str) -> Result<Option<String>, Answered> {
        let Some((user, password)) = &self.config.user else { return Ok(None) };
        let known = self.token.lock().clone();
        if known.is_some() {
            return Ok(known);
        }
        let who = json!({ "name": user, "password": password.reveal() });
        let answer = self.ask(endpoint, "auth/authenticate", &who, None).await;
        // Nothing was asked for yet.
        let not_reached = |answered| match answered {
            Answered::Broken(reason) => Answered::NotReached(reason),
            other => other,
        };
        let answer = answer.map_err(not_reached)?;
        let token = answer["token"].as_str().unwrap_or_default().to_owned();
        *self.token.lock() = Some(token.clone());
        Ok(Some(token))
    }

    async fn ask(
        &self,
        endpoint: &str,
        path: &str,
        body: &Value,
        token: Option<&str>,
    ) -> Result<Value, Answered> {
        let exchange = async {
            let response = self.send(endpoint, path, body, token).await?;
            let good = response.status().is_success();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| Answered::Broken(error.to_string()))?.to_bytes();
            let answer: Value = serde_json::from_slice(&body)
                .map_err(|_| Answered::Broken("it does not speak as etcd does".to_owned()))?;
            if good {
                return Ok(answer);
            }
            let reason = answer["message"].as_str().or(answer["error"].as_str());
            let reason = reason.unwrap_or("no reason").to_owned();
            Err(Answered::Told { code: answer["code"].as_u64().unwrap_or_default(), reason })
        };
        let slow = || Answered::Broken(format!("nothing within {} s", ANSWER.as_secs()));
        timeout(ANSWER, exchange).await.unwrap_or_else(|_| Err(slow()))
    }

    async fn send(
        &self,
        endpoint: &str,
        path: &str,
        body: &Value,
        token: Option<&str>,
    ) -> Result<Response<Incoming>, Answered> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{endpoint}/v3/{path}"))
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Full::new(Bytes::from(body.to_string())));
        let request = request.map_err(|error| Answered::NotReached(error.to_string()))?;
        self.client.request(request).await.map_err(|error| {
            let reason = whole_story(&error);
            if error.is_connect() { Answered::NotReached(reason) } else { Answered::Broken(reason) }
        })
    }

    /// Opens a stream of answers at the member that answered last.
    pub(super) async fn stream(&self, path: &str, body: &Value) -> Result<Answers, String> {
        let current = self.current.load(Ordering::Relaxed);
        let endpoint = &self.config.endpoints[current % self.config.endpoints.len()];
        let told = |answered| match answered {
            Answered::NotReached(reason)
            | Answered::Broken(reason)
            | Answered::Told { reason, .. } => reason,
        };
        let open = async {
            let token = self.token(endpoint).await?;
            self.send(endpoint, path, body, token.as_deref()).await
        };
        let response = timeout(ANSWER, open).await.map_err(|_| "it is slow".to_owned())?;
        let response = response.map_err(told)?;
        if !response.status().is_success() {
            *self.token.lock() = None;
            return Err(format!("{endpoint} says {}", response.status()));
        }
        Ok(Answers { body: response.into_body(), read: BytesMut::new() })
    }
}

/// Answers that come one by one.
pub(super) struct Answers {
    body: Incoming,
    read: BytesMut,
}

impl Answers {
    /// The next one.
    pub(super) async fn next(&mut self) -> Result<Value, String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                return serde_json::from_slice(&line).map_err(|error| error.to_string());
            }
            if self.read.len() > ANSWER_BYTES_MAX {
                return Err("an answer is too long".to_owned());
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    self.read.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
                }
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("it has ended".to_owned()),
            }
        }
    }
}

/// What came of one exchange, if not what was asked for.
enum Answered {
    NotReached(String),
    Broken(String),
    Told { code: u64, reason: String },
}

/// An error with its causes.
fn whole_story(error: &dyn std::error::Error) -> String {
    let mut story = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        story = format!("{story}: {error}");
        cause = error.source();
    }
    story
}

/// Bytes as the gateway has them.
pub(super) fn encoded(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of a field; none if it is not there.
pub(super) fn decoded(field: &Value) -> Option<Vec<u8>> {
    field.as_str().map_or(Some(Vec::new()), |text| STANDARD.decode(text).ok())
}

/// A number, which the gateway has as text; 0 is left out.
pub(super) fn number(field: &Value) -> u64 {
    field.as_str().and_then(|text| text.parse().ok()).or(field.as_u64()).unwrap_or(0)
}
