//! Jitter for timers (RFC 4271 section 10).

use std::time::Duration;

/// A reproducible source of jitter: SplitMix64 over a seed that the caller provides.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Between three quarters and all of `duration`.
    pub(crate) fn apply(&mut self, duration: Duration) -> Duration {
        duration * 3 / 4 + (duration / 4).mul_f64(self.fraction())
    }

    /// The next value.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_between_three_quarters_and_the_whole() {
        let mut jitter = Jitter::new(7);
        let whole = Duration::from_secs(100);
        for _ in 0..1000 {
            let jittered = jitter.apply(whole);
            assert!((whole * 3 / 4..=whole).contains(&jittered), "{jittered:?}");
        }
    }
}
