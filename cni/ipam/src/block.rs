//! One block of this node: which addresses are taken, and in what order the others come next.

use crate::net;
use ipnet::IpNet;
use std::collections::VecDeque;
use std::net::IpAddr;

/// No more addresses of one block are given out, so that a block object with an absurd prefix
/// length costs 16 KiB and not all memory. Sixteen times Calico's largest block.
const MAX_ADDRESSES: u128 = 1 << 16;

/// Bits per ordinal; an address costs two bits, and a queue entry only after it was released.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    cidr: IpNet,
    size: u32,
    used: Bits,
    /// Used now, or waiting in `released`.
    touched: Bits,
    /// Given out only to who asks for exactly this address, or to nobody.
    barred: Bits,
    released: VecDeque<Released>,
}

#[derive(Debug, Clone, Copy)]
struct Released {
    ordinal: u32,
    at: u64,
}

impl Block {
    pub(crate) fn new(cidr: IpNet) -> Self {
        let size = (1u128 << net::host_bits(cidr).min(16)).min(MAX_ADDRESSES) as u32;
        let bits = Bits::new(size);
        Self {
            cidr,
            size,
            used: bits.clone(),
            touched: bits.clone(),
            barred: bits,
            released: VecDeque::new(),
        }
    }

    /// Number of addresses.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    pub(crate) fn in_use(&self) -> u32 {
        self.used.count
    }

    /// Addresses released less than `cooldown` ago.
    pub(crate) fn cooling(&self, now: u64, cooldown: u64) -> u32 {
        let cool = self
            .released
            .iter()
            .take_while(|r| elapsed(r.at, now) >= cooldown)
            .count();
        (self.released.len() - cool) as u32
    }

    /// Addresses that could be given out at `now`.
    pub(crate) fn free(&self, now: u64, cooldown: u64) -> u32 {
        let cooling = self
            .released
            .iter()
            .filter(|r| elapsed(r.at, now) < cooldown && !self.barred.get(r.ordinal))
            .count() as u32;
        self.size - self.used.count_with(&self.barred) - cooling
    }

    /// Addresses that are barred and not in use.
    pub(crate) fn barred(&self) -> u32 {
        self.used.count_with(&self.barred) - self.used.count
    }

    /// The lowest address that was never given out and is not barred.
    pub(crate) fn fresh(&self) -> Option<IpAddr> {
        let first = self.touched.first_zero_with(&self.barred, self.size);
        first.map(|ordinal| self.address(ordinal))
    }

    /// The address released longest ago that is not barred, and when, if its cooldown is over.
    pub(crate) fn rested(&self, now: u64, cooldown: u64) -> Option<(u64, IpAddr)> {
        let oldest = self.released.iter().find(|r| !self.barred.get(r.ordinal))?;
        (elapsed(oldest.at, now) >= cooldown).then(|| (oldest.at, self.address(oldest.ordinal)))
    }

    /// Bars the addresses of these prefixes and no others.
    pub(crate) fn bar(&mut self, prefixes: impl Iterator<Item = IpNet>) {
        self.barred = Bits::new(self.size);
        for prefix in prefixes.filter(|prefix| net::overlap(*prefix, self.cidr)) {
            let block = net::number(self.cidr.network());
            let first = net::number(prefix.network()).saturating_sub(block);
            let last = net::number(prefix.broadcast()) - block;
            let last = last.min(u128::from(self.size) - 1);
            // A prefix around the block begins at or before it; one inside is no longer than it.
            for ordinal in first..=last {
                self.barred.set(ordinal as u32);
            }
        }
    }

    /// Marks an address as taken. No effect outside the block.
    pub(crate) fn take(&mut self, ip: IpAddr) {
        let Some(ordinal) = self.ordinal(ip) else {
            return;
        };
        if self.touched.get(ordinal) {
            self.released.retain(|r| r.ordinal != ordinal);
        }
        self.used.set(ordinal);
        self.touched.set(ordinal);
    }

    /// Marks an address as released at `at`, if it was taken or never used.
    pub(crate) fn release(&mut self, ip: IpAddr, at: u64) {
        let Some(ordinal) = self.ordinal(ip) else {
            return;
        };
        self.used.clear(ordinal);
        if self.touched.get(ordinal) {
            self.released.retain(|r| r.ordinal != ordinal);
        }
        self.touched.set(ordinal);
        let place = self.released.partition_point(|r| r.at <= at);
        self.released.insert(place, Released { ordinal, at });
    }

    /// A clock that was set back does not prolong a cooldown beyond its length.
    pub(crate) fn clock(&mut self, now: u64) {
        for entry in self.released.iter_mut().rev().take_while(|r| r.at > now) {
            entry.at = now;
        }
    }

    fn ordinal(&self, ip: IpAddr) -> Option<u32> {
        if !self.cidr.contains(&ip) {
            return None;
        }
        let ordinal = net::number(ip) - net::number(self.cidr.network());
        u32::try_from(ordinal).ok().filter(|o| *o < self.size)
    }

    fn address(&self, ordinal: u32) -> IpAddr {
        let first = self.cidr.network();
        net::address(first, net::number(first) + u128::from(ordinal))
    }
}

