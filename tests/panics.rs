//! Panics become events of the log. Whoever installs a panic hook does it for a whole process, so that the one under
//! test runs in a process of its own: this file's other test.
#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::process::Command;
use std::sync::mpsc;
use std::thread;

use kinglet::config::Config;
use kinglet::engine::Pool;
use kinglet::telemetry::config::LogFormat;
use kinglet::telemetry::logs;
use serde_json::Value;

#[test]
fn a_panic_is_one_event_of_the_log() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", PANICKING, "--ignored", "--nocapture"]).env_remove("RUST_BACKTRACE");
    let said = command.output().unwrap();
    assert!(said.status.success(), "{said:?}");
    let said = String::from_utf8(said.stderr).unwrap();
    let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(events.len(), 2, "one line for a panic, and nothing else: {said}");
    let (job, weights) = (&events[0], &events[1]);
    assert_eq!(job["panic"], "node \"x\"\n\u{1b}[31mforged");
    assert!(!said.contains('\u{1b}') && said.contains("\\n"), "{said}");
    assert_eq!((&job["level"], &job["message"]), (&"ERROR".into(), &"a thread has panicked".into()));
    assert!(job["thread"].as_str().unwrap().starts_with("kinglet-"), "{job}");
    assert!(job["location"].as_str().unwrap().starts_with("tests/panics.rs:"), "{job}");
    assert_eq!((&weights["thread"], weights["panic"].as_str().unwrap().len()), (&"unnamed".into(), 1000));
    assert!(job["backtrace"].is_null(), "nobody asked for one");
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn a_process_that_panics() {
    let telemetry = kinglet::telemetry::TelemetryConfig { log_format: LogFormat::Json, ..Config::default().telemetry };
    logs::start(&telemetry).unwrap();
    let pool = Pool::start(Some(1));
    let (held, ended) = mpsc::sync_channel::<()>(1);
    pool.spawn(pool.try_acquire().unwrap(), 1, move |_| {
        let _held = held;
        panic!("node \"x\"\n\u{1b}[31mforged");
    });
    assert!(ended.recv().is_err());
    thread::spawn(|| panic!("{}", "w".repeat(5000))).join().unwrap_err();
}

const PANICKING: &str = "a_process_that_panics";
