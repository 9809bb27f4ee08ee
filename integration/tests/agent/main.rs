//! The node agent on a real kernel: what it promises when input is bad, when it dies, when
//! others change what is its own, and what the CNI plugin gets from it.

mod bad_input;
mod cluster;
mod cni;
mod host_ports;
mod interrupted;
mod journal;
mod libcni;
mod node;
mod others;
mod plan;
mod policy;
mod repair;
mod restart;
mod sockets;
