//! The node agent on a real kernel: what it promises when input is bad, when it dies, when
//! others change what is its own, and what the CNI plugin gets from it.

mod addresses;
mod bad_cni;
mod bad_input;
mod bad_policies;
mod bgp;
mod bgp_pods;
mod chaos;
mod cleanup;
mod cluster;
mod cni;
mod domains;
mod faults;
mod faults_policy;
mod host_ports;
mod interrupted;
mod journal;
mod labels;
mod libcni;
mod lifecycle;
mod live;
mod node;
mod others;
mod plan;
mod podman;
mod policy;
mod reflector;
mod repair;
mod restart;
mod scenario;
mod sockets;
mod tors;
mod truth;
mod tunnels;
mod upgrade;
