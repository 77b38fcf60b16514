//! Everything that the cloud can say no with (RFC 9457). The set is closed, names no person and
//! repeats nothing of the request.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use std::time::Duration;

/// Why a request was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The sender's bytes are not the message of this endpoint.
    Malformed,
    /// The sender's certificate is not the current one of a store.
    CertificateNotCurrent,
    /// No such endpoint, or nothing there that this store may see.
    NotFound,
    MethodNotAllowed,
    /// The body did not arrive in time.
    TooSlow,
    /// Another person, store or request has this id already.
    Conflict,
    /// The store is in another region than this cloud.
    OutsideRegion,
    /// The store's keys are not those of its first hello.
    KeysChanged,
    /// The store has not said hello yet.
    HelloFirst,
    /// The person, or the claim, was forgotten and cannot come back.
    Forgotten,
    TooLarge,
    NotCbor,
    /// The record in the registration does not fit what is said about it.
    RecordRefused,
    /// This cloud does not keep records of that custody.
    CustodyRefused,
    /// This cloud looks nobody up without a claim.
    SearchRefused,
    /// The log's checkpoint is not signed by the store that sent it.
    NotSigned,
    /// The proof does not lead from the checkpoint cosigned last to this one.
    NotConsistent,
    /// Too many requests; the same one is welcome after this time.
    TooMany(Duration),
    /// The cloud's fault.
    Internal,
    /// The cloud has too much to do at once.
    Busy,
    /// The cloud keeps as many people as it may.
    Full,
}

impl Problem {
    /// Notes the cause, which the sender is not told, and becomes [`Problem::Internal`].
    pub(crate) fn internal(cause: impl std::error::Error) -> Self {
        tracing::error!(%cause, "request failed");
        Self::Internal
    }

    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::CertificateNotCurrent | Self::OutsideRegion | Self::NotSigned => {
                StatusCode::FORBIDDEN
            }
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict | Self::KeysChanged | Self::HelloFirst => StatusCode::CONFLICT,
            Self::Forgotten => StatusCode::GONE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotCbor => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RecordRefused
            | Self::CustodyRefused
            | Self::SearchRefused
            | Self::NotConsistent => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Full => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    /// The last part of the type URI; also the label in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::CertificateNotCurrent => "certificate-not-current",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::TooSlow => "too-slow",
            Self::Conflict => "conflict",
            Self::OutsideRegion => "outside-region",
            Self::KeysChanged => "keys-changed",
            Self::HelloFirst => "hello-first",
            Self::Forgotten => "forgotten",
            Self::TooLarge => "too-large",
            Self::NotCbor => "not-cbor",
            Self::RecordRefused => "record-refused",
            Self::CustodyRefused => "custody-refused",
            Self::SearchRefused => "search-refused",
            Self::NotSigned => "not-signed",
            Self::NotConsistent => "not-consistent",
            Self::TooMany(_) => "too-many-requests",
            Self::Internal => "internal",
            Self::Busy => "busy",
            Self::Full => "full",
        }
    }

    /// Whose fault it is and what to do.
    const fn title(self) -> &'static str {
        match self {
            Self::Malformed => "The body is not the CBOR message of this endpoint.",
            Self::CertificateNotCurrent => {
                "This certificate belongs to no current store: install the newest bundle."
            }
            Self::NotFound => "There is nothing here for this store.",
            Self::MethodNotAllowed => "This endpoint does not take this method.",
            Self::TooSlow => "The body did not arrive in time: send it again.",
            Self::Conflict => "The id belongs to something else already: do not send this again.",
            Self::OutsideRegion => "This cloud does not serve the region that the store is in.",
            Self::KeysChanged => {
                "The store's keys are not those of its first hello. If the box was replaced, the \
                 operator of the cloud runs `palmgate-cloud store reset`."
            }
            Self::HelloFirst => "Send a hello before anything else.",
            Self::Forgotten => "Forgotten for good: a new enrolment needs new ids.",
            Self::TooLarge => "The body is longer than this endpoint takes.",
            Self::NotCbor => "The content type must be application/cbor.",
            Self::RecordRefused => {
                "The sealed record cannot be opened or does not fit the registration around it."
            }
            Self::CustodyRefused => "This cloud does not keep records of this custody.",
            Self::SearchRefused => {
                "This cloud looks nobody up without a claim: ask with the person's claim."
            }
            Self::NotSigned => "The checkpoint is not one of this store's ledger, signed by it.",
            Self::NotConsistent => {
                "The proof does not lead from the checkpoint cosigned last to this one: the ledger \
                 was forked or rewritten. Keep both checkpoints."
            }
            Self::TooMany(_) => "Too many requests: wait as long as Retry-After says.",
            Self::Internal => "The cloud failed and promises nothing: send it again later.",
            Self::Busy => "The cloud is busy: send it again later.",
            Self::Full => "The cloud keeps as many people as it is allowed to.",
        }
    }

    const fn retry_after(self) -> Option<u64> {
        match self {
            Self::TooMany(wait) => Some(wait.as_secs() + 1),
            Self::Busy => Some(1),
            Self::Internal => Some(10),
            _ => None,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "type": format!("urn:palmgate:problem:{}", self.name()),
            "title": self.title(),
            "status": self.status().as_u16(),
        });
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status(), content_type, body.to_string()).into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}
