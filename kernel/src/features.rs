//! What this kernel can do, probed once. Nothing is changed, except that the kernel may load a
//! module to answer.

use crate::netlink::Socket;
use crate::{ip6, ipip, next_hop, nft, vxlan};
use std::fmt;
use std::path::Path;

/// What this kernel can do beyond the least that is required (Linux 5.14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    /// `uname -r`.
    pub release: String,
    /// The tunnel device `ipip` can be created.
    pub ipip: bool,
    /// The tunnel device `ip6tnl` can be created.
    pub ip6: bool,
    /// The tunnel device `vxlan` can be created.
    pub vxlan: bool,
    /// Routes can name a group of next hop objects, and show what is in it.
    pub next_hop_groups: bool,
    /// Tables can have an owner and outlive it (`owner, persist`; since 6.9). One without the
    /// other is never used.
    pub nft_owner: bool,
    /// Rules can hold packets in a queue (`nft_queue`): answers to name queries wait until what
    /// they resolve to is in force.
    pub nft_queue: bool,
    /// Statements that rules need and that the kernel lacks, with its own words.
    pub nft_missing: Vec<String>,
}

impl Features {
    pub(crate) fn probe(route: &mut Socket, nft: &mut Socket, sysctl_root: &Path) -> Self {
        let uname = rustix::system::uname();
        Self {
            release: uname.release().to_string_lossy().into_owned(),
            ipip: ipip::probe(route),
            ip6: ip6::probe(route),
            vxlan: vxlan::probe(route),
            next_hop_groups: next_hop::probe(route, sysctl_root),
            nft_owner: nft::probe_owner(nft),
            nft_queue: nft::probe_queue(nft),
            nft_missing: nft::probe_statements(nft),
        }
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |yes| if yes { "yes" } else { "no" };
        writeln!(f, "kernel               {}", self.release)?;
        writeln!(f, "ipip                 {}", word(self.ipip))?;
        writeln!(f, "ip6tnl               {}", word(self.ip6))?;
        writeln!(f, "vxlan                {}", word(self.vxlan))?;
        writeln!(f, "next hop groups      {}", word(self.next_hop_groups))?;
        writeln!(f, "nft owner, persist   {}", word(self.nft_owner))?;
        writeln!(f, "nft queue            {}", word(self.nft_queue))?;
        match self.nft_missing.as_slice() {
            [] => write!(f, "nft statements       all"),
            missing => write!(f, "nft statements       missing: {}", missing.join("; ")),
        }
    }
}
