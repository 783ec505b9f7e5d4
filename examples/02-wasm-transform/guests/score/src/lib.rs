//! Scores departures by how much their delay weighs: an hour is worse on the way to Boston than to Honolulu.

use logmill_guest::{Message, Out, Port, Transform};
use serde::Deserialize;

#[derive(Deserialize)]
struct Config {
    /// The score, of 100, from which a delay is severe.
    severe_from: f64,
}

#[derive(Deserialize)]
struct Flight<'a> {
    time_hour: &'a str,
    carrier: &'a str,
    flight: i32,
    tailnum: Option<&'a str>,
    origin: &'a str,
    dest: &'a str,
    dep_delay: Option<f64>,
    distance: i32,
}

logmill_guest::record! {
    struct Scored<'a> {
        scheduled: &'a str as "timestamp",
        carrier: &'a str,
        flight: i32,
        tailnum: Option<&'a str>,
        origin: &'a str,
        dest: &'a str,
        distance: i32,
        delay_minutes: f64,
        score: f64,
        severe: bool,
    }

    struct Reject<'a> {
        scheduled: &'a str as "timestamp",
        carrier: &'a str,
        flight: i32,
        reason: &'a str,
    }
}

struct Score(Config);

impl Transform for Score {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        if !(0.0..=100.0).contains(&config.severe_from) {
            return Err(format!("`severe_from` is {}, not between 0 and 100", config.severe_from));
        }
        Ok(Score(config))
    }

    fn outputs(&self) -> Vec<Port> {
        vec![Port::of::<Scored<'_>>("scored"), Port::of::<Reject<'_>>("rejects")]
    }

    fn transform(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result<(), String> {
        let Flight { time_hour: scheduled, carrier, flight, tailnum, origin, dest, dep_delay, distance } =
            message.json()?;
        let Some(delay_minutes) = dep_delay else {
            return out.emit_to("rejects")?.json(&Reject { scheduled, carrier, flight, reason: "it never left" });
        };
        let score = score(delay_minutes, distance);
        let severe = score >= self.0.severe_from;
        let scored =
            Scored { scheduled, carrier, flight, tailnum, origin, dest, distance, delay_minutes, score, severe };
        out.json(&scored)
    }
}

/// From 0, on time, towards 100; 50 if the delay is two thirds of what the flight takes, more or less.
fn score(delay_minutes: f64, distance_miles: i32) -> f64 {
    let flight_minutes = 30.0 + f64::from(distance_miles) / 8.0;
    let late = delay_minutes.max(0.0);
    (1000.0 * late / (late + flight_minutes * 2.0 / 3.0)).round() / 10.0
}

logmill_guest::transform!(Score);

#[cfg(test)]
mod tests {
    use logmill_guest::testing::{Record, Transforming};

    use super::*;

    #[test]
    fn a_delay_weighs_more_on_a_short_flight() {
        assert_eq!(score(-3.0, 187), 0.0);
        assert!(score(60.0, 187) > score(60.0, 4983));
    }

    #[test]
    fn what_never_left_is_a_reject() {
        let transforming = Transforming::<Score>::new(r#"{ "severe_from": 50 }"#).unwrap();
        let flight = r#"{"time_hour":"2013-01-01T10:00:00Z","carrier":"AA","flight":791,"tailnum":null,"origin":"LGA",
                         "dest":"DFW","dep_delay":null,"distance":1389}"#;
        let entries = transforming.transform(&[Record::of(flight)]).unwrap();
        let (output, record) = entries[0].what.clone().unwrap();
        assert_eq!(output, "rejects");
        assert!(String::from_utf8(record.value.unwrap()).unwrap().contains("it never left"));
    }
}
