//! How much of the processors others took while we measured.

use std::fs::read_to_string;

/// Counters of `/proc/stat`: stolen and all ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steal {
    stolen: u64,
    all: u64,
}

impl Steal {
    /// The counters now; zeros where the kernel does not tell.
    pub(crate) fn now() -> Self {
        let stat = read_to_string("/proc/stat").unwrap_or_default();
        let ticks: Vec<u64> = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .filter_map(|tick| tick.parse().ok())
            .collect();
        Self {
            stolen: ticks.get(7).copied().unwrap_or(0),
            all: ticks.iter().take(8).sum(),
        }
    }

    /// The share of the time since then that was stolen, 0 to 1.
    pub(crate) fn share_since(self) -> f64 {
        let now = Self::now();
        let all = now.all.saturating_sub(self.all);
        if all == 0 {
            return 0.0;
        }
        now.stolen.saturating_sub(self.stolen) as f64 / all as f64
    }
}
