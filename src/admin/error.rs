//! An error as an API client sees it: a status code and a JSON object.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::catalog::CatalogError;
use crate::mover::RequestError;

/// What is answered instead of a result: `{"error": …, "hint": …}`.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    hint: Option<String>,
}

impl ApiError {
    /// An error with a status code and a sentence.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), hint: None }
    }

    /// The same with what would work.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl ApiError {
    /// What is answered.
    pub(super) fn body(&self) -> Value {
        let mut body = json!({ "error": self.message });
        if let Some(hint) = &self.hint {
            body["hint"] = hint.as_str().into();
        }
        body
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body())).into_response()
    }
}

impl From<CatalogError> for ApiError {
    fn from(error: CatalogError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "the admin API failed");
        let status = match error {
            CatalogError::Conflict(_) => StatusCode::CONFLICT,
            CatalogError::Replaced | CatalogError::Away | CatalogError::Unknown => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        let status = match error {
            RequestError::CanNotSplit { .. }
            | RequestError::Nodes { .. }
            | RequestError::NotTogether
            | RequestError::CanNotMerge => StatusCode::UNPROCESSABLE_ENTITY,
            RequestError::NoShard(_)
            | RequestError::NoNode(_)
            | RequestError::NotUnderWay(_)
            | RequestError::NothingKept(_) => StatusCode::NOT_FOUND,
            RequestError::AlreadyThere { .. }
            | RequestError::UnderWay { .. }
            | RequestError::OnTheWay(_)
            | RequestError::NotToCallOff { .. }
            | RequestError::InLastStep(_)
            | RequestError::TakesNone { .. } => StatusCode::CONFLICT,
            RequestError::Catalog(error) => return error.into(),
        };
        Self::new(status, error.to_string())
    }
}
