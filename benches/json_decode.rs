//! How fast one core turns JSON tensors into bytes: `cargo bench --bench json_decode`.
//!
//! Prints MB of JSON text per second, the best of many passes, for numbers as common clients write them.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use kinglet::config::Config;
use kinglet::frontend::rest::json_request;

fn main() {
    let short: fn(usize) -> String = |i| format!("{:.3}", noise(i));
    let long: fn(usize) -> String = |i| format!("{:.17}", noise(i));
    let shortest: fn(usize) -> String = |i| noise(i).to_string();
    let whole: fn(usize) -> String = |i| (i % 256).to_string();
    for (name, dtype, print) in [
        ("3 decimals", "FP32", short),
        ("17 decimals", "FP32", long),
        ("shortest f64", "FP32", shortest),
        ("shortest f64", "FP64", shortest),
        ("0..255", "UINT8", whole),
    ] {
        for elements in [16, 784, 150_528] {
            let body = body(dtype, elements, print);
            let speed = speed(&body);
            println!("{dtype:<6} {name:<13} {elements:>7} elements {:>9} bytes {speed:>7.0} MB/s", body.len());
        }
    }
}

fn body(dtype: &str, elements: usize, print: fn(usize) -> String) -> String {
    let values: Vec<String> = (0..elements).map(print).collect();
    let data = values.join(",");
    format!(r#"{{"inputs":[{{"name":"x","shape":[1,{elements}],"datatype":"{dtype}","data":[{data}]}}]}}"#)
}

/// Values of about one, all digits in use, the same in every run.
fn noise(index: usize) -> f64 {
    let mixed = (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    let unit = mixed as f64 / (1u64 << 53) as f64;
    unit * 2.0 - 1.0
}

#[expect(clippy::cast_precision_loss, reason = "body lengths are far below 2^52")]
fn speed(body: &str) -> f64 {
    let limits = Config::default().limits;
    let started = Instant::now();
    let mut best = Duration::MAX;
    while started.elapsed() < Duration::from_millis(500) {
        let pass = Instant::now();
        let request = json_request::parse(black_box(body.as_bytes()), &limits).expect("the body is valid");
        best = best.min(pass.elapsed());
        black_box(request);
    }
    body.len() as f64 / best.as_secs_f64() / 1e6
}
