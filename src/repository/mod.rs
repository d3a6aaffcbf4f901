//! What is on disk and what is loaded.
//!
//! `catalog` is what the rest of the server reads: an immutable snapshot of every known model, swapped whole when
//! something changes, so that a broken or slow load can never disturb a version that serves. `handle` is the way in;
//! behind it `lifecycle` and `watch` decide what to load, and `loader` does it: `layout` finds files, `manifest` and `triton` read
//! what they declare, `resolve` holds that against the model, `samples` proves that it runs.

pub mod batching_defaults;
pub mod catalog;
pub mod config;
pub mod error;
pub mod fingerprint;
pub mod layout;
pub mod profile;
pub mod settings;
pub mod triton;
pub mod variant;
pub mod versions;

mod alone;
mod declared;
mod demand;
mod ensemble;
mod entry;
#[cfg(test)]
mod fake;
mod files;
mod giving_back;
mod handle;
mod inline;
mod lifecycle;
mod loader;
mod manifest;
mod newest;
mod residency;
mod resolve;
mod samples;
mod scan;
mod shapes;
mod survey;
mod variants;
mod vouched;
mod watch;
mod workers;

pub use batching_defaults::BatchingConfig;
pub use catalog::{Catalog, IndexEntry, Model, State, VariantEntry};
pub use config::{Control, RepositoryConfig};
pub use ensemble::{Ensemble, Step, Wire};
pub use error::RepositoryError;
pub use handle::Repository;
pub use inline::LoadOverride;
pub use loader::Loading;
pub use newest::{newest, signer};
pub use profile::Profile;
pub use settings::{BatchSettings, ModelSettings, QueuePolicy, TimeoutAction};
pub use variant::Variant;
pub use variants::names as variant_names;
pub use versions::VersionPolicy;

#[cfg(test)]
mod tests;
