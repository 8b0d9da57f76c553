//! What becomes of packets from one end to another. Pure: time and chance are arguments.

use rand::RngExt;
use rand::rngs::StdRng;

/// What it is like on the way from one end to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Nothing arrives.
    pub cut: bool,
    /// How many of a hundred packets are lost.
    pub lost_percent: u8,
    /// How late packets arrive, at least.
    pub late_ms_min: u32,
    /// How late packets arrive, at most.
    pub late_ms_max: u32,
    /// How many of a hundred packets are held back while later ones pass, and how many arrive twice.
    pub shuffled_percent: u8,
    /// Bytes that pass in a second; none: as many as come.
    pub bytes_per_s: Option<u32>,
}

/// For how long a packet is held back so that others overtake it, in microseconds.
const HELD_BACK_US: std::ops::Range<u64> = 2_000..30_000;

/// For how long packets may wait for a slow link before they are dropped, in microseconds: some buffers'
/// worth, as in a switch.
const QUEUE_US_MAX: u64 = 400_000;

/// When a packet arrives, and when its copy does; in microseconds. `None`: it does not.
pub type Arrivals = [Option<u64>; 2];

/// What is remembered of the packets before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// When the last packet that keeps its place arrives.
    last_us: u64,
    /// When a slow link has sent what waits.
    free_us: u64,
}

impl Link {
    /// What becomes of a packet of so many bytes at a moment.
    pub fn send(
        &mut self,
        weather: &Weather,
        now_us: u64,
        bytes: usize,
        rng: &mut StdRng,
    ) -> Arrivals {
        if weather.cut || happens(weather.lost_percent, rng) {
            return [None, None];
        }
        let Some(sent_us) = self.transmit(weather, now_us, bytes) else { return [None, None] };
        let (late_min, late_max) =
            (u64::from(weather.late_ms_min) * 1000, u64::from(weather.late_ms_max) * 1000);
        let late_us = if late_max > 0 { rng.random_range(late_min..=late_max) } else { 0 };
        let arrives_us = sent_us + late_us;
        if happens(weather.shuffled_percent, rng) {
            // It loses its place: what is sent next may arrive before it.
            return [Some(arrives_us + rng.random_range(HELD_BACK_US)), None];
        }
        self.last_us = self.last_us.max(arrives_us);
        let copy = happens(weather.shuffled_percent, rng)
            .then(|| self.last_us + rng.random_range(HELD_BACK_US));
        [Some(self.last_us), copy]
    }

    /// When the last bit has left; `None` if the queue is full.
    fn transmit(&mut self, weather: &Weather, now_us: u64, bytes: usize) -> Option<u64> {
        let Some(rate) = weather.bytes_per_s else { return Some(now_us) };
        let begins_us = self.free_us.max(now_us);
        if begins_us - now_us > QUEUE_US_MAX {
            return None;
        }
        self.free_us = begins_us + bytes as u64 * 1_000_000 / u64::from(rate.max(1));
        Some(self.free_us)
    }
}

fn happens(percent: u8, rng: &mut StdRng) -> bool {
    percent > 0 && rng.random_range(0..100) < percent
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn sent(weather: Weather, packets_count: u64) -> Vec<Arrivals> {
        let (mut link, mut rng) = (Link::default(), StdRng::seed_from_u64(7));
        (0..packets_count).map(|i| link.send(&weather, i * 100, 1000, &mut rng)).collect()
    }

    fn firsts(arrivals: &[Arrivals]) -> Vec<u64> {
        arrivals.iter().filter_map(|arrival| arrival[0]).collect()
    }

    #[test]
    fn in_fair_weather_packets_arrive_at_once_and_once() {
        let arrivals = sent(Weather::default(), 100);
        assert!((0..).zip(&arrivals).all(|(i, arrival)| *arrival == [Some(i * 100), None]));
    }

    #[test]
    fn nothing_passes_a_cut() {
        let arrivals = sent(Weather { cut: true, ..Weather::default() }, 100);
        assert!(arrivals.iter().all(|arrival| *arrival == [None, None]));
    }

    #[test]
    fn about_the_share_asked_for_is_lost() {
        let arrivals = sent(Weather { lost_percent: 30, ..Weather::default() }, 1000);
        let lost = arrivals.iter().filter(|arrival| arrival[0].is_none()).count();
        assert!((250..350).contains(&lost), "{lost}");
    }

    #[test]
    fn late_packets_keep_their_order() {
        let late = Weather { late_ms_min: 10, late_ms_max: 50, ..Weather::default() };
        let arrivals = firsts(&sent(late, 1000));
        assert_eq!(arrivals.len(), 1000);
        assert!(arrivals.is_sorted());
        assert!((0..).zip(&arrivals).all(|(i, &at)| at >= i * 100 + 10_000));
    }

    #[test]
    fn shuffled_packets_do_not_and_some_come_twice() {
        let arrivals = sent(Weather { shuffled_percent: 20, ..Weather::default() }, 1000);
        assert!(!firsts(&arrivals).is_sorted());
        assert!(arrivals.iter().any(|arrival| arrival[1].is_some()));
    }

    #[test]
    fn a_slow_link_sends_at_its_rate_and_drops_what_does_not_fit_its_queue() {
        // 10 kB come in each ms.
        let arrivals = sent(Weather { bytes_per_s: Some(1_000_000), ..Weather::default() }, 10_000);
        let last = *firsts(&arrivals).last().unwrap();
        let passed = firsts(&arrivals).len() as u64;
        assert_eq!(last, passed * 1000, "1000 bytes take 1 ms");
        assert!(passed < 2000, "{passed}");
    }
}
