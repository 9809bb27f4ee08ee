//! OPEN: what we propose, what we accept, what follows (RFC 4271 section 6.2, RFC 5492).

use crate::config::{AddPath, RemoteAs, Role};
use crate::wire::{
    Capability, ErrorCode, Family, GracefulRestart, Notification, Open, SessionParams,
};
use std::net::Ipv4Addr;
use std::time::Duration;

/// RFC 9687 section 3.2: the least time that a peer has to take what we send.
const SEND_HOLD: Duration = Duration::from_secs(8 * 60);
/// AFI of next hops that RFC 8950 lets IPv4 routes have.
const AFI_IPV6: u16 = 2;
/// ADD-PATH directions (RFC 7911 section 4).
const RECEIVE: u8 = 1;
const SEND: u8 = 2;

/// What we say in an OPEN and expect of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proposal {
    /// Name of what asked for the session.
    pub(crate) name: String,
    pub(crate) local_as: u32,
    pub(crate) remote_as: RemoteAs,
    pub(crate) router_id: Ipv4Addr,
    /// Seconds.
    pub(crate) hold_time: u16,
    pub(crate) families: Vec<Family>,
    pub(crate) extended_next_hop: bool,
    pub(crate) add_path: AddPath,
    pub(crate) role: Option<Role>,
    pub(crate) strict_role: bool,
    /// Seconds; 0 announces no graceful restart.
    pub(crate) restart_time: u16,
    /// Seconds; 0 announces no long-lived graceful restart.
    pub(crate) long_lived_stale_time: u32,
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
    /// The peer's AS number.
    pub(crate) remote_as: u32,
    /// None: no keepalives, no hold timer.
    pub(crate) hold_time: Option<Duration>,
    /// The peer answers ROUTE-REFRESH.
    pub(crate) route_refresh: bool,
    /// Both sides mark where a refresh begins and ends (RFC 7313).
    pub(crate) enhanced_refresh: bool,
    /// What the peer said about graceful restart, if we take part too.
    pub(crate) graceful_restart: Option<GracefulRestart>,
    /// What the peer said about long-lived graceful restart, if we take part too: family, F bit,
    /// and how long its stale routes may be kept.
    pub(crate) long_lived: Vec<(Family, bool, Duration)>,
}

