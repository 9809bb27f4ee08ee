//! OPEN: what we propose, what we accept, what follows (RFC 4271 section 6.2, RFC 5492).

use crate::wire::{
    Capability, ErrorCode, Family, GracefulRestart, Notification, Open, SessionParams,
};
use std::net::Ipv4Addr;
use std::time::Duration;

/// What we say in an OPEN and expect of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proposal {
    /// Name of what asked for the session.
    pub(crate) name: String,
    pub(crate) local_as: u32,
    pub(crate) remote_as: u32,
    pub(crate) router_id: Ipv4Addr,
    /// Seconds.
    pub(crate) hold_time: u16,
    pub(crate) families: Vec<Family>,
    /// Seconds; 0 announces no graceful restart.
    pub(crate) restart_time: u16,
    /// The R bit.
    pub(crate) restarting: bool,
    /// The F bit.
    pub(crate) forwarding_preserved: bool,
}

/// What both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Agreement {
    pub(crate) params: SessionParams,
    pub(crate) router_id: Ipv4Addr,
    /// None: no keepalives, no hold timer.
    pub(crate) hold_time: Option<Duration>,
    /// The peer answers ROUTE-REFRESH.
    pub(crate) route_refresh: bool,
    /// What the peer said about graceful restart, if we take part too.
    pub(crate) graceful_restart: Option<GracefulRestart>,
}

impl Agreement {
    /// Both sides keep routes over NOTIFICATIONs as well (RFC 8538).
    pub(crate) fn survives_notification(&self) -> bool {
        self.graceful_restart
            .as_ref()
            .is_some_and(|peer| peer.notification)
    }
}

/// Why an OPEN was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) notification: Notification,
    pub(crate) words: String,
}

impl Proposal {
    /// Our OPEN.
    pub(crate) fn open(&self) -> Open {
        let mut capabilities: Vec<_> = self
            .families
            .iter()
            .map(|family| Capability::MultiProtocol(*family))
            .collect();
        capabilities.push(Capability::RouteRefresh);
        capabilities.push(Capability::FourOctetAs(self.local_as));
        if self.restart_time > 0 {
            let forwarding = |family: &Family| (*family, self.forwarding_preserved);
            capabilities.push(Capability::GracefulRestart(GracefulRestart {
                restarting: self.restarting,
                notification: true,
                restart_time: self.restart_time.min(4095),
                families: self.families.iter().map(forwarding).collect(),
            }));
        }
        Open {
            as_number: self.local_as,
            hold_time: self.hold_time,
            router_id: self.router_id,
            capabilities,
        }
    }

    /// Checks their OPEN and derives what the session will be like.
    pub(crate) fn accept(&self, open: &Open) -> Result<Agreement, Refusal> {
        self.check_identity(open)?;
        let families = self.common_families(open)?;
        let has = |wanted: &Capability| open.capabilities.contains(wanted);
        let graceful_restart = open
            .capabilities
            .iter()
            .find_map(|capability| match capability {
                Capability::GracefulRestart(peer) if self.restart_time > 0 => Some(peer.clone()),
                _ => None,
            });
        let hold_time = self.hold_time.min(open.hold_time);
        Ok(Agreement {
            params: SessionParams {
                four_octet_as: open
                    .capabilities
                    .iter()
                    .any(|capability| matches!(capability, Capability::FourOctetAs(_))),
                ibgp: self.local_as == self.remote_as,
                families,
                ..SessionParams::default()
            },
            router_id: open.router_id,
            hold_time: (hold_time > 0).then(|| Duration::from_secs(hold_time.into())),
            route_refresh: has(&Capability::RouteRefresh),
            graceful_restart,
        })
    }

    fn check_identity(&self, open: &Open) -> Result<(), Refusal> {
        if open.as_number != self.remote_as {
            return Err(refuse(
                ErrorCode::BAD_PEER_AS,
                &[],
                format!(
                    "peer says AS {} but {} expects {}",
                    open.as_number, self.name, self.remote_as
                ),
            ));
        }
        let ibgp = self.local_as == self.remote_as;
        if open.router_id.is_unspecified() || (ibgp && open.router_id == self.router_id) {
            let words = if open.router_id.is_unspecified() {
                "peer has no BGP identifier (0.0.0.0)".to_owned()
            } else {
                format!("peer has our own BGP identifier {}", open.router_id)
            };
            return Err(refuse(ErrorCode::BAD_BGP_IDENTIFIER, &[], words));
        }
        if matches!(open.hold_time, 1 | 2) {
            let words = format!("peer proposes a hold time of {} s", open.hold_time);
            return Err(refuse(ErrorCode::UNACCEPTABLE_HOLD_TIME, &[], words));
        }
        Ok(())
    }

