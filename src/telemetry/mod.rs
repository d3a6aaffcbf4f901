//! What the server tells about itself: metrics, logs and trace context.
//!
//! `catalogue` names every metric; `metrics` holds the handles, resolved when a model loads and never per request;
//! `logs` sets up structured logging; `trace` reads and writes W3C trace context, `spans` records and sends what belongs to
//! a trace. A number is counted by the room that
//! observes it, through the handles of this one.

pub mod access;
pub mod admission;
pub mod budgets;
pub mod cache;
pub mod catalogue;
pub mod config;
pub mod energy;
pub mod logs;
pub mod metrics;
pub mod plans;
pub mod process;
pub mod residency;
pub mod shared_memory;
pub mod spans;
pub mod tls;
pub mod trace;
pub mod verification;

pub use access::{AccessMetrics, TenantMetrics};
pub use config::TelemetryConfig;
pub use metrics::{Metrics, ModelMetrics};
pub use plans::PlanMetrics;
pub use spans::{Tracer, TracingConfig};
pub use tls::TlsMetrics;
pub use verification::VerificationMetrics;
