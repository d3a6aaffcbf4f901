//! Room 2: bounds the work in flight, by requests and by bytes, before that the bytes of bodies that are still arriving,
//! and behind it those of answers that nobody has taken yet. Past this room nothing is refused for global load but such
//! answers.

pub mod config;
pub mod outflow;
mod receiving;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
pub use config::AdmissionConfig;
pub use outflow::{Outflow, Outgoing};
pub use receiving::Held;
use receiving::Receiving;

use crate::infer::InferRequest;
use crate::telemetry::Metrics;

#[derive(Debug)]
pub struct Admission {
    config: Arc<ArcSwap<AdmissionConfig>>,
    in_flight: Arc<InFlight>,
    receiving: Arc<Receiving>,
}

/// A place without its request, which has yet to be decoded. Dropping it gives it back.
#[derive(Debug)]
pub struct Reserved(Permit);

/// A request that holds its place. Dropping it gives the place back, so an abandoned request leaks nothing.
#[derive(Debug)]
pub struct Admitted {
    pub request: InferRequest,
    place: Place,
    /// Of its answer, where that is there and large.
    outgoing: Option<Outgoing>,
}

/// A place, or the one that a request is part of.
#[derive(Debug)]
enum Place {
    Own(Permit),
    Shared(Arc<Permit>),
}

#[derive(Debug, thiserror::Error)]
#[error("too much work in flight: {what} would pass the limit of {limit}")]
pub struct Overloaded {
    what: &'static str,
    limit: u64,
    pub retry_after: Duration,
}

#[derive(Debug)]
struct InFlight {
    requests: AtomicU64,
    bytes: AtomicU64,
    outflow: Arc<Outflow>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Permit {
    in_flight: Arc<InFlight>,
    bytes: u64,
}

impl Admitted {
    /// A request that is part of this one and has its place. The place is given back when both are gone.
    #[must_use]
    pub fn part(self, request: InferRequest) -> (Self, Self) {
        let permit = match self.place {
            Place::Own(permit) => Arc::new(permit),
            Place::Shared(permit) => permit,
        };
        let part = Self { request, place: Place::Shared(Arc::clone(&permit)), outgoing: None };
        (Self { request: self.request, place: Place::Shared(permit), outgoing: self.outgoing }, part)
    }

    /// To be called with the bytes of its answer, as soon as that is there: until it is encoded nobody else counts it.
    pub fn answered(&mut self, bytes: u64) {
        if outflow::is_large(bytes) {
            self.outgoing = Some(self.permit().in_flight.outflow.hold(bytes));
        }
    }

    fn permit(&self) -> &Permit {
        match &self.place {
            Place::Own(permit) => permit,
            Place::Shared(permit) => permit,
        }
    }
}

impl Admission {
    pub fn new(config: AdmissionConfig, metrics: Arc<Metrics>) -> Self {
        let config = Arc::new(ArcSwap::from_pointee(config));
        let receiving = Arc::new(Receiving::new(Arc::clone(&config), Arc::clone(&metrics)));
        let outflow = Arc::new(Outflow::new(Arc::clone(&config), Arc::clone(&metrics)));
        let in_flight = InFlight { requests: AtomicU64::new(0), bytes: AtomicU64::new(0), outflow, metrics };
        let admission = Self { config, in_flight: Arc::new(in_flight), receiving };
        admission.tell_limit();
        admission
    }

    /// For a request whose body is about to arrive: holds nothing yet.
    pub fn receive(&self) -> Held {
        Held::nothing(Arc::clone(&self.receiving))
    }

    /// Bytes of bodies that have arrived, or are announced, of requests not yet admitted.
    pub fn receiving_bytes(&self) -> u64 {
        self.receiving.bytes()
    }

    /// The budget of what leaves.
    pub fn outflow(&self) -> &Arc<Outflow> {
        &self.in_flight.outflow
    }

    /// # Errors
    /// When the request would pass a limit; it is dropped and costs nothing more.
    pub fn admit(&self, request: InferRequest) -> Result<Admitted, Overloaded> {
        let permit = self.take(request.input_bytes())?;
        Ok(Admitted { request, place: Place::Own(permit), outgoing: None })
    }

    /// A place for a request of which only the length of its text is known: where decoding takes long, a refusal is due
    /// before it.
    ///
    /// # Errors
    /// As `admit`.
    pub fn reserve(&self, text_bytes: u64) -> Result<Reserved, Overloaded> {
        // Text can be longer than what it says: by itself it is always let in.
        self.take(text_bytes.min(self.config.load().bytes_max.0)).map(Reserved)
    }

