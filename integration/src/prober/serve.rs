//! Servers that say their name.

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, TcpListener, UdpSocket};

/// Greets every TCP connection, v4 and v6, with `name` and a newline, and closes it.
pub(super) fn tcp(name: &str, port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    let greeting = format!("{name}\n");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The other side may be gone; the next one counts.
            let _ = stream.write_all(greeting.as_bytes());
        }
    });
    Ok(())
}

/// Answers every datagram with `name`.
pub(super) fn udp(name: &str, port: u16) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
    let name = name.to_owned();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        loop {
            if let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(name.as_bytes(), from);
            }
        }
    });
    Ok(())
}

/// Reads TCP connections to their end and answers with the count of octets; answers datagrams with
/// their length.
pub(super) fn sizes(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                let mut count = 0;
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    count += length;
                }
                let _ = stream.write_all(count.to_string().as_bytes());
            });
        }
    });
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(length.to_string().as_bytes(), from);
            }
        }
    });
    Ok(())
}
