//! Settings of the cache room.

use serde::Deserialize;

use crate::units::ByteSize;

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// 0 for no cache.
    pub bytes_max: ByteSize,
}
