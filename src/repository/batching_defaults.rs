//! The server's defaults of the batch settings, which manifests override per model.

use serde::Deserialize;

use super::settings::{BatchSettings, QueuePolicy, TimeoutAction};
use crate::units::{ByteSize, Span};

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct BatchingConfig {
    pub batch_size_max: usize,
    pub queue_delay_max: Span,
    pub queue_requests_max: usize,
    pub queue_bytes_max: ByteSize,
}

impl BatchingConfig {
    /// The settings of a model that says nothing of its own.
    pub fn settings(&self) -> BatchSettings {
        BatchSettings {
            batch_size_max: self.batch_size_max,
            queue_delay_max: self.queue_delay_max.0,
            preferred: Vec::new(),
            preserve_ordering: false,
            priority_levels: 0,
            default_priority: 0,
            queue: QueuePolicy {
                timeout_action: TimeoutAction::Reject,
                default_timeout: None,
                allow_timeout_override: true,
                requests_max: self.queue_requests_max,
                bytes_max: self.queue_bytes_max.0,
            },
            priority_queues: std::collections::BTreeMap::new(),
        }
    }
}
