//! What the pools are like that a cluster without any is given, under Calico's names for it.

use clap::{Args, ValueEnum};
use datastore::kubernetes::PoolDefaults;
use ipnet::IpNet;
use model::Selector;
use model::object::EncapMode;

/// The settings. They are read once in the life of a cluster.
#[derive(Debug, Clone, Args)]
pub(crate) struct DefaultPools {
    /// Whether a cluster without an IPPool is left without one
    #[arg(long, env = "NO_DEFAULT_POOLS", value_parser = truth, num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    no_default_pools: bool,
    /// Addresses of the first IPv4 pool; without, those that kubeadm or the nodes' podCIDRs say
    #[arg(long, env = "CALICO_IPV4POOL_CIDR")]
    ipv4pool_cidr: Option<String>,
    /// Prefix length of its blocks
    #[arg(long, env = "CALICO_IPV4POOL_BLOCK_SIZE", value_parser = clap::value_parser!(u8).range(20..=32))]
    ipv4pool_block_size: Option<u8>,
    /// Its ipipMode
    #[arg(
        long,
        env = "CALICO_IPV4POOL_IPIP",
        value_enum,
        ignore_case = true,
        default_value = "never"
    )]
    ipv4pool_ipip: Mode,
    /// Its vxlanMode
    #[arg(
        long,
        env = "CALICO_IPV4POOL_VXLAN",
        value_enum,
        ignore_case = true,
        default_value = "never"
    )]
    ipv4pool_vxlan: Mode,
    /// Its natOutgoing
    #[arg(long, env = "CALICO_IPV4POOL_NAT_OUTGOING", value_parser = truth, default_value = "true")]
    ipv4pool_nat_outgoing: bool,
    /// Its nodeSelector
    #[arg(long, env = "CALICO_IPV4POOL_NODE_SELECTOR", value_parser = selector, default_value = "all()")]
    ipv4pool_node_selector: Selector,
    /// Addresses of the first IPv6 pool, likewise
    #[arg(long, env = "CALICO_IPV6POOL_CIDR")]
    ipv6pool_cidr: Option<String>,
    /// Prefix length of its blocks
    #[arg(long, env = "CALICO_IPV6POOL_BLOCK_SIZE", value_parser = clap::value_parser!(u8).range(116..=128))]
    ipv6pool_block_size: Option<u8>,
    /// Its vxlanMode
    #[arg(
        long,
        env = "CALICO_IPV6POOL_VXLAN",
        value_enum,
        ignore_case = true,
        default_value = "never"
    )]
    ipv6pool_vxlan: Mode,
    /// Its natOutgoing
    #[arg(long, env = "CALICO_IPV6POOL_NAT_OUTGOING", value_parser = truth, default_value = "false")]
    ipv6pool_nat_outgoing: bool,
    /// Its nodeSelector
    #[arg(long, env = "CALICO_IPV6POOL_NODE_SELECTOR", value_parser = selector, default_value = "all()")]
    ipv6pool_node_selector: Selector,
}

/// When packets are encapsulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Always.
    Always,
    /// Between subnets.
    #[value(name = "cross-subnet", alias = "CrossSubnet", alias = "cross_subnet")]
    CrossSubnet,
    /// Never.
    #[value(alias = "off")]
    Never,
}

impl From<Mode> for EncapMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Always => Self::Always,
            Mode::CrossSubnet => Self::CrossSubnet,
            Mode::Never => Self::Never,
        }
    }
}

impl DefaultPools {
    /// As they are made; none where none is to be made, or why they can't be.
    pub(crate) fn pools(&self) -> Result<Option<[PoolDefaults; 2]>, String> {
        if self.no_default_pools {
            return Ok(None);
        }
        let v4 = PoolDefaults {
            cidr: cidr(self.ipv4pool_cidr.as_deref(), true)?,
            block_size: self.ipv4pool_block_size,
            ipip_mode: self.ipv4pool_ipip.into(),
            vxlan_mode: self.ipv4pool_vxlan.into(),
            nat_outgoing: self.ipv4pool_nat_outgoing,
            node_selector: self.ipv4pool_node_selector.clone(),
        };
        if v4.ipip_mode != EncapMode::Never && v4.vxlan_mode != EncapMode::Never {
            return Err("CALICO_IPV4POOL_VXLAN: a pool has either IPIP or VXLAN".to_owned());
        }
        let v6 = PoolDefaults {
            cidr: cidr(self.ipv6pool_cidr.as_deref(), false)?,
            block_size: self.ipv6pool_block_size,
            ipip_mode: EncapMode::Never,
            vxlan_mode: self.ipv6pool_vxlan.into(),
            nat_outgoing: self.ipv6pool_nat_outgoing,
            node_selector: self.ipv6pool_node_selector.clone(),
        };
        Ok(Some([v4, v6]))
    }
}

/// A prefix of the family; an empty text says nothing.
fn cidr(text: Option<&str>, v4: bool) -> Result<Option<IpNet>, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let name = if v4 {
        "CALICO_IPV4POOL_CIDR"
    } else {
        "CALICO_IPV6POOL_CIDR"
    };
    let net = text
        .parse::<IpNet>()
        .ok()
        .filter(|net| net.addr().is_ipv4() == v4 && *net == net.trunc());
    net.map(Some)
        .ok_or_else(|| format!("{name}: {text:?} is not a prefix of this family"))
}

/// Yes and no in the spellings of environment variables.
fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "" | "false" | "0" | "no" => Ok(false),
        _ => Err("true or false is needed".to_owned()),
    }
}

fn selector(text: &str) -> Result<Selector, String> {
    Selector::parse_calico(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        pools: DefaultPools,
    }

    fn pools(arguments: &[&str]) -> Result<Option<[PoolDefaults; 2]>, String> {
        let all = std::iter::once("x").chain(arguments.iter().copied());
        let command = Command::try_parse_from(all).map_err(|error| error.to_string())?;
        command.pools.pools()
    }

    #[test]
    fn pools_are_like_calicos_unless_told_otherwise() {
        let [v4, v6] = pools(&[]).unwrap().unwrap();
        assert_eq!(
            (v4.cidr, v4.ipip_mode, v4.nat_outgoing),
            (None, EncapMode::Never, true)
        );
        assert_eq!(
            (v6.cidr, v6.vxlan_mode, v6.nat_outgoing),
            (None, EncapMode::Never, false)
        );
        assert_eq!(pools(&["--no-default-pools=true"]), Ok(None));
        let told = [
            "--ipv4pool-cidr=10.5.0.0/16",
            "--ipv4pool-ipip=CrossSubnet",
            "--ipv6pool-vxlan=Always",
        ];
        let [v4, v6] = pools(&told).unwrap().unwrap();
        assert_eq!(
            (v4.cidr, v4.ipip_mode),
            (Some("10.5.0.0/16".parse().unwrap()), EncapMode::CrossSubnet)
        );
        assert_eq!(v6.vxlan_mode, EncapMode::Always);
    }

    #[test]
    fn what_makes_no_pool_is_refused() {
        for (arguments, said) in [
            (
                &["--ipv4pool-cidr=fd00::/64"][..],
                "is not a prefix of this family",
            ),
            (
                &["--ipv4pool-cidr=10.0.0.1/16"],
                "is not a prefix of this family",
            ),
            (
                &["--ipv4pool-ipip=Always", "--ipv4pool-vxlan=Always"],
                "either IPIP or VXLAN",
            ),
            (&["--ipv4pool-block-size=19"], "19 is not in 20..=32"),
        ] {
            let refused = pools(arguments).unwrap_err();
            assert!(refused.contains(said), "{refused}");
        }
    }
}
