//! One execution of the plugin.

use crate::agent::Agent;
use crate::chain::Chain;
use crate::config::Config;
use crate::environment::{Asked, Attachment, Variables, asked};
use crate::namespace::PodNamespace;
use crate::times::Start;
use crate::{Error, SpecVersion, result, spool, sysctl};
use model::cni::{Added, Command, PROTOCOL_VERSION, Reply, Request};
use serde_json::Value;
use std::io::Read;

/// More than this on standard input is refused.
const MAX_STDIN: u64 = 1 << 20;

/// What the runtime gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// A result, an error, or nothing.
    pub stdout: String,
    /// Exit code 0.
    pub success: bool,
}

/// Does what `CNI_COMMAND` asks for. On ADD and CHECK the calling thread ends up in the pod's
/// network namespace, so that the process should have one thread and end soon.
pub fn run(variables: &dyn Fn(&str) -> Option<String>, stdin: &mut dyn Read) -> Output {
    let start = Start::now();
    let mut version = SpecVersion::LATEST.as_str().to_owned();
    match execute(variables, stdin, &mut version, &start) {
        Ok(None) => Output {
            stdout: String::new(),
            success: true,
        },
        Ok(Some(result)) => Output {
            stdout: format!("{result}\n"),
            success: true,
        },
        Err(error) => Output {
            stdout: format!("{}\n", error.to_json(&version)),
            success: false,
        },
    }
}

/// `version` becomes that of the configuration as soon as it is known, for results and errors.
fn execute(
    variables: Variables<'_>,
    stdin: &mut dyn Read,
    version: &mut String,
    start: &Start,
) -> Result<Option<Value>, Error> {
    let asked = asked(variables)?;
    let input = read(stdin)?;
    if asked == Asked::Version && input.trim_ascii().is_empty() {
        return Ok(Some(result::versions(version)));
    }
    let config: Value = serde_json::from_slice(&input).map_err(|error| Error::Decode {
        reason: format!("not JSON: {error}"),
    })?;
    if !config.is_object() {
        return Err(Error::Decode {
            reason: "the configuration is not a JSON object".to_owned(),
        });
    }
    if let Some(text) = config.get("cniVersion").and_then(Value::as_str) {
        text.clone_into(version);
    }
    match asked {
        Asked::Version => Ok(Some(result::versions(version))),
        Asked::Of(command) => serve(command, variables, &config, start),
    }
}

fn serve(
    command: Command,
    variables: Variables<'_>,
    config: &Value,
    start: &Start,
) -> Result<Option<Value>, Error> {
    let attachment = Attachment::read(command, variables)?;
    let config = Config::read(command, config)?;
    let mut request = request(command, &attachment, &config);
    match command {
        Command::Add => add(&mut request, config, start).map(Some),
        Command::Check => check(&request, &config).map(|()| None),
        Command::Del => delete(&request, &config).map(|()| None),
        Command::Gc => done(call(&request, &config)?).map(|()| None),
        Command::Status => match call(&request, &config) {
            Ok(reply) => done(reply).map(|()| None),
            Err(error) => Err(Error::NotAvailable(Box::new(error))),
        },
    }
}

fn add(request: &mut Request, config: Config, start: &Start) -> Result<Value, Error> {
    let chain = Chain::read(config.previous.as_ref(), &request.ifname)?;
    let agent = Agent::connect(&config.socket, config.timeout)?;
    let pod = PodNamespace::enter(&request.netns)?;
    sysctl::prepare();
    request.times = Some(start.times());
    let added = match agent.call(request, &pod.descriptors())? {
        Reply::Added(added) => added,
        Reply::Failed(failure) => return Err(Error::Agent(failure)),
        Reply::Done => {
            return Err(Error::Reply {
                reason: "ADD without a result".to_owned(),
            });
        }
    };
    sysctl::finish(&request.ifname, has_ipv6(&added));
    Ok(chain.with(result::added(
        config.version,
        &added,
        &request.ifname,
        &request.netns,
        config.dns,
    )))
}

fn check(request: &Request, config: &Config) -> Result<(), Error> {
    let agent = Agent::connect(&config.socket, config.timeout)?;
    let pod = PodNamespace::enter(&request.netns)?;
    done(agent.call(request, &pod.descriptors())?)
}

/// An agent that cannot be reached or understood finds the deletion at its next start; one that
/// answers that it failed is asked again by the runtime.
fn delete(request: &Request, config: &Config) -> Result<(), Error> {
    match call(request, config) {
        Ok(reply) => done(reply),
        Err(_) => match spool::write(&config.spool_dir, request) {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Spool {
                path: config.spool_dir.clone(),
                source,
            }),
        },
    }
}

fn call(request: &Request, config: &Config) -> Result<Reply, Error> {
    Agent::connect(&config.socket, config.timeout)?.call(request, &[])
}

fn done(reply: Reply) -> Result<(), Error> {
    match reply {
        Reply::Done => Ok(()),
        Reply::Failed(failure) => Err(Error::Agent(failure)),
        Reply::Added(_) => Err(Error::Reply {
            reason: "a result that was not asked for".to_owned(),
        }),
    }
}

fn has_ipv6(added: &Added) -> bool {
    added.ips.iter().any(|ip| ip.addr().is_ipv6())
}

fn request(command: Command, attachment: &Attachment, config: &Config) -> Request {
    let Attachment {
        container_id,
        ifname,
        netns,
        pod,
    } = attachment;
    let wishes = &config.wishes;
    // Other plugins of the list may have interfaces of their own.
    let of_this =
        |(_, name): &&(_, Option<String>)| name.as_ref().is_none_or(|name| name == ifname);
    let prev_ips = config.prev_ips.iter().filter(of_this);
    Request {
        version: PROTOCOL_VERSION,
        command,
        container_id: container_id.clone(),
        ifname: ifname.clone(),
        netns: netns.clone(),
        network: config.network.clone(),
        namespace: pod
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned()),
        pod: pod.name.clone().unwrap_or_else(|| container_id.clone()),
        pod_uid: pod.uid.clone(),
        labels: wishes.labels.clone(),
        ports: wishes.ports.clone(),
        host_ports: wishes.host_ports.clone(),
        ips: if wishes.ips.is_empty() {
            pod.ips.clone()
        } else {
            wishes.ips.clone()
        },
        pools: wishes.pools.clone(),
        assign_ipv4: wishes.assign_ipv4,
        assign_ipv6: wishes.assign_ipv6,
        mac: wishes.mac.or(pod.mac),
        mtu: wishes.mtu,
        queues: wishes.queues,
        valid_attachments: config.valid_attachments.clone(),
        prev_ips: prev_ips.map(|(ip, _)| *ip).collect(),
        times: None,
    }
}

fn read(stdin: &mut dyn Read) -> Result<Vec<u8>, Error> {
    let mut input = Vec::new();
    stdin
        .take(MAX_STDIN + 1)
        .read_to_end(&mut input)
        .map_err(Error::Stdin)?;
    if input.len() as u64 > MAX_STDIN {
        let reason = format!("longer than {MAX_STDIN} bytes");
        return Err(Error::Decode { reason });
    }
    Ok(input)
}
