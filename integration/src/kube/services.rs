//! What the machines run, and how it is configured.

use super::Proxy;
use super::cache::{Cache, PAUSE};
use super::machine::{Machine, Service};
use super::pki::Pki;
use super::shape::{self, CONTROL_PLANE, Host, NODE_ASN, ROUTERS, Router};
use crate::lab::frr::DAEMONS;
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Where the API server writes who asked for what, in its machine's directory.
pub(super) const AUDIT_LOG: &str = "audit.log";

/// Every request once, with nothing of its body: who, what, and whether it was permitted.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\n\
     rules:\n\
     - {level: None, users: ['system:apiserver', 'system:kube-scheduler', 'system:kube-controller-manager', 'system:kube-proxy']}\n\
     - {level: None, userGroups: ['system:nodes']}\n\
     - {level: None, userGroups: ['system:serviceaccounts:kube-system']}\n\
     - {level: Metadata}\n";

/// Address of the API server.
pub(super) fn api_server() -> String {
    format!("https://{}:6443", CONTROL_PLANE.ipv4)
}

pub(super) fn certificates(pki: &Pki) -> Result<()> {
    pki.authority("ca")?;
    pki.authority("front-ca")?;
    pki.token_key("sa")?;
    let names = format!(
        "IP:{},IP:{},IP:127.0.0.1,IP:{},DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc",
        CONTROL_PLANE.ipv4,
        CONTROL_PLANE.ipv6,
        shape::API_SERVICE
    );
    pki.certificate("apiserver", "ca", "/CN=kube-apiserver", &names)?;
    pki.certificate(
        "apiserver-kubelet",
        "ca",
        "/O=system:masters/CN=apiserver",
        "",
    )?;
    pki.certificate("front-proxy", "front-ca", "/CN=front-proxy", "")?;
    let api = api_server();
    pki.kubeconfig("admin", "/O=system:masters/CN=admin", &api)?;
    for name in ["controller-manager", "scheduler", "proxy"] {
        pki.kubeconfig(name, &format!("/CN=system:kube-{name}"), &api)?;
    }
    for node in shape::NODES {
        let subject = format!("/O=system:nodes/CN=system:node:{}", node.name);
        pki.kubeconfig(node.name, &subject, &api)?;
        let names = format!("IP:{},IP:{},DNS:{}", node.ipv4, node.ipv6, node.name);
        pki.certificate(
            &format!("kubelet-{}", node.name),
            "ca",
            &format!("/CN={}", node.name),
            &names,
        )?;
    }
    Ok(())
}

