//! How full the table of tracked connections is, and what that has cost.

use std::path::Path;

/// The table of tracked connections of one network namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConntrackTable {
    /// Connections in it; none where the kernel tracks none.
    pub entries: Option<u64>,
    /// How many it may hold (`net.netfilter.nf_conntrack_max`); 0 is no limit.
    pub limit: Option<u64>,
    /// Packets dropped because a new connection had no room (`drop` of `nf_conntrack`'s statistics).
    pub dropped: u64,
    /// Connections without an answer that made room for others (`early_drop`).
    pub evicted: u64,
}

impl ConntrackTable {
    /// Reads `sys/net/netfilter` and `net/stat/nf_conntrack` below `proc`, the file system of that
    /// name. What is not there is not known, or 0.
    pub fn read(proc: &Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(proc.join(path)).unwrap_or_default();
        let number = |name| {
            let text = text(&format!("sys/net/netfilter/{name}"));
            text.trim().parse().ok()
        };
        let statistics = text("net/stat/nf_conntrack");
        Self {
            entries: number("nf_conntrack_count"),
            limit: number("nf_conntrack_max"),
            dropped: column(&statistics, "drop"),
            evicted: column(&statistics, "early_drop"),
        }
    }

    /// Whether more than four fifths of it are taken.
    pub fn is_nearly_full(&self) -> bool {
        let limit = self.limit.filter(|limit| *limit > 0);
        let both = self.entries.zip(limit);
        both.is_some_and(|(entries, limit)| entries > limit / 5 * 4)
    }
}

/// The sum over all processors of a column, whose cells are hexadecimal.
fn column(statistics: &str, name: &str) -> u64 {
    let mut lines = statistics.lines();
    let names = lines.next().unwrap_or_default();
    let Some(at) = names.split_whitespace().position(|found| found == name) else {
        return 0;
    };
    let cells = lines.filter_map(|line| line.split_whitespace().nth(at));
    cells
        .filter_map(|cell| u64::from_str_radix(cell, 16).ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_hexadecimal_and_of_all_processors() {
        let text = "entries  clashres found drop early_drop\n0a 0 0 02 0\n0a 0 0 0f 01\n";
        assert_eq!(column(text, "drop"), 17);
        assert_eq!(column(text, "early_drop"), 1);
        assert_eq!(column(text, "another"), 0);
        assert_eq!(column("", "drop"), 0);
    }

    #[test]
    fn a_table_without_a_limit_is_never_full() {
        let table = |entries, limit| ConntrackTable {
            entries: Some(entries),
            limit: Some(limit),
            ..ConntrackTable::default()
        };
        assert!(table(81, 100).is_nearly_full());
        assert!(!table(80, 100).is_nearly_full());
        assert!(!table(80, 0).is_nearly_full());
        assert!(!ConntrackTable::default().is_nearly_full());
    }

    #[test]
    fn a_kernel_that_tracks_connections_tells_how_many() {
        let proc = Path::new("/proc");
        let tracks = proc.join("sys/net/netfilter/nf_conntrack_max").exists();
        let table = ConntrackTable::read(proc);
        assert_eq!(table.entries.is_some(), tracks, "{table:?}");
        assert_eq!(table.limit.is_some(), tracks, "{table:?}");
    }
}
