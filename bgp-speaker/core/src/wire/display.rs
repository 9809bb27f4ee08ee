//! Values in words, for logs and the command line.

use std::fmt;

use super::{AsPath, AsSegment, AttributeFault, Disposition, Family, attribute};

/// Such as `IPv4 unicast`, or the numbers of a family that has no name here.
impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IPV4 => f.write_str("IPv4 unicast"),
            Self::IPV6 => f.write_str("IPv6 unicast"),
            Self { afi, safi } => write!(f, "AFI {afi} SAFI {safi}"),
        }
    }
}

/// Such as `65001 65002`, sets in braces.
impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.iter().map(|segment| match segment {
            AsSegment::Sequence(numbers) => joined(numbers, " "),
            AsSegment::Set(numbers) => format!("{{{}}}", joined(numbers, ",")),
        });
        f.write_str(&words.collect::<Vec<_>>().join(" "))
    }
}

fn joined(numbers: &[u32], separator: &str) -> String {
    let words: Vec<_> = numbers.iter().map(u32::to_string).collect();
    words.join(separator)
}

/// Such as `ORIGIN: flags do not fit the type (routes withdrawn)`; reasons that name the attribute
/// stand alone.
impl fmt::Display for AttributeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, attribute::name(self.code)) {
            (_, Some(name)) if self.reason.starts_with(name) => {}
            (_, Some(name)) => write!(f, "{name}: ")?,
            (0, None) => {}
            (code, None) => write!(f, "attribute {code}: ")?,
        }
        let consequence = match self.disposition {
            Disposition::AttributeDiscard => "ignored",
            Disposition::TreatAsWithdraw => "routes withdrawn",
        };
        write!(f, "{} ({consequence})", self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_the_attribute_and_the_consequence() {
        let fault = |code, disposition| AttributeFault {
            code,
            disposition,
            reason: "flags do not fit the type",
        };
        let lines = [
            fault(4, Disposition::TreatAsWithdraw),
            fault(200, Disposition::AttributeDiscard),
            fault(0, Disposition::TreatAsWithdraw),
            AttributeFault {
                reason: "MULTI_EXIT_DISC is not 4 octets",
                ..fault(4, Disposition::TreatAsWithdraw)
            },
        ];
        assert_eq!(
            lines.map(|fault| fault.to_string()),
            [
                "MULTI_EXIT_DISC: flags do not fit the type (routes withdrawn)",
                "attribute 200: flags do not fit the type (ignored)",
                "flags do not fit the type (routes withdrawn)",
                "MULTI_EXIT_DISC is not 4 octets (routes withdrawn)",
            ]
        );
    }

    #[test]
    fn families_and_paths_read_as_operators_write_them() {
        let flowspec = Family { afi: 1, safi: 133 };
        assert_eq!(Family::IPV6.to_string(), "IPv6 unicast");
        assert_eq!(flowspec.to_string(), "AFI 1 SAFI 133");
        let path = AsPath(vec![
            AsSegment::Sequence(vec![65001, 4_200_000_001]),
            AsSegment::Set(vec![1, 2]),
        ]);
        assert_eq!(path.to_string(), "65001 4200000001 {1,2}");
        assert_eq!(AsPath::default().to_string(), "");
    }
}