fn elapsed(at: u64, now: u64) -> u64 {
    now.saturating_sub(at)
}

/// A bitmap that knows how many of its bits are set.
#[derive(Debug, Clone)]
struct Bits {
    words: Box<[u64]>,
    count: u32,
}

impl Bits {
    fn new(size: u32) -> Self {
        Self {
            words: vec![0; size.div_ceil(64) as usize].into(),
            count: 0,
        }
    }

    fn get(&self, bit: u32) -> bool {
        self.words[(bit / 64) as usize] & (1 << (bit % 64)) != 0
    }

    fn set(&mut self, bit: u32) {
        if !self.get(bit) {
            self.words[(bit / 64) as usize] |= 1 << (bit % 64);
            self.count += 1;
        }
    }

    fn clear(&mut self, bit: u32) {
        if self.get(bit) {
            self.words[(bit / 64) as usize] &= !(1 << (bit % 64));
            self.count -= 1;
        }
    }

    /// The first bit that is set in neither.
    fn first_zero_with(&self, other: &Self, size: u32) -> Option<u32> {
        let mut words = self.words.iter().zip(&other.words).map(|(a, b)| a | b);
        let (index, word) = words.by_ref().enumerate().find(|(_, w)| *w != u64::MAX)?;
        let bit = index as u32 * 64 + word.trailing_ones();
        (bit < size).then_some(bit)
    }

    /// How many bits are set in either.
    fn count_with(&self, other: &Self) -> u32 {
        let words = self.words.iter().zip(&other.words);
        words.map(|(a, b)| (a | b).count_ones()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cidr: &str) -> Block {
        Block::new(cidr.parse().unwrap())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_address_of_a_block_is_usable_first_and_last_included() {
        let mut block = block("10.0.0.0/30");
        let mut seen = Vec::new();
        while let Some(ip) = block.fresh() {
            block.take(ip);
            seen.push(ip.to_string());
        }
        assert_eq!(seen, ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    }

    #[test]
    fn released_addresses_come_back_in_order_of_release_and_only_after_the_cooldown() {
        let mut block = block("10.0.0.0/31");
        block.take(ip("10.0.0.0"));
        block.take(ip("10.0.0.1"));
        block.release(ip("10.0.0.1"), 100);
        block.release(ip("10.0.0.0"), 200);
        assert_eq!(block.rested(129, 30), None);
        assert_eq!(block.rested(130, 30), Some((100, ip("10.0.0.1"))));
        block.take(ip("10.0.0.1"));
        assert_eq!(block.rested(1000, 30), Some((200, ip("10.0.0.0"))));
    }

    #[test]
    fn a_clock_set_back_delays_reuse_by_one_cooldown_at_most() {
        let mut block = block("10.0.0.0/32");
        block.take(ip("10.0.0.0"));
        block.release(ip("10.0.0.0"), 1_000_000);
        block.clock(10);
        assert_eq!(block.rested(39, 30), None);
        assert!(block.rested(40, 30).is_some());
    }

    #[test]
    fn a_barred_address_is_neither_given_out_nor_counted_as_free() {
        let mut block = block("10.0.0.0/30");
        block.take(ip("10.0.0.1"));
        block.release(ip("10.0.0.1"), 0);
        let prefixes = ["10.0.0.0/31", "10.0.1.0/24"].map(|p| p.parse().unwrap());
        block.bar(prefixes.into_iter());
        assert_eq!((block.free(0, 30), block.barred()), (2, 2));
        assert_eq!(block.fresh(), Some(ip("10.0.0.2")));
        assert_eq!(block.rested(100, 30), None);
        block.bar(["10.0.0.0/8".parse().unwrap()].into_iter());
        assert_eq!((block.free(100, 30), block.fresh()), (0, None));
        block.bar(std::iter::empty());
        assert_eq!(block.rested(100, 30), Some((0, ip("10.0.0.1"))));
    }

    #[test]
    fn an_absurd_block_costs_bounded_memory() {
        let mut block = block("fd00::/8");
        assert_eq!(block.size(), 65_536);
        block.take(ip("fdff::1"));
        assert_eq!(block.in_use(), 0);
    }

    #[test]
    fn counts_follow_takes_and_releases() {
        let mut block = block("fd00::/122");
        block.take(ip("fd00::3f"));
        block.take(ip("fd00::3f"));
        assert_eq!((block.in_use(), block.free(0, 30)), (1, 63));
        block.release(ip("fd00::3f"), 0);
        assert_eq!(
            (block.in_use(), block.cooling(29, 30), block.free(29, 30)),
            (0, 1, 63)
        );
        assert_eq!((block.cooling(30, 30), block.free(30, 30)), (0, 64));
    }
}
