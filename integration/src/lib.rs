//! Clusters of network namespaces with real peers, and what is played in them.
//!
//! | module | what it holds |
//! |---|---|
//! | [`lab`] | namespaces, links, routers, agents, pods, captures: what demo, tests and benches stand on |
//! | [`packet`] | first packets of connections, byte by byte |
//! | [`prober`] | what runs inside a pod: servers, connection attempts, a numbered UDP flow |
//! | [`demo`] | the scenes of `cargo lab demo`, and the sabotages that each of them must notice |
//! | [`bench`](mod@bench) | `cargo lab bench`: ratios to a floor or a peer measured in the same run |
//! | [`kube`] | `cargo lab kube`: a real Kubernetes, and what is promised on it |
//! | [`vm`] | `cargo lab vm`: a command inside a kernel that has what this one lacks |
//! | [`manifests`] | `cargo lab manifests`: what a cluster is given, written from one source |
//! | [`purity`] | the wall between the pure crates and the world |

pub mod bench;
pub mod demo;
pub mod kube;
pub mod lab;
pub mod manifests;
pub mod packet;
pub mod prober;
pub mod purity;
pub mod vm;
