//! Whatever comes in on the agent's sockets costs its own connection and nothing else.

use crate::node::{LIMIT, Node, cni_error, nothing, spec};
use anyhow::{Context, Result};
use integration::lab::{Pod, wait};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Uid;
use serde_json::json;
use std::fs::{File, Permissions};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a test's frame is short");
    [&length.to_be_bytes(), body].concat()
}

/// Bytes that repeat from run to run.
pub(crate) fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..4096).map(|_| next()).collect()
}

/// Says `bytes`, closes its side, and returns what was answered.
fn say(socket: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).context("connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    // The agent may hang up in the middle of it.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error.into()),
        _ => Ok(answer),
    }
}

#[test]
fn garbage_on_the_cni_socket_never_disturbs_the_next_add() -> Result<()> {
    let node = Node::started()?;
    let socket = node.agent.run_dir().join("cni.sock");
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("noise", noise(1), ""),
        ("other noise", noise(2), ""),
        (
            "a huge length",
            vec![0x7f, 0xff, 0xff, 0xff, b'{'],
            "\"code\":6",
        ),
        ("half a length", vec![0, 0], ""),
        ("half a frame", frame(b"{\"version\":1}")[..9].to_vec(), ""),
        ("an empty frame", frame(b""), "\"code\":6"),
        ("no request", frame(b"[1,2,3]"), "\"code\":6"),
        (
            "a wrong type",
            frame(br#"{"version":1,"command":"ADD","ips":7}"#),
            "\"code\":6",
        ),
        (
            "a later version",
            frame(br#"{"version":99,"command":"ADD"}"#),
            "protocol version 99",
        ),
        (
            "no descriptors",
            frame(br#"{"version":1,"command":"ADD","container_id":"c","ifname":"eth0"}"#),
            "0 descriptors came with ADD instead of 2",
        ),
        ("nothing at all", Vec::new(), ""),
    ];
    for (number, (what, bytes, answer)) in cases.into_iter().enumerate() {
        let said = say(&socket, &bytes).context(what)?;
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(answer), "{what}: {said}");
        node.pod(&format!("p{number}"), "web").context(what)?;
    }
    let log = node.agent.log();
    for words in ["protocol version 99", "frame of 2147483647 bytes; at most"] {
        assert!(log.contains(words), "{words} is not in the log");
    }
    Ok(())
}

/// Says `bytes` with two descriptors on them.
fn say_with(socket: &Path, bytes: &[u8], descriptors: [BorrowedFd<'_>; 2]) -> Result<String> {
    let mut stream = UnixStream::connect(socket).context("connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let slices = [IoSlice::new(bytes)];
    sendmsg(&stream, &slices, &mut control, SendFlags::empty())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn descriptors_of_the_wrong_kind_are_an_error_and_leave_nothing() -> Result<()> {
    let node = Node::started()?;
    let socket = node.agent.run_dir().join("cni.sock");
    let netns = node.lab.netns("pod")?;
    let (null, namespace) = (File::open("/dev/null")?, File::open(netns.path())?);
    let (near, _far) = UnixStream::pair()?;
    let before = (node.rules(), node.routes()?);
    let request = br#"{"version":1,"command":"ADD","container_id":"c","ifname":"eth0","pod":"c"}"#;
    let cases = [
        ("no namespace", [null.as_fd(), null.as_fd()]),
        ("no socket", [namespace.as_fd(), null.as_fd()]),
        (
            "a socket that never answers",
            [namespace.as_fd(), near.as_fd()],
        ),
        ("the wrong way round", [near.as_fd(), namespace.as_fd()]),
    ];
    for (what, descriptors) in cases {
        let answer = say_with(&socket, &frame(request), descriptors).context(what)?;
        assert!(answer.contains("\"code\":"), "{what}: {answer}");
        wait::until(LIMIT, what, || {
            let now = (node.rules(), node.routes(), node.links());
            match now {
                (rules, Ok(routes), Ok(links))
                    if (&rules, &routes) == (&before.0, &before.1) && links.is_empty() =>
                {
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        })?;
    }
    let left = netns.run(&["ip", "-br", "link", "show"])?;
    assert!(!left.contains("eth0"), "{left}");
    node.pod("a", "web").map(drop)
}

#[test]
fn callers_that_say_nothing_keep_nobody_else_from_an_add() -> Result<()> {
    let node = Node::started()?;
    let mut silent = Vec::new();
    for _ in 0..100 {
        for name in ["cni.sock", "ctl.sock"] {
            silent.push(UnixStream::connect(node.agent.run_dir().join(name))?);
        }
    }
    node.pod("a", "web")?;
    node.ctl(&["status"])?;
    // They are not kept for ever.
    for mut stream in silent {
        stream.set_read_timeout(Some(LIMIT))?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said)?;
        assert!(said.is_empty(), "{said:?}");
    }
    node.pod("b", "web").map(drop)
}

#[test]
fn garbage_on_the_control_socket_is_answered_or_dropped_and_disturbs_nobody() -> Result<()> {
    let node = Node::started()?;
    let socket = node.agent.run_dir().join("ctl.sock");
    for (bytes, words) in [
        (noise(3), ""),
        (vec![b'x'; 1 << 20], ""),
        (b"\"no-such-question\"\n".to_vec(), "not a question"),
        (b"{}\n".to_vec(), "not a question"),
        (b"\n".to_vec(), "not a question"),
        (Vec::new(), "not a question"),
    ] {
        let said = String::from_utf8_lossy(&say(&socket, &bytes)?).into_owned();
        assert!(said.contains(words), "{said}");
        assert_eq!(node.ctl(&["status"])?["node"], "n1");
    }
    node.pod("a", "web").map(drop)
}

#[test]
fn a_caller_that_is_not_root_reaches_neither_socket() -> Result<()> {
    let node = Node::started()?;
    let nobody = Uid::from_raw(65534);
    for name in ["cni.sock", "ctl.sock"] {
        let socket = node.agent.run_dir().join(name);
        let as_nobody = |bytes: &[u8]| {
            let call = || -> Result<Vec<u8>> {
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody)?;
                say(&socket, bytes)
            };
            std::thread::scope(|scope| scope.spawn(call).join())
        };
        let refused = as_nobody(b"\"status\"\n").expect("the caller's thread");
        assert!(format!("{:#}", refused.unwrap_err()).contains("Permission denied"));
        // Even where somebody has opened the file's rights, the peer's uid decides.
        std::fs::set_permissions(&socket, Permissions::from_mode(0o666))?;
        for bytes in [
            &b"\"status\"\n"[..],
            &frame(br#"{"version":1,"command":"STATUS"}"#),
        ] {
            let answer = as_nobody(bytes).expect("the caller's thread")?;
            assert_eq!(String::from_utf8_lossy(&answer), "", "{name}");
        }
    }
    node.wait_logged("uid 65534 is not root")?;
    node.pod("a", "web").map(drop)
}

#[test]
fn a_cni_configuration_with_a_wrong_type_is_error_7_that_names_the_field() -> Result<()> {
    let node = Node::started()?;
    let cases = [
        (json!({ "mtu": "big" }), "mtu"),
        (
            json!({ "args": { "cni": { "labels": { "app": 5 } } } }),
            "args.cni.labels.app",
        ),
        (
            json!({ "runtimeConfig": { "ips": "10.244.0.1" } }),
            "runtimeConfig.ips",
        ),
        (json!({ "socket": ["a"] }), "socket"),
    ];
    for (extra, field) in cases {
        let result = Pod::add_with(&node.lab, &node.plugin, spec("a", "web"), &extra);
        let (code, message) = cni_error(result)?;
        assert_eq!(code, 7, "{message}");
        assert!(message.contains(field), "{field}: {message}");
    }
    node.pod("a", "web").map(drop)
}

#[test]
fn an_unknown_command_of_a_runtime_is_an_error_and_nothing_else() -> Result<()> {
    let node = Node::started()?;
    let pod = node.pod("a", "web")?;
    let result = node
        .plugin
        .call("MOVE", pod.spec(), pod.netns(), &nothing());
    let (code, message) = cni_error(result)?;
    assert_eq!(code, 4, "{message}");
    assert!(message.contains("CNI_COMMAND"), "{message}");
    pod.check()
}