pub(super) fn control_plane(dir: &Path, cache: &Cache, pki: &Pki) -> Result<Machine> {
    let text = |path: PathBuf| path.display().to_string();
    let data = text(dir.join("etcd"));
    let etcd = Service::new(
        "etcd",
        &[
            &text(cache.binary("etcd")?),
            "--data-dir",
            &data,
            // The cluster does not outlive its machine: nothing waits for a disk.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ],
    );
    let flag = |name: &str, file: &str| format!("--{name}={}", pki.path(file));
    let mut apiserver: Vec<String> = vec![
        text(cache.binary("kube-apiserver")?),
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--advertise-address={}", CONTROL_PLANE.ipv4),
        format!("--service-cluster-ip-range={}", shape::SERVICE_CIDRS),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--requestheader-allowed-names=front-proxy".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        // A stopped API server is one that was shut down in good order, but soon.
        "--shutdown-delay-duration=0s".to_owned(),
        "--audit-policy-file=/etc/lab/audit.yaml".to_owned(),
        format!("--audit-log-path={}", text(dir.join(AUDIT_LOG))),
    ];
    apiserver.extend(
        [
            ("client-ca-file", "ca.crt"),
            ("tls-cert-file", "apiserver.crt"),
            ("tls-private-key-file", "apiserver.key"),
            ("kubelet-client-certificate", "apiserver-kubelet.crt"),
            ("kubelet-client-key", "apiserver-kubelet.key"),
            ("kubelet-certificate-authority", "ca.crt"),
            ("service-account-key-file", "sa.pub"),
            ("service-account-signing-key-file", "sa.key"),
            ("requestheader-client-ca-file", "front-ca.crt"),
            ("proxy-client-cert-file", "front-proxy.crt"),
            ("proxy-client-key-file", "front-proxy.key"),
        ]
        .map(|(name, file)| flag(name, file)),
    );
    let client = |name: &str| {
        [
            "kubeconfig",
            "authentication-kubeconfig",
            "authorization-kubeconfig",
        ]
        .map(|option| flag(option, &format!("{name}.kubeconfig")))
    };
    let mut controllers = vec![
        text(cache.binary("kube-controller-manager")?),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        "--allocate-node-cidrs=true".to_owned(),
        format!("--cluster-cidr={}", shape::POD_CIDRS),
        format!("--service-cluster-ip-range={}", shape::SERVICE_CIDRS),
        flag("root-ca-file", "ca.crt"),
        flag("service-account-private-key-file", "sa.key"),
    ];
    controllers.extend(client("controller-manager"));
    let mut scheduler = vec![
        text(cache.binary("kube-scheduler")?),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
    ];
    scheduler.extend(client("scheduler"));
    let service = |name: &str, command: Vec<String>| Service {
        name: name.to_owned(),
        command,
        after: None,
    };
    Ok(Machine {
        name: CONTROL_PLANE.name.to_owned(),
        dir: dir.to_owned(),
        plain: Vec::new(),
        files: BTreeMap::from([("/etc/lab/audit.yaml".into(), AUDIT_POLICY.to_owned())]),
        services: vec![
            etcd,
            service("apiserver", apiserver),
            service("controller-manager", controllers),
            service("scheduler", scheduler),
        ],
    })
}

pub(super) fn node(
    host: &Host,
    dir: &Path,
    cache: &Cache,
    pki: &Pki,
    proxy: Proxy,
) -> Result<Machine> {
    let path = |name: &str| cache.binary(name).map(|path| path.display().to_string());
    let mut files = BTreeMap::from([
        ("/etc/lab/containerd.toml".into(), containerd()),
        ("/etc/lab/kubelet.yaml".into(), kubelet(host, pki)),
    ]);
    let mut services = vec![
        Service::new(
            "containerd",
            &[&path("containerd")?, "-c", "/etc/lab/containerd.toml"],
        ),
        Service::new(
            "kubelet",
            &[
                &path("kubelet")?,
                "--config=/etc/lab/kubelet.yaml",
                &format!(
                    "--kubeconfig={}",
                    pki.path(&format!("{}.kubeconfig", host.name))
                ),
                &format!("--hostname-override={}", host.name),
                &format!("--node-ip={},{}", host.ipv4, host.ipv6),
                &format!("--node-labels=rack={}", host.router),
                "--runtime-cgroups=/machine",
            ],
        )
        .after("/run/containerd/containerd.sock"),
    ];
    if let Some(mode) = proxy.mode() {
        let config = format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: {mode}\n\
             clientConnection: {{kubeconfig: {}}}\nclusterCIDR: '{}'\nhostnameOverride: {}\n\
             conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}\n",
            pki.path("proxy.kubeconfig"),
            shape::POD_CIDRS,
            host.name
        );
        files.insert("/etc/lab/proxy.yaml".into(), config);
        services.push(Service::new(
            "proxy",
            &[&path("kube-proxy")?, "--config=/etc/lab/proxy.yaml"],
        ));
    }
    Ok(Machine {
        name: host.name.to_owned(),
        dir: dir.to_owned(),
        plain: vec!["containerd".to_owned(), "kubelet".to_owned()],
        files,
        services,
    })
}

