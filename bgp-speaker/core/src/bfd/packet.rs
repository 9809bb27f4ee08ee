//! The control packet (RFC 5880 section 4.1).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

/// Octets of a packet without authentication.
const LENGTH: usize = 24;
const VERSION: u8 = 1;
const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// State of a session (RFC 5880 section 4.1, Sta).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Held down by an operator, or about to stop.
    AdminDown,
    /// Nothing is heard, or the other end does not hear us.
    Down,
    /// The other end is heard and does not know yet that it is.
    Init,
    /// Both hear each other.
    Up,
}

/// Why a session was last not up (RFC 5880 section 4.1, Diag).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// Nothing was wrong.
    pub const NONE: Self = Self(0);
    /// Nothing was heard for the detection time.
    pub const DETECTION_TIME_EXPIRED: Self = Self(1);
    /// The other end said that its session is not up.
    pub const NEIGHBOR_SIGNALED_DOWN: Self = Self(3);
    /// An operator's doing.
    pub const ADMINISTRATIVELY_DOWN: Self = Self(7);
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbor signaled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            number => return write!(f, "diagnostic {number}"),
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "AdminDown",
            Self::Down => "Down",
            Self::Init => "Init",
            Self::Up => "Up",
        })
    }
}

/// A control packet without authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session was last not up.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// P: answer at once.
    pub poll: bool,
    /// F: the answer.
    pub final_: bool,
    /// C: the sender's BFD outlives its control plane.
    pub independent: bool,
    /// D: the sender asks for no periodic packets.
    pub demand: bool,
    /// Detect Mult.
    pub multiplier: NonZeroU8,
    /// The sender's name of the session.
    pub my_discriminator: NonZeroU32,
    /// The receiver's name of it, once known.
    pub your_discriminator: Option<NonZeroU32>,
    /// Desired Min TX Interval, in whole microseconds.
    pub desired_min_tx: Duration,
    /// Required Min RX Interval, in whole microseconds; zero asks for no periodic packets at all.
    pub required_min_rx: Duration,
    /// Required Min Echo RX Interval; zero takes no echo packets.
    pub required_min_echo_rx: Duration,
}

/// Why a packet must be discarded (RFC 5880 section 6.8.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Not version 1.
    #[error("version {0} is not 1")]
    Version(u8),
    /// Shorter than its header, or than it says.
    #[error("{octets} octets cannot hold a packet of length {length}")]
    Length {
        /// What the Length field says; the least length if there is none.
        length: usize,
        /// What arrived.
        octets: usize,
    },
    /// Detect Mult is zero.
    #[error("Detect Mult is zero")]
    Multiplier,
    /// M is for point-to-multipoint (RFC 8562).
    #[error("the Multipoint bit is set")]
    Multipoint,
    /// No authentication is configured.
    #[error("the packet is authenticated, and we are not to do that")]
    Authenticated,
    /// My Discriminator is zero.
    #[error("My Discriminator is zero")]
    MyDiscriminator,
    /// Your Discriminator is zero although the sender has heard us.
    #[error("Your Discriminator is zero in state {0}")]
    YourDiscriminator(State),
}

