//! What the whole machine does, the other programs on it and the machines beside it included.

use std::{fmt, fs};

/// Time on all processors since the machine's start, in ticks.
pub(crate) struct Machine {
    busy: u64,
    /// What a virtual machine was not given although it had work.
    stolen: u64,
    all: u64,
}

impl Machine {
    pub(crate) fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        // proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted
        // among them.
        let all = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
        let ticks: Vec<u64> = all.map_while(|ticks| ticks.parse().ok()).take(8).collect();
        let sum = |of: &[usize]| of.iter().filter_map(|at| ticks.get(*at)).sum();
        Self { busy: sum(&[0, 1, 2, 5, 6]), stolen: sum(&[7]), all: ticks.iter().sum() }
    }

    pub(crate) const fn since(&self, before: &Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(before.busy),
            stolen: self.stolen.saturating_sub(before.stolen),
            all: self.all.saturating_sub(before.all),
        }
    }

    /// Whether there was hardly anything left to give.
    pub(crate) const fn is_busy(&self) -> bool {
        (self.busy + self.stolen) * 100 >= self.all * 85
    }

    fn percent(&self, of: u64) -> f64 {
        of as f64 * 100.0 / self.all.max(1) as f64
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (busy, stolen) = (self.percent(self.busy), self.percent(self.stolen));
        write!(f, "all programs {busy:.0} % of the machine, its neighbours {stolen:.0} %")
    }
}