/// `restrict_oom_score_adj`: lowering the score needs a capability that root in a container lacks.
fn containerd() -> String {
    format!(
        "version = 2\nroot = \"/var/lib/containerd\"\nstate = \"/run/containerd\"\n\
         [grpc]\naddress = \"/run/containerd/containerd.sock\"\n[metrics]\naddress = \"127.0.0.1:1338\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{PAUSE}\"\nrestrict_oom_score_adj = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/opt/cni/bin\"\nconf_dir = \"/etc/cni/net.d\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = false\n"
    )
}

/// Nothing is evicted or collected: the disk and memory are those of a machine with other work.
fn kubelet(host: &Host, pki: &Pki) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
         authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {ca}}}}}\n\
         authorization: {{mode: Webhook}}\ntlsCertFile: {crt}\ntlsPrivateKeyFile: {key}\n\
         containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n\
         cgroupDriver: cgroupfs\ncgroupRoot: /\nkubeletCgroups: /machine\nfailCgroupV1: false\n\
         enforceNodeAllocatable: [pods]\nfailSwapOn: false\nprotectKernelDefaults: false\n\
         evictionHard: {{memory.available: '0%', nodefs.available: '0%', nodefs.inodesFree: '0%', imagefs.available: '0%', imagefs.inodesFree: '0%'}}\n\
         imageGCHighThresholdPercent: 100\nimageGCLowThresholdPercent: 99\nserializeImagePulls: false\n\
         resolvConf: /etc/resolv.conf\nclusterDomain: cluster.local\nmaxPods: 250\nsyncFrequency: 30s\n\
         registryPullQPS: 0\neventRecordQPS: 0\nkubeAPIQPS: 100\nkubeAPIBurst: 200\n\
         volumePluginDir: /var/lib/kubelet/volumeplugins\n",
        ca = pki.path("ca.crt"),
        crt = pki.path(&format!("kubelet-{}.crt", host.name)),
        key = pki.path(&format!("kubelet-{}.key", host.name)),
    )
}

pub(super) fn router(router: &Router, dir: &Path) -> Machine {
    let daemon = |name: &str| {
        Service::new(
            name,
            &[
                &format!("{DAEMONS}/{name}"),
                "-A",
                "127.0.0.1",
                "-P",
                "0",
                "--log",
                "stdout",
                "-f",
                "/etc/lab/frr.conf",
                "--vty_socket",
                "/run/frr",
                "-z",
                "/run/frr/zserv.api",
                "-i",
                &format!("/run/frr/{name}.pid"),
            ],
        )
    };
    Machine {
        name: router.name.to_owned(),
        dir: dir.to_owned(),
        plain: Vec::new(),
        files: BTreeMap::from([("/etc/lab/frr.conf".into(), frr(router))]),
        services: vec![daemon("zebra"), daemon("bgpd").after("/run/frr/zserv.api")],
    }
}

/// The other router by its address, the rack by its network. Both racks are one AS, so its own
/// number is hidden from it.
fn frr(router: &Router) -> String {
    let mut text = format!(
        "hostname {}\nlog timestamp precision 3\nrouter bgp {}\n bgp router-id {}\n \
         no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n bgp bestpath as-path multipath-relax\n \
         neighbor rack peer-group\n neighbor rack remote-as {NODE_ASN}\n neighbor rack advertisement-interval 0\n \
         bgp listen range {} peer-group rack\n",
        router.name, router.asn, router.ipv4, router.rack
    );
    let others = || {
        ROUTERS
            .into_iter()
            .filter(|other| other.name != router.name)
    };
    for other in others() {
        let _ = write!(
            text,
            " neighbor {0} remote-as {1}\n neighbor {0} timers connect 1\n neighbor {0} advertisement-interval 0\n",
            other.ipv4, other.asn
        );
    }
    for family in ["ipv4", "ipv6"] {
        let _ = write!(
            text,
            " address-family {family} unicast\n  redistribute connected\n  neighbor rack activate\n  neighbor rack as-override\n"
        );
        for other in others() {
            let _ = writeln!(text, "  neighbor {} activate", other.ipv4);
        }
        text.push_str(" exit-address-family\n");
    }
    text.push_str("exit\n");
    text
}
