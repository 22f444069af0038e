//! How long the host has been up, from `/proc/uptime`.

use procfs_core::Uptime;

use super::{
    metric::{Kind, Metric, metric},
    round::{Part, Scraper},
    sheet::Chosen,
};

const UPTIME: Metric = metric("system.uptime", "s", Kind::Gauge, &[]);

pub(super) const METRICS: &[Metric] = &[UPTIME];

pub(super) struct System {
    pub(super) chosen: Chosen,
}

impl Scraper for System {
    fn name(&self) -> &'static str {
        "system"
    }

    fn scrape(&mut self, part: &mut Part<'_>) {
        let Some(uptime) = part.read(1, part.host.parsed::<Uptime>("proc/uptime")) else { return };
        part.write(&self.chosen, |metrics| metrics.write(&UPTIME, |points| points.double(uptime.uptime, &[])));
    }
}
