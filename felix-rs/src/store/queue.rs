//! What is to be written, once for each subject: something newer about the same takes the place of
//! what waits, one write about a subject is on its way at a time, and one that failed is tried again
//! later and later.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

/// Pause after the first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// Writes by subject.
#[derive(Debug)]
pub(super) struct Queue<S, W> {
    /// Tells the pauses of this process from those of others.
    salt: u64,
    entries: BTreeMap<S, Entry<W>>,
    running: usize,
}

#[derive(Debug)]
struct Entry<W> {
    waiting: Option<W>,
    due: Instant,
    running: bool,
    failures: u32,
}

impl<S: Ord + Clone + Hash, W: Clone> Queue<S, W> {
    pub(super) fn new(salt: &str) -> Self {
        Self {
            salt: hash(&salt),
            entries: BTreeMap::new(),
            running: 0,
        }
    }

    /// Have this written, not before `due`, in the place of what waits about the subject, and no
    /// later than that would have been: what changes all the time is written all the same.
    pub(super) fn push(&mut self, subject: S, write: W, due: Instant) {
        let entry = self.entries.entry(subject).or_insert(Entry {
            waiting: None,
            due,
            running: false,
            failures: 0,
        });
        entry.due = match entry.waiting {
            Some(_) => entry.due.min(due),
            None => due,
        };
        entry.waiting = Some(write);
    }

    /// What waits about the subject is written no later than `due`, unless an attempt has failed.
    pub(super) fn hasten(&mut self, subject: &S, due: Instant) {
        if let Some(entry) = self.entries.get_mut(subject)
            && entry.failures == 0
        {
            entry.due = entry.due.min(due);
        }
    }

    /// Forgets what waits about a subject.
    pub(super) fn cancel(&mut self, subject: &S) {
        if let Some(entry) = self.entries.get_mut(subject) {
            entry.waiting = None;
            if !entry.running {
                self.entries.remove(subject);
            }
        }
    }

    /// Something to write now, in the order of subjects, unless `limit` are on their way.
    pub(super) fn next(&mut self, now: Instant, limit: usize) -> Option<(S, W)> {
        if self.running >= limit {
            return None;
        }
        let ready =
            |entry: &Entry<W>| !entry.running && entry.waiting.is_some() && entry.due <= now;
        let (subject, entry) = self.entries.iter_mut().find(|(_, entry)| ready(entry))?;
        entry.running = true;
        self.running += 1;
        Some((subject.clone(), entry.waiting.clone()?)).inspect(|_| entry.waiting = None)
    }

    /// What was on its way is written.
    pub(super) fn written(&mut self, subject: &S) {
        self.running -= 1;
        if let Some(entry) = self.entries.get_mut(subject) {
            entry.running = false;
            entry.failures = 0;
            if entry.waiting.is_none() {
                self.entries.remove(subject);
            }
        }
    }

    /// What was on its way failed: it is tried again, unless something newer waits. Answers how
    /// often in a row that was so.
    pub(super) fn failed(&mut self, subject: &S, write: W, now: Instant) -> u32 {
        self.running -= 1;
        let Some(entry) = self.entries.get_mut(subject) else {
            return 0;
        };
        entry.running = false;
        entry.failures = entry.failures.saturating_add(1);
        if entry.waiting.is_none() {
            entry.waiting = Some(write);
            entry.due = now + pause(entry.failures, hash(&(self.salt, subject, entry.failures)));
        }
        entry.failures
    }

    /// When something has to be written next that is not to be written yet.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let waiting = self
            .entries
            .values()
            .filter(|entry| !entry.running && entry.waiting.is_some());
        waiting.map(|entry| entry.due).min()
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Half of the time is the same for all, half is spread.
fn pause(failures: u32, spread: u64) -> Duration {
    let whole = (FIRST * 2_u32.saturating_pow(failures.saturating_sub(1).min(16))).min(LONGEST);
    let share = (spread % 1024) as f64 / 1024.0;
    whole / 2 + (whole / 2).mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_newest_write_about_a_subject_is_the_one_that_is_written() {
        let (mut queue, now) = (Queue::new("n1"), Instant::now());
        queue.push("a", 1, now);
        queue.push("a", 2, now);
        assert_eq!(queue.next(now, 8), Some(("a", 2)));
        queue.push("a", 3, now);
        assert_eq!(queue.next(now, 8), None, "one at a time");
        queue.failed(&"a", 2, now);
        assert_eq!(queue.next(now, 8), Some(("a", 3)), "what failed is older");
        queue.written(&"a");
        assert_eq!((queue.next(now, 8), queue.next_due()), (None, None));
    }

    #[test]
    fn writes_wait_for_their_time_and_for_a_place() {
        let (mut queue, now) = (Queue::new("n1"), Instant::now());
        queue.push("late", 1, now + second(10));
        assert_eq!(queue.next(now, 8), None);
        assert_eq!(queue.next_due(), Some(now + second(10)));
        queue.push("a", 2, now);
        assert_eq!(queue.next(now, 1), Some(("a", 2)));
        assert_eq!(queue.next(now + second(10), 1), None);
        queue.written(&"a");
        assert_eq!(queue.next(now + second(10), 1), Some(("late", 1)));
        queue.push("x", 3, now);
        queue.cancel(&"x");
        assert_eq!(queue.next(now, 8), None);
    }

    #[test]
    fn what_changes_all_the_time_is_written_all_the_same() {
        let (mut queue, now) = (Queue::new("n1"), Instant::now());
        for n in 0..4 {
            queue.push("block", n, now + second(n) + second(10));
        }
        assert_eq!(queue.next(now + second(10), 8), Some(("block", 3)));
        queue.push("block", 4, now + second(20));
        queue.written(&"block");
        assert_eq!(queue.next(now + second(19), 8), None);
    }

    #[test]
    fn what_waits_is_hastened_and_what_is_not_there_or_has_failed_is_not() {
        let (mut queue, now) = (Queue::new("n1"), Instant::now());
        queue.hasten(&"pod", now);
        queue.push("pod", 1, now + second(60));
        queue.hasten(&"pod", now + second(2));
        queue.hasten(&"pod", now + second(5));
        assert_eq!(queue.next_due(), Some(now + second(2)));
        assert_eq!(queue.next(now + second(2), 8), Some(("pod", 1)));
        queue.failed(&"pod", 1, now + second(2));
        queue.hasten(&"pod", now);
        assert_eq!(queue.next(now + second(2), 8), None);
    }

    #[test]
    fn pauses_grow_up_to_a_minute_and_differ() {
        let (mut queue, mut now) = (Queue::new("n1"), Instant::now());
        queue.push("a", 1, now);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let (subject, write) = queue.next(now, 8).unwrap();
            queue.failed(&subject, write, now);
            let due = queue.next_due().unwrap();
            pauses.push(due - now);
            now = due;
        }
        assert!(pauses[0] <= FIRST && pauses[0] >= FIRST / 2);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST));
        assert!(pauses[11] >= LONGEST / 2);
        assert_ne!(pause(3, 1), pause(3, 2));
    }
}
