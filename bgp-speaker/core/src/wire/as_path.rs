//! AS_PATH and AS4_PATH: reading, merging (RFC 6793), writing.

use super::open::AS_TRANS;
use super::reader::{Reader, items};
use super::{AsPath, AsSegment};

const SET: u8 = 1;
const SEQUENCE: u8 = 2;
const CONFED_SEQUENCE: u8 = 3;
const CONFED_SET: u8 = 4;
/// What the count of a segment can say.
const SEGMENT_MAX: usize = 255;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathFault {
    /// It can't be read.
    Malformed(&'static str),
    /// It has an AS_SET, which RFC 9774 refuses.
    Set,
}

/// Reads an AS_PATH. Adjacent sequences become one, since 255 is a limit of the encoding only.
/// We are in no confederation, so confederation segments are malformed (RFC 5065 section 5).
pub(super) fn decode(value: &[u8], four_octet: bool) -> Result<AsPath, PathFault> {
    decode_segments(value, four_octet, Confederation::Refuse)
}

/// Reads an AS4_PATH: four octets a number, confederation segments skipped (RFC 6793 section 6).
pub(super) fn decode_as4(value: &[u8]) -> Result<AsPath, PathFault> {
    if value.is_empty() {
        return Err(PathFault::Malformed("AS4_PATH is empty"));
    }
    decode_segments(value, true, Confederation::Skip)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Confederation {
    Refuse,
    Skip,
}

fn decode_segments(
    value: &[u8],
    four_octet: bool,
    confederation: Confederation,
) -> Result<AsPath, PathFault> {
    let cut_short = PathFault::Malformed("an AS path segment is cut short");
    let mut sequence = Vec::new();
    let mut reader = Reader::new(value);
    while let Some(kind) = reader.u8() {
        let count = usize::from(reader.u8().ok_or(cut_short)?);
        let width = if four_octet { 4 } else { 2 };
        let numbers = reader.take(count * width).ok_or(cut_short)?;
        if count == 0 {
            return Err(PathFault::Malformed("an AS path segment is empty"));
        }
        match (kind, confederation) {
            (SEQUENCE, _) => append_numbers(numbers, four_octet, &mut sequence)?,
            (SET, _) => return Err(PathFault::Set),
            (CONFED_SEQUENCE | CONFED_SET, Confederation::Skip) => {}
            (CONFED_SEQUENCE | CONFED_SET, Confederation::Refuse) => {
                return Err(PathFault::Malformed(
                    "a confederation segment from outside of it",
                ));
            }
            _ => return Err(PathFault::Malformed("an AS path segment of unknown type")),
        }
    }
    Ok(AsPath::from_sequence(sequence))
}

fn append_numbers(bytes: &[u8], four_octet: bool, out: &mut Vec<u32>) -> Result<(), PathFault> {
    let before = out.len();
    if four_octet {
        let numbers = items::<4>(bytes).unwrap_or_default().iter();
        out.extend(numbers.map(|&octets| u32::from_be_bytes(octets)));
    } else {
        let numbers = items::<2>(bytes).unwrap_or_default().iter();
        out.extend(numbers.map(|&octets| u32::from(u16::from_be_bytes(octets))));
    }
    if out.iter().skip(before).any(|&number| number == 0) {
        return Err(PathFault::Malformed("AS 0 in an AS path"));
    }
    Ok(())
}

/// What an old speaker's AS_PATH and the AS4_PATH that came along say together (RFC 6793 section
/// 4.2.3): the leading numbers that AS4_PATH lacks, then AS4_PATH; AS_PATH alone if it is shorter.
pub(super) fn merge(path: AsPath, as4_path: &AsPath) -> AsPath {
    let Some(missing) = path.length().checked_sub(as4_path.length()) else {
        return path;
    };
    AsPath::from_sequence(path.hops().take(missing).chain(as4_path.hops()).collect())
}

/// Appends the value of AS_PATH or AS4_PATH, segments split at 255.
pub(super) fn encode(path: &AsPath, four_octet: bool, out: &mut Vec<u8>) {
    for segment in &path.0 {
        let (kind, numbers) = match segment {
            AsSegment::Sequence(numbers) => (SEQUENCE, numbers),
            AsSegment::Set(numbers) => (SET, numbers),
        };
        for chunk in numbers.chunks(SEGMENT_MAX) {
            out.extend_from_slice(&[kind, u8::try_from(chunk.len()).unwrap_or(u8::MAX)]);
            for &number in chunk {
                if four_octet {
                    out.extend_from_slice(&number.to_be_bytes());
                } else {
                    out.extend_from_slice(&two_octets(number).to_be_bytes());
                }
            }
        }
    }
}

/// The number, or AS_TRANS where it does not fit.
pub(super) fn two_octets(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(AS_TRANS as u16)
}

impl AsPath {
    /// A path of one sequence, or the empty path.
    pub fn from_sequence(numbers: Vec<u32>) -> Self {
        if numbers.is_empty() {
            return Self::default();
        }
        Self(vec![AsSegment::Sequence(numbers)])
    }

    /// All AS numbers in order, those of sets too.
    pub fn hops(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|segment| match segment {
            AsSegment::Sequence(numbers) | AsSegment::Set(numbers) => numbers.iter().copied(),
        })
    }

    /// The length that routes are compared by: a set counts as one (RFC 4271 section 9.1.2.2).
    pub fn length(&self) -> usize {
        let lengths = self.0.iter().map(|segment| match segment {
            AsSegment::Sequence(numbers) => numbers.len(),
            AsSegment::Set(_) => 1,
        });
        lengths.sum()
    }

    /// The AS that the route was received from: the first number of a leading sequence.
    pub fn neighbour(&self) -> Option<u32> {
        match self.0.first() {
            Some(AsSegment::Sequence(numbers)) => numbers.first().copied(),
            Some(AsSegment::Set(_)) | None => None,
        }
    }

    /// Puts a number in front.
    pub fn prepend(&mut self, number: u32) {
        match self.0.first_mut() {
            Some(AsSegment::Sequence(numbers)) => numbers.insert(0, number),
            Some(AsSegment::Set(_)) | None => {
                self.0.insert(0, AsSegment::Sequence(vec![number]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(numbers: &[u32]) -> AsPath {
        AsPath::from_sequence(numbers.to_vec())
    }

    #[test]
    fn adjacent_sequences_become_one() {
        let value = [2, 1, 0, 7, 2, 2, 0, 8, 0, 9];
        assert_eq!(decode(&value, false), Ok(path(&[7, 8, 9])));
    }

    #[test]
    fn a_long_sequence_is_split_at_255_and_read_back_whole() {
        let long = path(&(1..=600).collect::<Vec<_>>());
        for four_octet in [false, true] {
            let mut value = Vec::new();
            encode(&long, four_octet, &mut value);
            assert_eq!(value[..2], [2, 255]);
            assert_eq!(decode(&value, four_octet), Ok(long.clone()));
        }
    }

    #[test]
    fn malformed_paths_are_refused() {
        for value in [
            &[2, 1, 0][..],
            &[2],
            &[2, 0],
            &[9, 1, 0, 1],
            &[3, 1, 0, 1],
            &[4, 1, 0, 1],
            &[2, 1, 0, 0],
            &[2, 1, 0, 1, 0xff],
        ] {
            let fault = decode(value, false).unwrap_err();
            assert!(matches!(fault, PathFault::Malformed(_)), "{value:?}");
        }
        assert_eq!(decode(&[1, 1, 0, 1], false), Err(PathFault::Set));
    }

    #[test]
    fn as4_path_replaces_the_end_of_as_path() {
        let trans = path(&[10, 23456, 23456, 30]);
        assert_eq!(
            merge(trans.clone(), &path(&[70000, 80000, 30])),
            path(&[10, 70000, 80000, 30])
        );
        let longer = path(&[1, 2, 3, 4, 5]);
        assert_eq!(merge(trans.clone(), &longer), trans);
    }

    #[test]
    fn confederation_segments_of_as4_path_are_skipped() {
        let value = [3, 1, 0, 0, 0, 1, 2, 1, 0, 1, 0, 0];
        assert_eq!(decode_as4(&value), Ok(path(&[65536])));
        assert!(decode_as4(&[]).is_err());
    }

    #[test]
    fn prepending_extends_the_first_sequence() {
        let mut empty = AsPath::default();
        empty.prepend(2);
        empty.prepend(1);
        assert_eq!(empty, path(&[1, 2]));
        assert_eq!((empty.length(), empty.neighbour()), (2, Some(1)));
        let mut set = AsPath(vec![AsSegment::Set(vec![5, 6])]);
        assert_eq!((set.length(), set.neighbour()), (1, None));
        set.prepend(4);
        assert_eq!((set.length(), set.neighbour()), (2, Some(4)));
        assert_eq!(set.hops().collect::<Vec<_>>(), [4, 5, 6]);
    }
}
