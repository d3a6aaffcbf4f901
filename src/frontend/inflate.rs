//! Compressed bodies and messages, inflated within their limits, on the pool where that takes long. Knows bytes, no wire.

use std::collections::VecDeque;
use std::io::{self, Read};

use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};

use super::{Frontend, LimitsConfig, Refusal, large};
use crate::error::ErrorCode;

/// A coding that both sides speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    /// The zlib format, as HTTP and gRPC mean it.
    Deflate,
}

/// To how much a body may inflate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) bytes_max: u64,
    ratio_max: u64,
}

impl Coding {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// What comes out, in pieces of so many bytes and a last one; nothing where it is more than `max`, which is found
    /// when so much is out.
    fn inflate(self, bytes: &[u8], max: u64, piece_bytes: u64) -> io::Result<Option<VecDeque<Bytes>>> {
        match self {
            Self::Gzip => in_pieces(GzDecoder::new(bytes), max, piece_bytes),
            Self::Deflate => in_pieces(ZlibDecoder::new(bytes), max, piece_bytes),
        }
    }
}

fn in_pieces(mut inflated: impl Read, max: u64, piece_bytes: u64) -> io::Result<Option<VecDeque<Bytes>>> {
    let mut pieces = VecDeque::new();
    let mut left = max;
    loop {
        let wanted = piece_bytes.min(left.saturating_add(1));
        let mut piece = Vec::new();
        let got = inflated.by_ref().take(wanted).read_to_end(&mut piece)? as u64;
        let Some(rest) = left.checked_sub(got) else { return Ok(None) };
        left = rest;
        if got > 0 {
            pieces.push_back(Bytes::from(piece));
        }
        if got < wanted {
            return Ok(Some(pieces));
        }
    }
}

impl Bound {
    pub(super) fn of(limits: &LimitsConfig) -> Self {
        Self { bytes_max: limits.body_bytes_max.0, ratio_max: limits.inflate_ratio_max }
    }

    /// The most that so many bytes may inflate to: no more than a body may have, nor than an honest tensor does.
    fn inflated_max(self, bytes: usize) -> u64 {
        self.bytes_max.min(self.ratio_max.saturating_mul(bytes as u64).saturating_add(INFLATE_FREE))
    }

    /// Whether honest bytes of this length become much.
    fn may_be_large(self, bytes: usize) -> bool {
        let honest = self.bytes_max.min(self.ratio_max.saturating_mul(bytes as u64));
        large::is_large(usize::try_from(honest).unwrap_or(usize::MAX))
    }

    fn passed(self, max: u64) -> Refusal {
        let ratio = self.ratio_max;
        let message = if max < self.bytes_max {
            format!("the body inflates to more than {max} bytes, {ratio} times what came (limits.inflate_ratio_max)")
        } else {
            format!("the body inflates to more than the {max} bytes allowed")
        };
        Refusal::new(ErrorCode::PayloadTooLarge, message)
    }
}

/// All of it within its bound.
fn inflate(coding: Coding, bytes: &[u8], bound: Bound, piece_bytes: u64) -> Result<VecDeque<Bytes>, Refusal> {
    let max = bound.inflated_max(bytes.len());
    told(coding, coding.inflate(bytes, max, piece_bytes))?.ok_or_else(|| bound.passed(max))
}

fn told<T>(coding: Coding, inflated: io::Result<T>) -> Result<T, Refusal> {
    inflated.map_err(|error| Refusal::invalid(format!("the body is no valid {} stream: {error}", coding.as_str())))
}

impl Frontend {
    /// What a body inflates to, in pieces of so many bytes and a last one.
    ///
    /// # Errors
    /// When it inflates to more than it may, or is no valid stream.
    pub(super) async fn inflate(
        &self,
        coding: Coding,
        bytes: Bytes,
        bound: Bound,
        piece_bytes: u64,
    ) -> Result<VecDeque<Bytes>, Refusal> {
        if !bound.may_be_large(bytes.len()) {
            // What is short may become much too, though not honestly: that is found where this much is out.
            let here = bound.bytes_max.min(large::INLINE_BYTES_MAX as u64);
            if let Some(pieces) = told(coding, coding.inflate(&bytes, here, piece_bytes))? {
                return Ok(pieces);
            }
        }
        self.on_pool(move || inflate(coding, &bytes, bound, piece_bytes)).await?
    }
}

/// Any body may inflate to this much, so that short repetitive ones are not refused by their ratio.
pub(super) const INFLATE_FREE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;
    use crate::units::ByteSize;

    fn packed(coding: Coding, plain: &[u8]) -> Bytes {
        let mut packed = Vec::new();
        match coding {
            Coding::Gzip => GzEncoder::new(&mut packed, Compression::best()).write_all(plain).unwrap(),
            Coding::Deflate => ZlibEncoder::new(&mut packed, Compression::best()).write_all(plain).unwrap(),
        }
        packed.into()
    }

    fn limits() -> LimitsConfig {
        crate::config::Config::default().limits
    }

    #[test]
    fn compression_is_undone_in_pieces() {
        let plain: Vec<u8> = (0..5000u32).flat_map(u32::to_le_bytes).collect();
        for coding in [Coding::Gzip, Coding::Deflate] {
            for (piece, lengths) in
                [(u64::MAX, vec![20_000]), (8192, vec![8192, 8192, 3616]), (10_000, vec![10_000; 2])]
            {
                let pieces = inflate(coding, &packed(coding, &plain), Bound::of(&limits()), piece).unwrap();
                assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), lengths, "{coding:?}");
                assert_eq!(pieces.iter().flatten().copied().collect::<Vec<u8>>(), plain);
            }
            assert!(inflate(coding, &packed(coding, b""), Bound::of(&limits()), u64::MAX).unwrap().is_empty());
        }
    }

    #[test]
    fn bombs_are_refused_by_ratio() {
        let bomb = packed(Coding::Gzip, &vec![0; 8 << 20]);
        let refusal = inflate(Coding::Gzip, &bomb, Bound::of(&limits()), 4096).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::PayloadTooLarge);
        assert!(refusal.message.contains("20 times what came"), "{refusal}");
        let small = Bound::of(&LimitsConfig { body_bytes_max: ByteSize(1000), ..limits() });
        let refusal = inflate(Coding::Gzip, &bomb, small, u64::MAX).unwrap_err();
        assert!(refusal.message.ends_with("more than the 1000 bytes allowed"), "{refusal}");
        let broken = inflate(Coding::Gzip, b"no gzip", Bound::of(&limits()), u64::MAX).unwrap_err();
        assert_eq!(broken.code, ErrorCode::InvalidArgument);
    }

    #[test]
    fn bodies_inflate_to_the_last_byte_allowed() {
        let bound = Bound::of(&LimitsConfig { body_bytes_max: ByteSize(1000), ..limits() });
        for coding in [Coding::Gzip, Coding::Deflate] {
            for piece in [100, 1000, u64::MAX] {
                assert!(inflate(coding, &packed(coding, &[7; 1000]), bound, piece).is_ok());
                assert!(inflate(coding, &packed(coding, &[7; 1001]), bound, piece).is_err());
            }
        }
    }

    #[test]
    fn large_is_what_may_become_large() {
        let bound = Bound::of(&limits());
        assert!(!bound.may_be_large(1000));
        assert!(bound.may_be_large(2000));
        assert!(bound.may_be_large(usize::MAX));
        assert_eq!(bound.inflated_max(10), INFLATE_FREE + 200);
        assert_eq!(bound.inflated_max(usize::MAX), limits().body_bytes_max.0);
    }
}
