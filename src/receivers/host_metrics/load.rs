//! Load averages, from `/proc/loadavg`. The conventions have no newer name for them.

use procfs_core::LoadAverage;

use super::{
    metric::{Kind, Metric, metric},
    round::{Part, Scraper},
    sheet::Chosen,
};

const ONE: Metric = metric("system.cpu.load_average.1m", "{thread}", Kind::Gauge, &[]);
const FIVE: Metric = metric("system.cpu.load_average.5m", "{thread}", Kind::Gauge, &[]);
const FIFTEEN: Metric = metric("system.cpu.load_average.15m", "{thread}", Kind::Gauge, &[]);

pub(super) const METRICS: &[Metric] = &[ONE, FIVE, FIFTEEN];

pub(super) struct Load {
    pub(super) chosen: Chosen,
    /// Divided by the number of CPUs.
    pub(super) by_cpu: bool,
}

impl Scraper for Load {
    fn name(&self) -> &'static str {
        "load"
    }

    fn scrape(&mut self, part: &mut Part<'_>) {
        let Some(load) = part.read(3, part.host.parsed::<LoadAverage>("proc/loadavg")) else { return };
        let mut cpus = 1.0;
        if self.by_cpu {
            let Some(stats) = part.read(3, part.host.kernel_stats()) else { return };
            cpus = stats.cpu_time.len().max(1) as f64;
        }
        part.write(&self.chosen, |metrics| {
            for (metric, average) in [(ONE, load.one), (FIVE, load.five), (FIFTEEN, load.fifteen)] {
                // The kernel writes two digits; as a double they are more than that.
                let average = (f64::from(average) * 100.0).round() / 100.0;
                metrics.write(&metric, |points| points.double(average / cpus, &[]));
            }
        });
    }
}
