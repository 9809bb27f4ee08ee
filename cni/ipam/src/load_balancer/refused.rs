//! Why a Service does not get what it asks for.

use crate::Family;
use ipnet::IpNet;
use std::net::IpAddr;

/// Why a Service lacks an address that it asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// An annotation says nothing that can be understood.
    #[error("annotation projectcalico.org/{key}: {reason}")]
    Annotation {
        /// Its key without the prefix.
        key: &'static str,
        /// What is wrong, in words that include the offending value.
        reason: String,
    },
    /// A pool was named that is not there or gives no addresses to Services of this family.
    #[error("there is no IPPool {pool:?} of {family} with LoadBalancer among its allowedUses")]
    UnknownPool {
        /// What was asked for, by name or CIDR.
        pool: String,
        /// For which family.
        family: Family,
    },
    /// No pool gives addresses of the family to Services.
    #[error(
        "no IPPool of {family} has LoadBalancer among its allowedUses and gives addresses by itself"
    )]
    NoPool {
        /// The family.
        family: Family,
    },
    /// An address was asked for that no pool has for Services.
    #[error("requested address {ip} is in no IPPool with LoadBalancer among its allowedUses")]
    OutsidePools {
        /// The address.
        ip: IpAddr,
    },
    /// An address was asked for that somebody else has.
    #[error("requested address {ip} is in use by {holder}")]
    InUse {
        /// The address.
        ip: IpAddr,
        /// Whose it is.
        holder: String,
    },
    /// The address that was asked for lies in a block of a node.
    #[error("requested address {ip} is in block {block}, which gives addresses to pods")]
    PodBlock {
        /// The address.
        ip: IpAddr,
        /// The block around it.
        block: IpNet,
    },
    /// All is taken.
    #[error("no {family} address is left in {pools}")]
    Exhausted {
        /// The family.
        family: Family,
        /// The pools, by name.
        pools: String,
    },
    /// Somebody else gives this Service its addresses.
    #[error("it shows {ip}, which is of none of our IPPools: another controller serves it")]
    Foreign {
        /// The address.
        ip: IpAddr,
    },
}
