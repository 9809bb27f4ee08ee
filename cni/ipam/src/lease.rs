//! Who may do what only one node should do: an election by a record that is compared and swapped,
//! such as a file under a lock or a Kubernetes `Lease`.
//!
//! No clock of another machine is read: a record is stale once it has not changed for its duration
//! by the observer's own clock, which never jumps. The holder counts its own time from before the
//! write, and for two thirds of the duration only.

use model::Lease;

/// This node's part in the election.
#[derive(Debug, Clone)]
pub struct Election {
    me: String,
    duration_ms: u64,
    /// The record as last seen, and when it was first seen so.
    seen: Option<(Option<Lease>, u64)>,
    /// When the last successful write was begun.
    renewed: Option<u64>,
}

impl Election {
    /// A part in an election whose records hold for `duration_ms`.
    pub fn new(me: &str, duration_ms: u64) -> Self {
        Self {
            me: me.to_owned(),
            duration_ms,
            seen: None,
            renewed: None,
        }
    }

    /// The record as it is (none: there is none), read at `now`.
    pub fn observe(&mut self, record: Option<Lease>, now: u64) {
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != record) {
            self.seen = Some((record, now));
        }
    }

    /// Our write succeeded; it was begun at `begun`.
    pub fn written(&mut self, record: Lease, begun: u64) {
        self.seen = Some((Some(record), begun));
        self.renewed = Some(begun);
    }

    /// Whether this node may act now.
    pub fn holds(&self, now: u64) -> bool {
        let ours = self
            .seen
            .as_ref()
            .and_then(|(record, _)| record.as_ref())
            .is_some_and(|record| record.holder == self.me);
        let fresh = |at| now.saturating_sub(at) < self.duration_ms * 2 / 3;
        ours && self.renewed.is_some_and(fresh)
    }

    /// What to write in place of what was seen last: a renewal, or a claim of a record that is
    /// missing, stale or given back. None where somebody else holds it, where nothing was read yet, or where
    /// ours is young. `None` inside is a record that has to be created.
    pub fn next(&self, now: u64) -> Option<(Option<Lease>, Lease)> {
        let (record, since) = self.seen.as_ref()?;
        let age = now.saturating_sub(*since);
        let renewals = match record {
            Some(record) if record.holder == self.me => {
                if self.renewed.is_some() && age < self.duration_ms / 3 {
                    return None;
                }
                record.renewals.wrapping_add(1)
            }
            Some(record) if !record.holder.is_empty() && age < self.duration_ms => return None,
            Some(record) => record.renewals.wrapping_add(1),
            None => 1,
        };
        let next = Lease {
            holder: self.me.clone(),
            renewals,
        };
        Some((record.clone(), next))
    }

    /// What to write in place of our record so that somebody else need not wait for its end: nobody
    /// holds it. None where it is not ours.
    pub fn give_back(&self) -> Option<(Option<Lease>, Lease)> {
        let (record, _) = self.seen.as_ref()?;
        let ours = record.as_ref().filter(|record| record.holder == self.me)?;
        let free = Lease {
            holder: String::new(),
            renewals: ours.renewals.wrapping_add(1),
        };
        Some((record.clone(), free))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DURATION: u64 = 30;

    fn swap(record: &mut Option<Lease>, expected: &Option<Lease>, next: &Lease) -> bool {
        let same = record == expected;
        if same {
            *record = Some(next.clone());
        }
        same
    }

    #[test]
    fn a_lease_is_taken_when_missing_or_stale_and_renewed_by_its_holder_alone() {
        let mut record = None;
        let (mut a, mut b) = (Election::new("a", DURATION), Election::new("b", DURATION));
        assert_eq!(a.next(0), None, "nothing was read yet");
        a.observe(record.clone(), 0);
        let (expected, next) = a.next(0).unwrap();
        assert!(swap(&mut record, &expected, &next));
        a.written(next, 0);
        assert!(a.holds(19) && !a.holds(20));
        b.observe(record.clone(), 5);
        assert_eq!(b.next(34), None);
        let (expected, next) = a.next(15).unwrap();
        assert!(swap(&mut record, &expected, &next));
        a.written(next, 15);
        b.observe(record.clone(), 35);
        assert_eq!(b.next(64), None, "it changed in between");
        let (expected, next) = b.next(65).unwrap();
        assert!(swap(&mut record, &expected, &next));
        b.written(next, 65);
        assert!(b.holds(65));
        a.observe(record, 65);
        assert!(!a.holds(65));
    }

    #[test]
    fn a_lease_that_is_given_back_is_anybodys_at_once() {
        let mut record = None;
        let (mut a, mut b) = (Election::new("a", DURATION), Election::new("b", DURATION));
        a.observe(None, 0);
        let (expected, next) = a.next(0).unwrap();
        assert!(swap(&mut record, &expected, &next));
        a.written(next, 0);
        b.observe(record.clone(), 1);
        assert_eq!(b.give_back(), None, "it is not its own");
        let (expected, free) = a.give_back().unwrap();
        assert!(swap(&mut record, &expected, &free));
        a.written(free, 2);
        assert!(!a.holds(2));
        b.observe(record.clone(), 2);
        let (expected, next) = b.next(2).unwrap();
        assert!(swap(&mut record, &expected, &next));
        b.written(next, 2);
        assert!(b.holds(2));
    }

    proptest! {
        /// Clocks run alike but start anywhere; writes take any time.
        #[test]
        fn two_never_hold_it_at_once(
            steps in prop::collection::vec((0..3usize, 0..12u64, 0..5u8), 1..300),
        ) {
            let mut record: Option<Lease> = None;
            let offsets = [0, 1_000, 77];
            let mut nodes: Vec<Election> =
                ["a", "b", "c"].map(|name| Election::new(name, DURATION)).into();
            let mut begun: [Option<(u64, Option<Lease>, Lease)>; 3] = [None, None, None];
            let mut now = 0;
            for (node, wait, action) in steps {
                now += wait;
                let clock = now + offsets[node];
                match action {
                    0 => nodes[node].observe(record.clone(), clock),
                    1 if begun[node].is_none() => {
                        begun[node] = nodes[node].next(clock).map(|(e, n)| (clock, e, n));
                    }
                    2 => {
                        if let Some((at, expected, next)) = begun[node].take() {
                            if swap(&mut record, &expected, &next) {
                                nodes[node].written(next, at);
                            } else {
                                nodes[node].observe(record.clone(), clock);
                            }
                        }
                    }
                    4 if begun[node].is_none() => {
                        begun[node] = nodes[node].give_back().map(|(e, n)| (clock, e, n));
                    }
                    3 => nodes[node] = Election::new(["a", "b", "c"][node], DURATION),
                    _ => {}
                }
                let holders = nodes.iter().zip(offsets).filter(|(n, offset)| n.holds(now + offset));
                prop_assert!(holders.count() <= 1);
            }
        }
    }
}
