//! ModelStreamInfer: many requests on one stream, of any models, answered as they finish.
//!
//! The stream owns the futures of its requests: it reads no further while too many are under way, and a client that
//! leaves drops them all. There is no task and no channel.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered, Stream, StreamExt};
use prost::Message;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::metadata::MetadataMap;
use tracing::Span;

use super::bounded::Decoded;
use super::convert::Arrival;
use super::{encode, infer, status};
use crate::access::Caller;
use crate::error::ErrorCode;
use crate::frontend::parameters::Value;
use crate::frontend::{Frontend, Refusal, SharedMemory};
use crate::proto::inference::{ModelInferResponse, ModelStreamInferResponse};
use crate::telemetry::spans::Recording;

/// The requests of one stream, in the order they came.
pub(super) type Requests = BoxStream<'static, Result<Decoded, Status>>;

/// The answers of one stream.
pub(super) struct Answers {
    frontend: Arc<Frontend>,
    /// Who opened it.
    caller: Caller,
    requests: Requests,
    in_flight: FuturesUnordered<BoxFuture<'static, Answered>>,
    in_flight_max: usize,
    /// When the whole stream has to be over.
    deadline: Option<Instant>,
    /// Whether the first failure ends the stream, as its status.
    fails_whole: bool,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    memory: SharedMemory,
    reading: Reading,
    /// Of the client's trace: messages are read and answered within it.
    span: Span,
    /// Of the call, where it is sampled; each of its messages has spans of its own.
    recording: Option<Recording>,
}

/// What happens to further requests.
enum Reading {
    Goes,
    /// The client has sent its last one.
    Over,
    /// None are read any more, and this is why the stream ends once those under way are answered.
    Ends(Status),
    Ended,
}

/// One request's answer, and the id that its failure is told by.
struct Answered {
    id: String,
    result: Result<ModelInferResponse, Refusal>,
}

impl Answers {
    pub(super) fn new(
        frontend: Arc<Frontend>,
        (caller, metadata): (Caller, &MetadataMap),
        deadline: Option<Instant>,
        requests: Requests,
        closing: CancellationToken,
    ) -> Self {
        let in_flight_max = frontend.limits.load().stream_in_flight_max;
        let fails_whole = metadata.get(FAILS_WHOLE).is_some_and(|value| value.as_encoded_bytes() == b"true");
        let closing = Box::pin(closing.cancelled_owned());
        let in_flight = FuturesUnordered::new();
        let (reading, span) = (Reading::Goes, Span::current());
        let memory = frontend.memory.for_call(metadata.as_ref(), &caller);
        Self {
            frontend,
            caller,
            requests,
            in_flight,
            in_flight_max,
            deadline,
            fails_whole,
            closing,
            memory,
            reading,
            span,
            recording: None,
        }
    }

    /// The same with its spans.
    pub(super) fn recorded(self, recording: Option<Recording>) -> Self {
        Self { recording, ..self }
    }

    /// Reads requests until there are enough, or none for now.
    fn read(&mut self, cx: &mut Context<'_>) {
        if matches!(self.reading, Reading::Goes) && self.closing.poll_unpin(cx).is_ready() {
            self.reading = Reading::Ends(Refusal::new(ErrorCode::Unavailable, "the server is ending").into());
        }
        while matches!(self.reading, Reading::Goes) && self.in_flight.len() < self.in_flight_max {
            match self.requests.poll_next_unpin(cx) {
                Poll::Pending => return,
                Poll::Ready(None) => self.reading = Reading::Over,
                Poll::Ready(Some(Err(error))) => self.refuse(error),
                Poll::Ready(Some(Ok(decoded))) => self.begin(decoded),
            }
        }
    }

    fn begin(&self, decoded: Decoded) {
        let (frontend, memory) = (Arc::clone(&self.frontend), self.memory.clone());
        let Decoded { message, at } = decoded;
        let arrival = Arrival { at, deadline: self.deadline };
        // A key may have been taken away since.
        let caller = frontend.access.again(&self.caller, SystemTime::now());
        let recording = self.recording.as_ref().map(Recording::message);
        let mut outcome = frontend.pipeline.begin(caller.as_ref().cloned().unwrap_or_default()).recorded(recording);
        let answered = async move {
            let id = message.id.clone();
            if let Err(denied) = caller {
                outcome.settle(Some(denied.code()));
                return Answered { id, result: Err(denied.into()) };
            }
            let result = infer::respond(&frontend, arrival, message, &memory, &mut outcome).await;
            // It leaves as it is answered here: nothing holds it back until it is counted.
            let result = result.and_then(|(message, _)| {
                frontend.check_leaving(message.encoded_len() as u64)?;
                Ok(message)
            });
            outcome.settle(result.as_ref().err().map(|refusal| refusal.code));
            Answered { id, result }
        };
        self.in_flight.push(answered.boxed());
    }

    /// A message that could not be taken counts as a request, and ends the stream.
    fn refuse(&mut self, error: Status) {
        let code = status::code(&error);
        // A client that leaves has sent no message.
        if code != ErrorCode::Cancelled {
            self.frontend.pipeline.begin(self.caller.clone()).settle(Some(code));
        }
        self.reading = Reading::Ends(status::in_our_codes(error));
    }

    fn finish_recording(&mut self, failed: Option<ErrorCode>) {
        if let Some(recording) = self.recording.take() {
            recording.finish(failed);
        }
    }

    fn message(&mut self, answered: Answered) -> Result<ModelStreamInferResponse, Status> {
        match answered.result {
            Ok(mut response) => {
                // Every request has one answer here, which is therefore its last.
                response.parameters.insert(FINAL.to_owned(), encode::parameter(Value::Bool(true)));
                Ok(ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) })
            }
            Err(refusal) if self.fails_whole => {
                self.reading = Reading::Ended;
                self.in_flight.clear();
                self.finish_recording(Some(refusal.code));
                Err(refusal.into())
            }
            Err(refusal) => Ok(failure(answered.id, refusal)),
        }
    }
}

/// A failed request: the stream goes on, so that the answer itself must say which one it was.
fn failure(id: String, refusal: Refusal) -> ModelStreamInferResponse {
    let status = Status::from(refusal);
    let message = status.message();
    let error_message = if id.is_empty() { message.to_owned() } else { format!("[request id: {id}] {message}") };
    let parameters = HashMap::from([(FINAL.to_owned(), encode::parameter(Value::Bool(true)))]);
    let infer_response = ModelInferResponse { id, parameters, ..ModelInferResponse::default() };
    ModelStreamInferResponse { error_message, infer_response: Some(infer_response) }
}

impl Stream for Answers {
    type Item = Result<ModelStreamInferResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let span = self.span.clone();
        let _entered = span.enter();
        self.read(cx);
        match self.in_flight.poll_next_unpin(cx) {
            Poll::Ready(Some(answered)) => return Poll::Ready(Some(self.message(answered))),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => {}
        }
        if matches!(self.reading, Reading::Goes) {
            return Poll::Pending;
        }
        match std::mem::replace(&mut self.reading, Reading::Ended) {
            Reading::Ends(status) => {
                self.finish_recording(Some(status::code(&status)));
                Poll::Ready(Some(Err(status)))
            }
            Reading::Goes | Reading::Over | Reading::Ended => {
                self.finish_recording(None);
                Poll::Ready(None)
            }
        }
    }
}

/// Metadata by which a client asks for failures as the stream's status.
const FAILS_WHOLE: &str = "triton_grpc_error";
/// Response parameter of a request's last answer.
const FINAL: &str = "triton_final_response";
