//! Sends requests on a schedule and writes a line for each: what came back, and when.
//!
//! Arrivals do not wait for answers: a request that finds every connection busy opens another. Printed to stdout, in
//! order of answering, tab-separated: due, sent and done in microseconds from the start, status (HTTP; else see `NO_ANSWER`
//! in arrivals.py), grpc-status (-1: none), bytes of the answer's body. Why a request was lost
//! goes to stderr. Nothing is judged here.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::HeaderMap;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until, timeout};

use lines::{Broken, Free, Line};
use plan::Plan;

mod lines;
mod plan;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), AnyError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let plan = Rc::new(Plan::parse(&arguments)?);
    let log = LocalSet::new().run_until(run(plan)).await?;
    std::io::stdout().write_all(log.as_bytes())?;
    Ok(())
}

async fn run(plan: Rc<Plan>) -> Result<String, AnyError> {
    let free = Rc::new(Free::new());
    for _ in 0..plan.connections {
        free.connect(&plan).await.map_err(|_| format!("expected a connection to {}, got none", plan.address))?;
    }
    let log = Rc::new(RefCell::new(String::new()));
    let mut sent = Vec::new();
    let start = Instant::now();
    for due in plan.arrivals() {
        sleep_until(start + due).await;
        let (plan, free, log) = (Rc::clone(&plan), Rc::clone(&free), Rc::clone(&log));
        sent.push(tokio::task::spawn_local(async move {
            let line = one(&plan, &free, start, due).await;
            log.borrow_mut().push_str(&line);
        }));
    }
    for request in sent {
        request.await?;
    }
    Ok(log.take())
}

async fn one(plan: &Plan, free: &Free, start: Instant, due: Duration) -> String {
    let mut sent = start.elapsed();
    let outcome = async {
        let line = free.take(plan).await?;
        sent = start.elapsed();
        let late = |_| Err(Broken::Lost(format!("no answer within {PATIENCE:?}")));
        timeout(PATIENCE, exchange(plan, &line)).await.unwrap_or_else(late).inspect(|_| free.give(line))
    };
    let (status, grpc, bytes) = match outcome.await {
        Ok(found) => found,
        Err(Broken::Lost(why)) => {
            eprintln!("{why}");
            (-1, -1, 0)
        }
        Err(Broken::NotSent) => (-2, -1, 0),
        Err(Broken::TurnedAway) => (-3, -1, 0),
        Err(Broken::Unknown(why)) => {
            eprintln!("{why}");
            (-4, -1, 0)
        }
    };
    let mut text = String::new();
    let micros = [due, sent, start.elapsed()].map(|time| time.as_micros());
    writeln!(text, "{}\t{}\t{}\t{status}\t{grpc}\t{bytes}", micros[0], micros[1], micros[2])
        .expect("a string takes every line");
    text
}

async fn exchange(plan: &Plan, line: &Line) -> Result<(i32, i32, usize), Broken> {
    let answer = line.send(plan.request()).await?;
    let status = i32::from(answer.status().as_u16());
    let early = grpc_status(answer.headers());
    let body = answer.into_body().collect().await.map_err(|error| Broken::Lost(format!("{error:?}")))?;
    let late = body.trailers().and_then(grpc_status);
    Ok((status, early.or(late).unwrap_or(-1), body.to_bytes().len()))
}

fn grpc_status(headers: &HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// An answer that takes longer counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);
