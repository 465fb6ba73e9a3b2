//! Where a run was made, as the kernel tells it: a number without its machine says little. Names no host.

use std::fs;

use serde_json::{Value, json};

/// Kernel, processor and memory; null is what cannot be learned.
pub(super) fn describe() -> Value {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/status").unwrap_or_default();
    json!({
        "kernel": kernel.map(|release| format!("Linux {}", release.trim())),
        "architecture": std::env::consts::ARCH,
        "processor": field(&processors, "model name"),
        "processors": processors.lines().filter(|line| line.starts_with("processor")).count(),
        "processors_allowed": field(&own, "Cpus_allowed_list"),
        "memory_bytes": field(&memory, "MemTotal").and_then(kibibytes),
    })
}

/// The value of the first `name: value` line.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix(" kB")?.parse::<u64>().ok().map(|number| number << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_understood() {
        let text = "processor\t: 0\nmodel name\t: Some CPU: fast\nprocessor\t: 1\nmodel name\t: other\n";
        assert_eq!((field(text, "model name"), field(text, "flags")), (Some("Some CPU: fast"), None));
        assert_eq!((kibibytes("4096 kB"), kibibytes("4096")), (Some(4 << 20), None));
        let machine = describe();
        assert!(machine["kernel"].as_str().unwrap().starts_with("Linux "), "{machine}");
        assert!(machine["memory_bytes"].as_u64().unwrap() > 1 << 20, "{machine}");
    }
}
