//! What of a hung guest's last words tells why.

/// Lines that a reader of the whole needs, without what every idle guest says too: registers of the
/// processors beyond where they stand, kernel threads that wait for work, guesses of the unwinder.
pub(super) fn digest(registers: &str, console: &str) -> String {
    let stands = |line: &&str| line.starts_with("CPU#") || line.starts_with("RIP=");
    let mut lines: Vec<&str> = registers.lines().filter(stands).collect();
    let mut idle = false;
    for line in console.lines() {
        let text = line
            .split_once("] ")
            .map_or(line, |(_, text)| text.trim_start());
        // All that follows is the scheduler's own account.
        if text.starts_with("Sched Debug Version") {
            break;
        }
        if text.starts_with("task:") {
            let waits = ["state:S", "state:I"]
                .iter()
                .any(|state| text.contains(state));
            idle = waits && text.contains("ppid:2 ");
        }
        if !idle && !is_noise(text) {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// Registers, code bytes, marks around a stack, and what the unwinder is not sure of.
fn is_noise(text: &str) -> bool {
    let register = text.split_once(": ").is_some_and(|(name, _)| {
        name.len() == 3 && name.starts_with(['R', 'C']) && !["RIP", "CPU"].contains(&name)
    });
    let mark = text.starts_with('<') && text.ends_with('>');
    let user = text.starts_with("RIP: 0033");
    register || mark || user || text.starts_with("Code:") || text.starts_with("? ")
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn tasks_that_work_and_where_processors_stand_are_kept() {
        let registers = "CPU#0\nRAX=01 RBX=02\nRIP=ffffffff99c592eb HLT=1\nCPU#1\nRIP=0033 HLT=0\n";
        let console = "\
[   13.7] Kernel panic - not syncing: NMI: Not continuing
[   13.7] CPU: 0 PID: 0 Comm: swapper/0
[   13.7] Call Trace:
[   13.7]  <NMI>
[   13.7]  panic+0x118/0x2f4
[   13.7] RIP: 0010:native_safe_halt+0xb/0x10
[   13.7] Code: 7f c3
[   13.7] RSP: 0018:ffffffffb6a03e98 EFLAGS: 00000212
[   13.7] R13: 0000000000000000 R14: 0000000000000000
[   13.7] CR2: 0000000000000000
[   13.7]  ? _printk+0x68/0x83
[   13.8] task:kthreadd        state:S stack:0     pid:2     ppid:0
[   13.8]  kthreadd+0x2bc/0x2d0
[   13.8] task:rcu_gp          state:I stack:0     pid:3     ppid:2      flags:0x00004000
[   13.8]  rescuer_thread+0x2ae/0x3a0
[   13.9] task:lab             state:D stack:0     pid:114   ppid:1
[   13.9]  p9_client_rpc+0x1/0x2
[   13.9] RIP: 0033:0x7f72ffb16503
[   14.0] Sched Debug Version: v0.11
[   14.0] cpu#0, 2445.427 MHz
";
        let expected = "\
CPU#0
RIP=ffffffff99c592eb HLT=1
CPU#1
RIP=0033 HLT=0
[   13.7] Kernel panic - not syncing: NMI: Not continuing
[   13.7] CPU: 0 PID: 0 Comm: swapper/0
[   13.7] Call Trace:
[   13.7]  panic+0x118/0x2f4
[   13.7] RIP: 0010:native_safe_halt+0xb/0x10
[   13.8] task:kthreadd        state:S stack:0     pid:2     ppid:0
[   13.8]  kthreadd+0x2bc/0x2d0
[   13.9] task:lab             state:D stack:0     pid:114   ppid:1
[   13.9]  p9_client_rpc+0x1/0x2";
        assert_eq!(digest(registers, console), expected);
    }
}
