//! Starts the two echo servers: `echo HTTP_ADDR GRPC_ADDR`.
//!
//! They are the upper limits that a server on hyper and tonic is measured against. They know no model and check nothing.

use std::net::SocketAddr;

mod grpc;
mod messages;
mod rest;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let mut addresses = std::env::args().skip(1);
    let mut next =
        || -> Result<SocketAddr, AnyError> { Ok(addresses.next().ok_or("expected HTTP_ADDR GRPC_ADDR")?.parse()?) };
    let (http, grpc) = (next()?, next()?);
    tokio::try_join!(rest::serve(http), grpc::serve(grpc))?;
    Ok(())
}