    /// Gives a place to its request, which then counts by the bytes of its inputs.
    ///
    /// # Errors
    /// When those are more than its text had, and pass the limit.
    pub fn admit_reserved(&self, reserved: Reserved, request: InferRequest) -> Result<Admitted, Overloaded> {
        let Reserved(mut permit) = reserved;
        let (foreseen, bytes) = (permit.bytes, request.input_bytes());
        let held = permit.resize(bytes);
        if bytes > foreseen {
            self.check_bytes(held)?;
        }
        Ok(Admitted { request, place: Place::Own(permit), outgoing: None })
    }

    fn take(&self, bytes: u64) -> Result<Permit, Overloaded> {
        let (permit, requests, held) = Permit::take(&self.in_flight, bytes);
        let requests_max = self.config.load().requests_max as u64;
        if requests > requests_max {
            self.in_flight.metrics.refused.requests.inc();
            return Err(self.refusal("requests", requests_max));
        }
        self.check_bytes(held)?;
        Ok(permit)
    }

    fn check_bytes(&self, held: u64) -> Result<(), Overloaded> {
        let bytes_max = self.config.load().bytes_max.0;
        if held > bytes_max {
            self.in_flight.metrics.refused.bytes.inc();
            return Err(self.refusal("bytes", bytes_max));
        }
        Ok(())
    }

    fn refusal(&self, what: &'static str, limit: u64) -> Overloaded {
        Overloaded { what, limit, retry_after: self.retry_after() }
    }

    /// Requests admitted and not yet answered.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.requests.load(Ordering::Acquire)
    }

    /// What a refused client is told to wait.
    pub fn retry_after(&self) -> Duration {
        self.config.load().retry_after.0
    }

    /// New limits hold from the next request on.
    pub fn reconfigure(&self, config: AdmissionConfig) {
        self.config.store(Arc::new(config));
        self.tell_limit();
    }

    fn tell_limit(&self) {
        let requests_max = self.config.load().requests_max as u64;
        self.in_flight.metrics.in_flight_requests_max.set(signed(requests_max));
    }
}

impl Permit {
    /// The permit, with the requests and bytes in flight now, its own included: of two that come for the last place, the
    /// first has it.
    fn take(in_flight: &Arc<InFlight>, bytes: u64) -> (Self, u64, u64) {
        let requests = in_flight.requests.fetch_add(1, Ordering::AcqRel) + 1;
        let held = in_flight.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        in_flight.metrics.in_flight_requests.inc();
        in_flight.metrics.in_flight_bytes.add(signed(bytes));
        (Self { in_flight: Arc::clone(in_flight), bytes }, requests, held)
    }

