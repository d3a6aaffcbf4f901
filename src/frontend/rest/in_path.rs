//! What a path or its query names; where it cannot be read, the refusal is JSON like every other.

use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::frontend::Refusal;

/// As axum's `Path`, whose refusals are plain text.
#[derive(Debug)]
pub struct InPath<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(named)) => Ok(Self(named)),
            Err(unread) => Err(Refusal::invalid(format!("the path cannot be read: {}", unread.body_text()))),
        }
    }
}

/// As axum's `Query`, likewise.
#[derive(Debug)]
pub(super) struct InQuery<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InQuery<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(unread) => Err(Refusal::invalid(format!("the query cannot be read: {}", unread.body_text()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::response::Response;
    use axum::routing::get;
    use http::{Request, StatusCode, header};
    use tower::ServiceExt;

    use super::*;

    async fn ask(path: &str) -> Response {
        let named = |InPath(model): InPath<String>| async move { model };
        let router: Router = Router::new().route("/{model}", get(named));
        router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_path_that_is_no_text_is_refused_in_json() {
        assert_eq!(ask("/%C3%BC").await.status(), StatusCode::OK);
        let refused = ask("/%FF").await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        assert_eq!(refused.headers()[header::CONTENT_TYPE], "application/json");
    }
}