impl Agreement {
    /// How long the peer may leave what we send unread (RFC 9687).
    pub(crate) fn send_hold(&self) -> Duration {
        let twice = self.hold_time.unwrap_or_default() * 2;
        SEND_HOLD.max(twice)
    }

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
        capabilities.push(Capability::EnhancedRouteRefresh);
        capabilities.push(Capability::ExtendedMessage);
        capabilities.push(Capability::FourOctetAs(self.local_as));
        if self.extended_next_hop && self.families.contains(&Family::IPV4) {
            let ipv4 = (Family::IPV4, AFI_IPV6);
            capabilities.push(Capability::ExtendedNextHop(vec![ipv4]));
        }
        let receive = if self.add_path.receive { RECEIVE } else { 0 };
        let direction = receive | if self.add_path.send > 0 { SEND } else { 0 };
        if direction != 0 {
            let families = self.families.iter();
            let families = families.map(|family| (*family, direction)).collect();
            capabilities.push(Capability::AddPath(families));
        }
        if let Some(role) = self.role.filter(|_| self.is_internal() != Some(true)) {
            capabilities.push(Capability::Role(role.code()));
        }
        self.restart_capabilities(&mut capabilities);
        Open {
            as_number: self.local_as,
            hold_time: self.hold_time,
            router_id: self.router_id,
            capabilities,
        }
    }

    fn restart_capabilities(&self, capabilities: &mut Vec<Capability>) {
        if self.restart_time == 0 {
            return;
        }
        let forwarding = self.forwarding_preserved;
        let families = self.families.iter();
        capabilities.push(Capability::GracefulRestart(GracefulRestart {
            restarting: self.restarting,
            notification: true,
            restart_time: self.restart_time.min(4095),
            families: families
                .clone()
                .map(|family| (*family, forwarding))
                .collect(),
        }));
        if self.long_lived_stale_time > 0 {
            let families = families.map(|family| (*family, forwarding, self.long_lived_stale_time));
            capabilities.push(Capability::LongLivedGracefulRestart(families.collect()));
        }
    }

    /// Whether the peer is in our AS; None where only its OPEN will tell.
    pub(crate) fn is_internal(&self) -> Option<bool> {
        match self.remote_as {
            RemoteAs::Number(number) => Some(number == self.local_as),
            RemoteAs::Internal => Some(true),
            RemoteAs::External => Some(false),
            RemoteAs::Auto => None,
        }
    }

    /// Checks their OPEN and derives what the session will be like.
    pub(crate) fn accept(&self, open: &Open) -> Result<Agreement, Refusal> {
        self.check_identity(open)?;
        let ibgp = open.as_number == self.local_as;
        if !ibgp {
            self.check_role(open)?;
        }
        let families = self.common_families(open)?;
        let theirs = &open.capabilities;
        let has = |wanted: &Capability| theirs.contains(wanted);
        let takes_part = self.restart_time > 0;
        let graceful_restart = theirs.iter().find_map(|capability| match capability {
            Capability::GracefulRestart(peer) if takes_part => Some(peer.clone()),
            _ => None,
        });
        let long_lived = if graceful_restart.is_some() {
            self.long_lived(theirs)
        } else {
            Vec::new()
        };
        let hold_time = self.hold_time.min(open.hold_time);
        let four_octet_as = theirs
            .iter()
            .any(|capability| matches!(capability, Capability::FourOctetAs(_)));
        let add_path = |enabled: bool, wanted: u8| {
            let agreed = families
                .iter()
                .copied()
                .filter(|family| enabled && add_path_direction(theirs, *family) & wanted != 0);
            agreed.collect()
        };
        Ok(Agreement {
            params: SessionParams {
                four_octet_as,
                ibgp,
                add_path_receive: add_path(self.add_path.receive, SEND),
                add_path_send: add_path(self.add_path.send > 0, RECEIVE),
                extended_next_hop: self.extended_next_hop && takes_ipv6_next_hops(theirs),
                extended_message: has(&Capability::ExtendedMessage),
                families,
            },
            router_id: open.router_id,
            remote_as: open.as_number,
            hold_time: (hold_time > 0).then(|| Duration::from_secs(hold_time.into())),
            route_refresh: has(&Capability::RouteRefresh),
            enhanced_refresh: has(&Capability::EnhancedRouteRefresh)
                && has(&Capability::RouteRefresh),
            graceful_restart,
            long_lived,
        })
    }

    /// For no longer than we would have ours kept.
    fn long_lived(&self, theirs: &[Capability]) -> Vec<(Family, bool, Duration)> {
        let listed = theirs.iter().filter_map(|capability| match capability {
            Capability::LongLivedGracefulRestart(families) => Some(families),
            _ => None,
        });
        let agreed = listed.flatten().map(|(family, forwarding, seconds)| {
            let seconds = (*seconds).min(self.long_lived_stale_time);
            (*family, *forwarding, Duration::from_secs(seconds.into()))
        });
        agreed
            .filter(|(family, _, time)| self.families.contains(family) && !time.is_zero())
            .collect()
    }

    /// RFC 9234 section 4.2.
    fn check_role(&self, open: &Open) -> Result<(), Refusal> {
        let Some(ours) = self.role else {
            return Ok(());
        };
        let mut theirs: Vec<u8> = open
            .capabilities
            .iter()
            .filter_map(|capability| match capability {
                Capability::Role(code) => Some(*code),
                _ => None,
            })
            .collect();
        theirs.dedup();
        let words = match theirs.as_slice() {
            [] if !self.strict_role => return Ok(()),
            [] => "peer does not say its role, and its role is required".to_owned(),
            [code] if *code == ours.counterpart().code() => return Ok(()),
            [code] => format!(
                "peer says role {code}, which does not fit ours ({}): expected {}",
                ours.code(),
                ours.counterpart().code()
            ),
            _ => "peer says several roles".to_owned(),
        };
        Err(refuse(ErrorCode::ROLE_MISMATCH, &[], words))
    }

    fn check_identity(&self, open: &Open) -> Result<(), Refusal> {
        let ibgp = open.as_number == self.local_as;
        let expected = match self.remote_as {
            RemoteAs::Number(number) => open.as_number == number,
            RemoteAs::Internal => ibgp,
            RemoteAs::External => !ibgp,
            RemoteAs::Auto => true,
        };
        if !expected {
            return Err(refuse(
                ErrorCode::BAD_PEER_AS,
                &[],
                format!(
                    "peer says AS {} but {} expects {}",
                    open.as_number, self.name, self.remote_as
                ),
            ));
        }
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

fn add_path_direction(capabilities: &[Capability], family: Family) -> u8 {
    let listed = capabilities
        .iter()
        .filter_map(|capability| match capability {
            Capability::AddPath(families) => Some(families),
            _ => None,
        });
    let of_family = listed.flatten().filter(|(other, _)| *other == family);
    of_family.fold(0, |directions, (_, direction)| directions | direction)
}

fn takes_ipv6_next_hops(capabilities: &[Capability]) -> bool {
    capabilities.iter().any(|capability| match capability {
        Capability::ExtendedNextHop(entries) => entries.contains(&(Family::IPV4, AFI_IPV6)),
        _ => false,
    })
}

impl Role {
    /// RFC 9234 section 4.1.
    fn code(self) -> u8 {
        match self {
            Self::Provider => 0,
            Self::RouteServer => 1,
            Self::RouteServerClient => 2,
            Self::Customer => 3,
            Self::Peer => 4,
        }
    }

    fn counterpart(self) -> Self {
        match self {
            Self::Provider => Self::Customer,
            Self::Customer => Self::Provider,
            Self::RouteServer => Self::RouteServerClient,
            Self::RouteServerClient => Self::RouteServer,
            Self::Peer => Self::Peer,
        }
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
            remote_as: remote_as.into(),
            extended_next_hop: false,
            add_path: AddPath::default(),
            role: None,
            strict_role: false,
            long_lived_stale_time: 0,
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

    fn with(remote_as: RemoteAs) -> Proposal {
        Proposal {
            remote_as,
            ..proposal(64512, 0)
        }
    }

    #[test]
    fn the_peers_as_may_be_told_by_its_relation_to_ours() {
        for (remote_as, number, accepted) in [
            (RemoteAs::Internal, 64512, true),
            (RemoteAs::Internal, 65001, false),
            (RemoteAs::External, 64512, false),
            (RemoteAs::External, 65001, true),
            (RemoteAs::Auto, 64512, true),
            (RemoteAs::Auto, 65001, true),
        ] {
            let agreed = with(remote_as).accept(&open_of(number));
            assert_eq!(agreed.is_ok(), accepted, "{remote_as} {number}");
            if let Ok(agreement) = agreed {
                assert_eq!(agreement.params.ibgp, number == 64512);
                assert_eq!(agreement.remote_as, number);
            }
        }
    }

    #[test]
    fn several_paths_are_exchanged_in_the_direction_that_both_want() {
        let speaker = |receive, send| Proposal {
            add_path: AddPath { receive, send },
            ..proposal(1, 2)
        };
        for (ours, theirs, receive, send) in [
            (speaker(true, 0), speaker(false, 4), true, false),
            (speaker(true, 4), speaker(true, 4), true, true),
            (speaker(true, 0), speaker(true, 0), false, false),
            (speaker(false, 4), speaker(true, 0), false, true),
            (speaker(true, 4), speaker(false, 0), false, false),
        ] {
            let open = Open {
                router_id: Ipv4Addr::new(192, 0, 2, 2),
                as_number: 2,
                ..theirs.open()
            };
            let params = ours.accept(&open).expect("agreed").params;
            let both = [Family::IPV4, Family::IPV6];
            let expected = |wanted: bool| if wanted { both.to_vec() } else { Vec::new() };
            assert_eq!(params.add_path_receive, expected(receive));
            assert_eq!(params.add_path_send, expected(send));
        }
    }

    #[test]
    fn what_only_one_side_can_do_is_not_done() {
        let full = Proposal {
            extended_next_hop: true,
            long_lived_stale_time: 3600,
            ..proposal(1, 2)
        };
        let open = |proposal: &Proposal| Open {
            router_id: Ipv4Addr::new(192, 0, 2, 2),
            as_number: 2,
            ..proposal.open()
        };
        let both = full.accept(&open(&full)).expect("agreed");
        assert!(both.params.extended_next_hop && both.params.extended_message);
        assert!(both.enhanced_refresh);
        let hour = Duration::from_secs(3600);
        let kept = [(Family::IPV4, true, hour), (Family::IPV6, true, hour)];
        assert_eq!(both.long_lived, kept);

        let plain = proposal(1, 2);
        let ours_only = full.accept(&open(&plain)).expect("agreed");
        assert!(!ours_only.params.extended_next_hop && ours_only.long_lived.is_empty());
        let theirs_only = plain.accept(&open(&full)).expect("agreed");
        assert!(!theirs_only.params.extended_next_hop && theirs_only.long_lived.is_empty());
    }

    #[test]
    fn roles_have_to_fit() {
        use Role::{Customer, Peer, Provider, RouteServer, RouteServerClient};
        let all = [Provider, RouteServer, RouteServerClient, Customer, Peer];
        for ours in all {
            for theirs in all {
                let speaker = Proposal {
                    role: Some(ours),
                    ..proposal(1, 2)
                };
                let open = Open {
                    capabilities: vec![Capability::Role(theirs.code())],
                    ..open_of(2)
                };
                let fits = ours.counterpart() == theirs;
                let answer = speaker.accept(&open);
                assert_eq!(answer.is_ok(), fits, "{ours:?} {theirs:?}");
                if let Err(refusal) = answer {
                    let error = refusal.notification.error_code();
                    assert_eq!(error, ErrorCode::ROLE_MISMATCH);
                }
            }
        }
        let silent = Proposal {
            role: Some(Peer),
            ..proposal(1, 2)
        };
        assert!(silent.accept(&open_of(2)).is_ok());
        let strict = Proposal {
            strict_role: true,
            ..silent.clone()
        };
        assert!(strict.accept(&open_of(2)).is_err());
        let several = Open {
            capabilities: vec![Capability::Role(4), Capability::Role(3)],
            ..open_of(2)
        };
        assert!(silent.accept(&several).is_err());
        let twice = Open {
            capabilities: vec![Capability::Role(4), Capability::Role(4)],
            ..open_of(2)
        };
        assert!(silent.accept(&twice).is_ok());
    }
}
