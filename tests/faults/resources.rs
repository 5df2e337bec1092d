//! Measures the resources that a server process holds.

use crate::support::program::Serving;

/// Resident memory in kB, open files (sockets included), sockets, and threads.
#[derive(Clone, Copy, Debug)]
pub struct ProcessResources {
    pub kilobytes: f64,
    pub files: usize,
    pub sockets: usize,
    pub threads: usize,
}

impl ProcessResources {
    pub fn of(serving: &Serving) -> Self {
        let process = format!("/proc/{}", serving.child.id());
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let entries = |directory: &str| std::fs::read_dir(format!("{process}/{directory}")).unwrap();
        let is_socket = |file: &std::fs::DirEntry| {
            std::fs::read_link(file.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
        };
        Self {
            kilobytes: resident.trim().trim_end_matches(" kB").parse().unwrap(),
            files: entries("fd").count(),
            sockets: entries("fd").flatten().filter(is_socket).count(),
            threads: entries("task").count(),
        }
    }
}
