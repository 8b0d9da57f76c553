//! Time from left to right.

use crate::campaign::Campaign;

/// Where plots begin: on its left there is room for labels.
pub(super) const LEFT: f64 = 112.0;
/// How wide plots are.
pub(super) const WIDTH: f64 = 1000.0;

/// A part of a campaign, in milliseconds since its begin. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) until: u64,
}

impl Span {
    /// All of it, with whatever is recorded behind its end.
    pub(super) fn of(campaign: &Campaign) -> Self {
        let steps = (campaign.throughput.len() as u64).saturating_mul(campaign.step);
        let faults =
            campaign.faults.iter().map(|fault| fault.until.unwrap_or(fault.from).max(fault.from));
        let led = campaign.leaderships.iter().map(|led| led.until);
        let out = campaign.outages.iter().map(|outage| outage.until);
        let recorded = faults.chain(led).chain(out).max().unwrap_or(0);
        Self { from: 0, until: campaign.ended.max(recorded).max(steps.min(campaign.ended)).max(1) }
    }

    /// Whether something that lasted from `from` until `until` shows in it.
    pub(super) const fn meets(self, from: u64, until: u64) -> bool {
        from <= self.until && (until >= self.from || from >= self.from)
    }

    pub(super) const fn contains(self, at: u64) -> bool {
        self.from <= at && at <= self.until
    }
}

/// Places moments of a span on the picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) span: Span,
}

impl Scale {
    /// Where it is; what lies outside is put on the edge.
    pub(super) fn x(self, at: u64) -> f64 {
        let Span { from, until } = self.span;
        let within = at.clamp(from, until) - from;
        LEFT + WIDTH * (within as f64 / (until - from).max(1) as f64)
    }

    /// Round moments to put lines at: between 5 and 13 of them, fewer if the span is very short or long.
    pub(super) fn ticks(self) -> Vec<u64> {
        const SECOND: u64 = 1000;
        const MINUTE: u64 = 60 * SECOND;
        const STEPS: [u64; 14] = [
            100,
            500,
            SECOND,
            2 * SECOND,
            5 * SECOND,
            10 * SECOND,
            15 * SECOND,
            30 * SECOND,
            MINUTE,
            2 * MINUTE,
            5 * MINUTE,
            10 * MINUTE,
            30 * MINUTE,
            60 * MINUTE,
        ];
        let Span { from, until } = self.span;
        let length = until - from;
        let step = STEPS
            .into_iter()
            .find(|step| length / step <= 12)
            .unwrap_or_else(|| (length / 12).div_ceil(60 * MINUTE).saturating_mul(60 * MINUTE));
        (from.div_ceil(step)..=until / step).map(|tick| tick * step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_at_round_moments() {
        let ticks = |from, until| Scale { span: Span { from, until } }.ticks();
        assert_eq!(ticks(0, 120_000), (0..=12).map(|i| i * 10_000).collect::<Vec<_>>());
        assert_eq!(ticks(300_000, 600_000).first(), Some(&300_000));
        assert_eq!(ticks(0, 3_600_000).get(1), Some(&300_000));
        assert_eq!(ticks(0, 1), [0]);
        assert!(ticks(0, u64::MAX).len() <= 13);
    }

    #[test]
    fn what_lies_outside_is_on_the_edge() {
        let scale = Scale { span: Span { from: 100, until: 200 } };
        assert_eq!(scale.x(0), LEFT);
        assert_eq!(scale.x(150), LEFT + WIDTH / 2.0);
        assert_eq!(scale.x(u64::MAX), LEFT + WIDTH);
    }
}