    /// The bytes in flight now.
    fn resize(&mut self, bytes: u64) -> u64 {
        let held = self.in_flight.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes - self.bytes;
        self.in_flight.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.in_flight.metrics.in_flight_bytes.add(signed(bytes) - signed(self.bytes));
        self.bytes = bytes;
        held
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_flight.requests.fetch_sub(1, Ordering::AcqRel);
        self.in_flight.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.in_flight.metrics.in_flight_requests.dec();
        self.in_flight.metrics.in_flight_bytes.sub(signed(self.bytes));
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::infer::Schedule;
    use crate::tensor::{DType, NamedTensor, Shape, Tensor};
    use crate::units::{ByteSize, Span};

    fn request(bytes: usize) -> InferRequest {
        let tensor = Tensor::new(DType::U8, Shape::new(&[bytes]), vec![0; bytes].into()).unwrap();
        InferRequest {
            model: "m".parse().unwrap(),
            version: None,
            variant: crate::infer::Wanted::Any,
            budget: crate::infer::Budget::default(),
            id: None,
            inputs: vec![NamedTensor { name: "x".into(), tensor }],
            outputs: vec![],
            schedule: Schedule::default(),
            received_at: Instant::now(),
            decode: Duration::ZERO,
        }
    }

    fn admission(requests_max: usize, bytes_max: u64) -> Admission {
        let retry_after = Span(Duration::from_secs(1));
        let config = AdmissionConfig {
            requests_max,
            bytes_max: ByteSize(bytes_max),
            receiving_bytes_max: ByteSize(bytes_max),
            leaving_bytes_max: ByteSize(1 << 20),
            retry_after,
        };
        Admission::new(config, Arc::default())
    }

    #[test]
    fn requests_and_bytes_are_bounded_and_given_back() {
        let admission = admission(2, 10);
        let first = admission.admit(request(4)).unwrap();
        let too_big = admission.admit(request(7)).unwrap_err();
        assert_eq!(too_big.to_string(), "too much work in flight: bytes would pass the limit of 10");
        let second = admission.admit(request(6)).unwrap();
        assert!(admission.admit(request(0)).is_err());
        drop(first);
        assert!(admission.admit(request(4)).is_ok());
        drop(second);
        assert_eq!(admission.in_flight(), 0);
    }

    #[test]
    fn a_reserved_place_counts_by_its_text_and_then_by_its_inputs() {
        let admission = admission(2, 10);
        let bytes = || admission.in_flight.bytes.load(Ordering::Acquire);
        let reserved = admission.reserve(8).unwrap();
        assert!(admission.reserve(3).is_err(), "bytes");
        let admitted = admission.admit_reserved(reserved, request(4)).unwrap();
        assert_eq!((admission.in_flight(), bytes()), (1, 4));
        let grows = admission.reserve(1).unwrap();
        assert!(admission.reserve(0).is_err(), "requests");
        assert!(admission.admit_reserved(grows, request(7)).is_err());
        assert_eq!((admission.in_flight(), bytes()), (1, 4));
        drop(admitted);
        drop(admission.reserve(1000).unwrap());
        assert_eq!((admission.in_flight(), bytes()), (0, 0));
    }

    #[test]
    fn an_answer_counts_from_when_it_is_there() {
        let admission = admission(2, 10);
        let mut small = admission.admit(request(1)).unwrap();
        small.answered(1000);
        assert_eq!(admission.outflow().bytes(), 0, "it will count as it leaves");
        let (mut whole, part) = admission.admit(request(1)).unwrap().part(request(1));
        whole.answered(1 << 21);
        drop(part);
        assert_eq!(admission.outflow().bytes(), 1 << 21);
        assert!(admission.outflow().check(1).is_err());
        drop(whole);
        assert!(admission.outflow().check(1).is_ok());
    }

    #[test]
    fn threads_cannot_pass_the_limit_together() {
        let admission = admission(8, 1 << 20);
        let inside = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let ask = || {
                for _ in 0..500 {
                    let held: Vec<_> = (0..3).filter_map(|_| admission.admit(request(1)).ok()).collect();
                    assert!(inside.fetch_add(held.len() as u64, Ordering::AcqRel) + held.len() as u64 <= 8);
                    std::thread::yield_now();
                    inside.fetch_sub(held.len() as u64, Ordering::AcqRel);
                }
            };
            (0..4).for_each(|_| _ = scope.spawn(ask));
        });
        assert_eq!((admission.in_flight(), admission.in_flight.bytes.load(Ordering::Acquire)), (0, 0));
    }

    proptest::proptest! {
        /// Against a list of what is held: a request is admitted exactly when both limits allow it.
        #[test]
        fn admission_is_a_sum(steps in proptest::collection::vec((0usize..40, proptest::prelude::any::<bool>()), 0..60)) {
            let admission = admission(5, 100);
            let mut held: Vec<(usize, Admitted)> = Vec::new();
            for (bytes, leaves) in steps {
                if leaves && !held.is_empty() {
                    held.remove(bytes % held.len());
                    continue;
                }
                let sum: usize = held.iter().map(|(bytes, _)| bytes).sum();
                let fits = held.len() < 5 && sum + bytes <= 100;
                let admitted = admission.admit(request(bytes));
                proptest::prop_assert_eq!(admitted.is_ok(), fits);
                held.extend(admitted.ok().map(|admitted| (bytes, admitted)));
                proptest::prop_assert_eq!(admission.in_flight(), held.len() as u64);
            }
        }
    }

    #[test]
    fn new_limits_hold_at_once() {
        let admission = admission(1, 10);
        let _held = admission.admit(request(0)).unwrap();
        let mut config = (**admission.config.load()).clone();
        config.requests_max = 2;
        let told = || admission.in_flight.metrics.in_flight_requests_max.get();
        assert_eq!(told(), 1);
        admission.reconfigure(config);
        assert_eq!(told(), 2);
        assert!(admission.admit(request(0)).is_ok());
    }
}
