//! gRPC end to end, and what it shares with REST: a generated client against a server in this process.
#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

#[path = "grpc/calls.rs"]
mod calls;
#[path = "grpc/compressed.rs"]
mod compressed;
#[path = "grpc/fixture.rs"]
mod fixture;
// Stays what the generator emits.
#[rustfmt::skip]
#[path = "support/inference_client.rs"]
mod inference_client;
#[path = "grpc/leaving.rs"]
mod leaving;
#[path = "grpc/limits.rs"]
mod limits;
#[path = "grpc/outcomes.rs"]
mod outcomes;
#[path = "grpc/serving.rs"]
mod serving;
#[path = "grpc/stream.rs"]
mod stream;
#[path = "grpc/surroundings.rs"]
mod surroundings;
