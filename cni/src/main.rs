//! `ocicat-cni`, installed as `/opt/cni/bin/ocicat`.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let variable = |name: &str| Some(std::env::var_os(name)?.to_string_lossy().into_owned());
    let output = ocicat_cni::run(&variable, &mut std::io::stdin().lock());
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(output.stdout.as_bytes())
        .and_then(|()| stdout.flush());
    if written.is_err() {
        return ExitCode::FAILURE;
    }
    if output.success {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
