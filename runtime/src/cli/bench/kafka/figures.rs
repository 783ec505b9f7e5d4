//! What a run of the benchmark measured: how much, how fast, and how the latencies are distributed.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Latencies above this count as this, in microseconds.
const MAX_LATENCY_MICROS: u64 = 600_000_000;

/// Latencies in microseconds, to three digits.
#[derive(Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, MAX_LATENCY_MICROS, 3)?))
    }

    pub(super) fn record(&mut self, micros: u64) {
        self.0.saturating_record(micros.clamp(1, MAX_LATENCY_MICROS));
    }

    pub(super) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        Ok(self.0.add(&other.0)?)
    }

    fn quantiles(&self) -> [(&'static str, u64); 5] {
        let at = |quantile| self.0.value_at_quantile(quantile);
        [("p50", at(0.5)), ("p90", at(0.9)), ("p99", at(0.99)), ("p999", at(0.999)), ("max", self.0.max())]
    }
}

/// What was measured.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) name: &'static str,
    pub(super) records: u64,
    /// Of the values.
    pub(super) bytes: u64,
    pub(super) time: Duration,
    pub(super) latencies: Option<Latencies>,
}

impl Figures {
    fn rates(&self) -> (f64, f64) {
        let seconds = self.time.as_secs_f64().max(1e-9);
        (self.records as f64 / seconds, self.bytes as f64 / seconds)
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let (records, bytes) = self.rates();
        let seconds = self.time.as_secs_f64();
        let mut text = format!(
            "{}: {} records in {seconds:.2} s: {records:.0} records/s, {:.1} MB/s\n",
            self.name,
            self.records,
            bytes / 1e6
        );
        if let Some(latencies) = &self.latencies {
            let line = latencies.quantiles().map(|(name, micros)| format!("{name} {:.2} ms", micros as f64 / 1e3));
            text.push_str(&format!("latency: {}\n", line.join(", ")));
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let (records, bytes) = self.rates();
        let latencies = self.latencies.as_ref().map(|latencies| {
            let quantiles = latencies.quantiles().map(|(name, micros)| (name.to_owned(), Value::from(micros)));
            Value::Object(quantiles.into_iter().collect())
        });
        json!({
            "benchmark": self.name,
            "records": self.records,
            "bytes": self.bytes,
            "seconds": self.time.as_secs_f64(),
            "records_per_second": records,
            "bytes_per_second": bytes,
            "latency_us": latencies,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn rates_and_quantiles_are_those_of_what_was_recorded() {
        let (mut one, mut other) = (Latencies::new().unwrap(), Latencies::new().unwrap());
        (1..=500).for_each(|micros| one.record(micros));
        (501..=1000).for_each(|micros| other.record(micros));
        one.add(&other).unwrap();
        let time = Duration::from_secs(2);
        let figures = Figures { name: "x", records: 1000, bytes: 4_000_000, time, latencies: Some(one) };
        let json = figures.json();
        assert_eq!(json["records_per_second"], 500.0);
        assert_eq!(json["bytes_per_second"], 2e6);
        assert_eq!(json["latency_us"]["p50"], 500);
        assert_eq!(json["latency_us"]["p99"], 990);
        assert_eq!(json["latency_us"]["max"], 1000);
        assert!(figures.text().contains("500 records/s, 2.0 MB/s"), "{}", figures.text());
    }

    #[test]
    fn a_latency_beyond_the_scale_is_its_end() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(0);
        latencies.record(u64::MAX);
        assert!(latencies.quantiles()[4].1 >= MAX_LATENCY_MICROS);
    }
}
