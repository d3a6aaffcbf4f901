//! Made-up numbers, and what is close enough.

/// Numbers between -1 and 1, the same for the same seed.
pub(crate) fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        f32::from(u16::try_from(state >> 48).expect("sixteen bits are left")) / 32768.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Within what rounding each step of a chain of so many sums in `f32` leaves, relative to one or the expected value.
pub(crate) fn assert_close(got: &[f32], expected: &[f32], chain: usize, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let rounding = 1e-6 * (10.0 + chain as f32).sqrt();
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        // Partial sums grow with the root of the chain as well.
        let allowed = rounding * expected.abs().max((chain as f32).sqrt() / 10.0).max(1.0);
        assert!((got - expected).abs() <= allowed, "{what}: at {at} expected {expected}, got {got}");
    }
}
