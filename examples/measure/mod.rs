//! What commands use: CPU time, wall time and memory. Linux only.

use std::process::Command;
use std::time::{Duration, Instant};

/// What commands have used, all together.
pub struct Usage {
    /// CPU time in seconds, user and system.
    pub cpu: f64,
    /// Seconds from the start of the first to the end of the last.
    pub wall: f64,
    /// The peak resident memory of the largest, in megabytes.
    pub peak_mb: u64,
}

/// Runs commands side by side, until all of them have ended. One that fails is an error.
pub fn measure(commands: &mut [Command]) -> Result<Usage, Box<dyn std::error::Error>> {
    // There is no pipeline here, and no clock of its own.
    #[allow(clippy::disallowed_methods)]
    let (before, began) = (children_cpu()?, Instant::now());
    let mut running = commands.iter_mut().map(Command::spawn).collect::<Result<Vec<_>, _>>()?;
    let mut peak_kb = 0;
    while !running.is_empty() {
        for child in &running {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            let kb = status
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
            peak_kb = kb.unwrap_or(0).max(peak_kb);
        }
        let mut left = Vec::new();
        for mut child in running {
            match child.try_wait()? {
                None => left.push(child),
                Some(status) if status.success() || status.code() == Some(3) => {}
                Some(status) => return Err(format!("a command ended with {status}").into()),
            }
        }
        running = left;
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(Usage { cpu: children_cpu()? - before, wall: began.elapsed().as_secs_f64(), peak_mb: peak_kb / 1024 })
}

/// User and system time of ended children, in seconds (proc(5): fields 16 and 17 of stat, in hundredths).
fn children_cpu() -> Result<f64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok((fields[13].parse::<f64>()? + fields[14].parse::<f64>()?) / 100.0)
}