impl Packet {
    /// Reads the payload of a UDP datagram.
    ///
    /// # Errors
    /// [`PacketError`]: discard it.
    pub fn decode(octets: &[u8]) -> Result<Self, PacketError> {
        let Some((header, _)) = octets.split_first_chunk::<LENGTH>() else {
            return Err(PacketError::Length {
                length: LENGTH,
                octets: octets.len(),
            });
        };
        let [vers_diag, flags, multiplier, length, numbers @ ..] = *header;
        if vers_diag >> 5 != VERSION {
            return Err(PacketError::Version(vers_diag >> 5));
        }
        let length = usize::from(length);
        if length < LENGTH || length > octets.len() {
            return Err(PacketError::Length {
                length,
                octets: octets.len(),
            });
        }
        let multiplier = NonZeroU8::new(multiplier).ok_or(PacketError::Multiplier)?;
        if flags & MULTIPOINT != 0 {
            return Err(PacketError::Multipoint);
        }
        let [
            my,
            your,
            desired_min_tx,
            required_min_rx,
            required_min_echo_rx,
        ] = words(&numbers);
        let my_discriminator = NonZeroU32::new(my).ok_or(PacketError::MyDiscriminator)?;
        let your_discriminator = NonZeroU32::new(your);
        let state = match flags >> 6 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        };
        if your_discriminator.is_none() && state > State::Down {
            return Err(PacketError::YourDiscriminator(state));
        }
        if flags & AUTHENTICATION != 0 {
            return Err(PacketError::Authenticated);
        }
        Ok(Self {
            diagnostic: Diagnostic(vers_diag & 0x1f),
            state,
            poll: flags & POLL != 0,
            final_: flags & FINAL != 0,
            independent: flags & CONTROL_PLANE_INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            multiplier,
            my_discriminator,
            your_discriminator,
            desired_min_tx: Duration::from_micros(desired_min_tx.into()),
            required_min_rx: Duration::from_micros(required_min_rx.into()),
            required_min_echo_rx: Duration::from_micros(required_min_echo_rx.into()),
        })
    }

    /// The payload of a UDP datagram.
    pub fn encode(&self) -> [u8; LENGTH] {
        let state = match self.state {
            State::AdminDown => 0,
            State::Down => 1,
            State::Init => 2,
            State::Up => 3,
        };
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = state << 6
            | flag(self.poll, POLL)
            | flag(self.final_, FINAL)
            | flag(self.independent, CONTROL_PLANE_INDEPENDENT)
            | flag(self.demand, DEMAND);
        let mut octets = [0; LENGTH];
        octets[..4].copy_from_slice(&[
            VERSION << 5 | self.diagnostic.0 & 0x1f,
            flags,
            self.multiplier.get(),
            LENGTH as u8,
        ]);
        let numbers = [
            self.my_discriminator.get(),
            self.your_discriminator.map_or(0, NonZeroU32::get),
            micros(self.desired_min_tx),
            micros(self.required_min_rx),
            micros(self.required_min_echo_rx),
        ];
        for (place, number) in octets[4..].chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        octets
    }
}

fn words(octets: &[u8; LENGTH - 4]) -> [u32; 5] {
    let mut words = [0; 5];
    for (word, octets) in words.iter_mut().zip(octets.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*octets);
    }
    words
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A packet as BIRD 2 sends it: Up, C, Detect Mult 5, 10 ms.
    const SAMPLE: [u8; LENGTH] = [
        0x20, 0xc8, 5, 24, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0x27, 0x10, 0, 0, 0x27, 0x10, 0, 0, 0, 0,
    ];

    #[test]
    fn a_packet_is_read_field_by_field() {
        let packet = Packet::decode(&SAMPLE).unwrap();
        assert_eq!(packet.state, State::Up);
        assert!(packet.independent && !packet.poll && !packet.final_ && !packet.demand);
        assert_eq!(packet.multiplier.get(), 5);
        assert_eq!(packet.my_discriminator.get(), 7);
        assert_eq!(packet.your_discriminator.map(NonZeroU32::get), Some(9));
        assert_eq!(packet.desired_min_tx, Duration::from_millis(10));
        assert_eq!(packet.encode(), SAMPLE);
    }

    #[test]
    fn each_rule_of_reception_discards() {
        let with = |place: usize, value: u8| {
            let mut octets = SAMPLE;
            octets[place] = value;
            Packet::decode(&octets)
        };
        let length = |length, octets| Err(PacketError::Length { length, octets });
        assert_eq!(with(0, 0x00), Err(PacketError::Version(0)));
        assert_eq!(with(0, 0x40), Err(PacketError::Version(2)));
        assert_eq!(with(3, 23), length(23, 24));
        assert_eq!(with(3, 25), length(25, 24));
        assert_eq!(Packet::decode(&SAMPLE[..23]), length(24, 23));
        assert_eq!(with(2, 0), Err(PacketError::Multiplier));
        assert_eq!(with(1, 0xc1), Err(PacketError::Multipoint));
        assert_eq!(with(1, 0xc4), Err(PacketError::Authenticated));
        assert_eq!(with(7, 0), Err(PacketError::MyDiscriminator));
        assert_eq!(with(11, 0), Err(PacketError::YourDiscriminator(State::Up)));
        let mut down = SAMPLE;
        (down[1], down[11]) = (0x40, 0);
        assert!(Packet::decode(&down).is_ok(), "the first of a session");
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(octets in any::<[u8; LENGTH]>(), tail in any::<Vec<u8>>()) {
            let mut octets = octets;
            (octets[0], octets[3]) = (0x20 | octets[0] & 0x1f, LENGTH as u8);
            let datagram = [octets.as_slice(), &tail].concat();
            if let Ok(packet) = Packet::decode(&datagram) {
                prop_assert_eq!(packet.encode(), octets);
            }
        }
    }
}
