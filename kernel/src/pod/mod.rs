//! A pod's link: both ends, in few datagrams.
//!
//! The host end answers for the pod's gateways by itself: it holds fe80::1 (scope link) and
//! 169.254.1.1 (scope host, so that it is never chosen as a source address). A pod that loses its
//! permanent neighbour entries resolves them again, whatever routes the node has.

mod carrier;
mod host_end;
mod pod_end;

pub use pod_end::PodError;

use crate::netlink::{Encoder, NetlinkError, Socket};

/// Sends a datagram whose messages are the steps of one thing; answers the first that failed.
fn send<S: Clone>(
    socket: &mut Socket,
    mut request: Encoder,
    steps: &[(u32, S)],
) -> Result<(), (S, NetlinkError)> {
    request.acknowledge(request.len() - 1);
    let last = &steps[steps.len() - 1].1;
    let acks = socket
        .transact(&request)
        .map_err(|error| (last.clone(), error))?;
    let Some((sequence, error)) = acks.refused.into_iter().next() else {
        let answered = !acks.accepted.is_empty();
        return if answered {
            Ok(())
        } else {
            Err((last.clone(), NetlinkError::NoAnswer))
        };
    };
    let step = steps
        .iter()
        .find(|(of, _)| *of == sequence)
        .map_or(last, |(_, step)| step);
    Err((step.clone(), error))
}
