//! Who opened a netlink socket, as far as it can be told.

use std::fs::{read_dir, read_link, read_to_string};

/// `NETLINK_ROUTE`.
const ROUTE: &str = "0";

/// The name of the process that opened the rtnetlink socket with this port number in the calling
/// thread's network namespace.
///
/// The kernel gives the first socket of a process the number of that process (`netlink_autobind`),
/// as its own PID namespace counts. `None` where it is another number, where the process has ended
/// or where it is in a PID namespace that can't be seen from here: a name is only told if the
/// process holds this very socket.
pub fn port_owner(port: u32) -> Option<String> {
    let sockets = read_to_string("/proc/thread-self/net/netlink").ok()?;
    let socket = format!("socket:[{}]", inode(&sockets, port)?);
    let mut descriptors = read_dir(format!("/proc/{port}/fd")).ok()?.flatten();
    descriptors.find(|descriptor| {
        read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == socket.as_str())
    })?;
    let name = read_to_string(format!("/proc/{port}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// The inode of a socket in `/proc/net/netlink`, whose columns are `sk Eth Pid Groups Rmem Wmem
/// Dump Locks Drops Inode`.
fn inode(sockets: &str, port: u32) -> Option<&str> {
    let port = port.to_string();
    sockets.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        match columns.as_slice() {
            [_, ROUTE, number, .., inode] if *number == port => Some(*inode),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::inode;

    #[test]
    fn a_port_is_one_of_a_route_socket() {
        let sockets = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
                       00000000b1c2a1d0 12  4711       00000000 0        0        0     2        0        100\n\
                       00000000b1c2a1d1 0   4711       00000111 0        0        0     2        0        200\n";
        assert_eq!(inode(sockets, 4711), Some("200"));
        assert_eq!(inode(sockets, 471), None);
        assert_eq!(inode("", 4711), None);
    }
}
