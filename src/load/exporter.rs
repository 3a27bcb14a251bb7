//! What a Prometheus node exporter says of a machine: processor, memory, disk.

use serde::Serialize;

/// Counters and gauges of a machine at one time, of the exporter's page.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Exported {
    cpu_idle_seconds: f64,
    cpu_seconds: f64,
    memory_total: f64,
    memory_available: f64,
    disk_busy_seconds: f64,
}

/// How loaded a machine is; shares are from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Machine {
    /// Of all processors.
    pub cpu_share: f64,
    /// Of the memory, what is not available.
    pub memory_share: f64,
    /// Of the time, with a request under way, of the busiest disks together.
    pub disk_busy_share: f64,
}

impl Exported {
    /// Reads the exporter's page; lines that say something else are left out.
    pub fn read(page: &str) -> Self {
        let mut exported = Self::default();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            match name {
                "node_cpu_seconds_total" => {
                    exported.cpu_seconds += value;
                    if labels.contains("mode=\"idle\"") || labels.contains("mode=\"iowait\"") {
                        exported.cpu_idle_seconds += value;
                    }
                }
                "node_memory_MemTotal_bytes" => exported.memory_total = value,
                "node_memory_MemAvailable_bytes" => exported.memory_available = value,
                "node_disk_io_time_seconds_total" => {
                    exported.disk_busy_seconds = exported.disk_busy_seconds.max(value);
                }
                _ => {}
            }
        }
        exported
    }

    /// How loaded the machine was since `before`, so many seconds ago.
    pub fn since(&self, before: &Self, seconds: f64) -> Machine {
        let share = |part: f64, whole: f64| {
            if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 }
        };
        let cpu = self.cpu_seconds - before.cpu_seconds;
        let idle = self.cpu_idle_seconds - before.cpu_idle_seconds;
        Machine {
            cpu_share: share(cpu - idle, cpu),
            memory_share: share(self.memory_total - self.memory_available, self.memory_total),
            disk_busy_share: share(self.disk_busy_seconds - before.disk_busy_seconds, seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Exported;

    const PAGE: &str = "\
# HELP node_cpu_seconds_total Seconds the CPUs spent in each mode.
# TYPE node_cpu_seconds_total counter
node_cpu_seconds_total{cpu=\"0\",mode=\"idle\"} 1000
node_cpu_seconds_total{cpu=\"0\",mode=\"user\"} 200
node_cpu_seconds_total{cpu=\"1\",mode=\"iowait\"} 100
node_disk_io_time_seconds_total{device=\"sda\"} 50
node_disk_io_time_seconds_total{device=\"sdb\"} 20
node_memory_MemAvailable_bytes 2.5e+09
node_memory_MemTotal_bytes 1e+10
node_load1 0.7
nonsense
";

    #[test]
    fn the_load_of_a_machine_is_what_changed_between_two_pages() {
        let before = Exported::read(PAGE);
        let page =
            PAGE.replace("} 1000", "} 1006").replace("} 200", "} 204").replace("} 50", "} 53");
        let machine = Exported::read(&page).since(&before, 10.0);
        assert!((machine.cpu_share - 0.4).abs() < 1e-9, "{machine:?}");
        assert!((machine.memory_share - 0.75).abs() < 1e-9, "{machine:?}");
        assert!((machine.disk_busy_share - 0.3).abs() < 1e-9, "{machine:?}");
        let nothing = Exported::read("").since(&Exported::default(), 10.0);
        assert!(nothing.cpu_share == 0.0 && nothing.memory_share == 0.0);
    }
}