    /// A peer that names no family speaks IPv4 unicast (RFC 4760 section 8).
    fn common_families(&self, open: &Open) -> Result<Vec<Family>, Refusal> {
        let mut theirs: Vec<Family> = open
            .capabilities
            .iter()
            .filter_map(|capability| match capability {
                Capability::MultiProtocol(family) => Some(*family),
                _ => None,
            })
            .collect();
        if theirs.is_empty() {
            theirs.push(Family::IPV4);
        }
        let common: Vec<_> = self
            .families
            .iter()
            .copied()
            .filter(|family| theirs.contains(family))
            .collect();
        if common.is_empty() {
            let wanted: Vec<u8> = self
                .families
                .iter()
                .flat_map(|family| {
                    let [high, low] = family.afi.to_be_bytes();
                    [1, 4, high, low, 0, family.safi]
                })
                .collect();
            let words = "peer shares no address family with us".to_owned();
            return Err(refuse(ErrorCode::UNSUPPORTED_CAPABILITY, &wanted, words));
        }
        Ok(common)
    }
}

fn refuse(error: ErrorCode, data: &[u8], words: String) -> Refusal {
    Refusal {
        notification: Notification::with_data(error, data),
        words,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn proposal(local_as: u32, remote_as: u32) -> Proposal {
        Proposal {
            name: "BGPPeer/rack1".into(),
            local_as,
            remote_as,
            router_id: Ipv4Addr::new(192, 0, 2, 1),
            hold_time: 90,
            families: vec![Family::IPV4, Family::IPV6],
            restart_time: 120,
            restarting: false,
            forwarding_preserved: true,
        }
    }

    pub(crate) fn open_of(as_number: u32) -> Open {
        Open {
            router_id: Ipv4Addr::new(192, 0, 2, 2),
            ..proposal(as_number, 0).open()
        }
    }

    #[test]
    fn a_wrong_as_number_is_refused_in_words_that_name_both() {
        let refusal = proposal(64512, 65001)
            .accept(&open_of(65009))
            .expect_err("wrong AS");
        assert_eq!(
            (refusal.notification.code, refusal.notification.subcode),
            (2, 2)
        );
        assert_eq!(
            refusal.words,
            "peer says AS 65009 but BGPPeer/rack1 expects 65001"
        );
    }

    #[test]
    fn identifiers_and_hold_times_that_cannot_be_are_refused() {
        let cases = [
            (
                Open {
                    router_id: Ipv4Addr::UNSPECIFIED,
                    ..open_of(1)
                },
                3,
            ),
            (
                Open {
                    router_id: Ipv4Addr::new(192, 0, 2, 1),
                    ..open_of(1)
                },
                3,
            ),
            (
                Open {
                    hold_time: 1,
                    ..open_of(1)
                },
                6,
            ),
            (
                Open {
                    hold_time: 2,
                    ..open_of(1)
                },
                6,
            ),
            (
                Open {
                    capabilities: vec![Capability::MultiProtocol(Family { afi: 25, safi: 70 })],
                    ..open_of(1)
                },
                7,
            ),
        ];
        for (open, subcode) in cases {
            let refusal = proposal(1, 1).accept(&open).expect_err("bad OPEN");
            assert_eq!(refusal.notification.subcode, subcode, "{open:?}");
        }
    }

    #[test]
    fn an_ebgp_peer_may_share_our_identifier() {
        let open = Open {
            router_id: Ipv4Addr::new(192, 0, 2, 1),
            ..open_of(2)
        };
        assert!(proposal(1, 2).accept(&open).is_ok());
    }

    #[test]
    fn the_smaller_hold_time_counts_and_zero_means_none() {
        let hold = |theirs| {
            proposal(1, 2)
                .accept(&Open {
                    hold_time: theirs,
                    ..open_of(2)
                })
                .map(|a| a.hold_time)
        };
        assert_eq!(hold(9), Ok(Some(Duration::from_secs(9))));
        assert_eq!(hold(900), Ok(Some(Duration::from_secs(90))));
        assert_eq!(hold(0), Ok(None));
    }

    #[test]
    fn a_peer_without_capabilities_speaks_ipv4_with_short_as_numbers() {
        let open = Open {
            capabilities: Vec::new(),
            ..open_of(2)
        };
        let agreement = proposal(1, 2).accept(&open).expect("plain BGP-4");
        assert_eq!(agreement.params.families, [Family::IPV4]);
        assert!(!agreement.params.four_octet_as && !agreement.route_refresh);
        assert_eq!(agreement.graceful_restart, None);
    }

    #[test]
    fn our_open_says_that_forwarding_goes_on() {
        let mut ours = proposal(4_200_000_000, 2);
        ours.restarting = true;
        let restart =
            ours.open()
                .capabilities
                .into_iter()
                .find_map(|capability| match capability {
                    Capability::GracefulRestart(restart) => Some(restart),
                    _ => None,
                });
        let restart = restart.expect("graceful restart is announced");
        assert!(restart.restarting && restart.notification);
        assert_eq!(
            restart.families,
            [(Family::IPV4, true), (Family::IPV6, true)]
        );
    }
}
