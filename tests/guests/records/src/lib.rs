//! A transform of ten lines: flights as structs, late ones out. What serde costs in a guest.

use serde::Deserialize;

#[derive(Deserialize)]
struct Flight<'a> {
    carrier: &'a str,
    flight: i32,
    tailnum: Option<&'a str>,
    dep_delay: Option<f64>,
    distance: i64,
}

logmill_guest::record! {
    struct Rated {
        carrier: String,
        flight: i32,
        tailnum: Option<String>,
        minutes_per_mile: Option<f64>,
    }
}

logmill_guest::transform!(|flight: Flight<'_>| -> Result<Rated, String> {
    if flight.distance <= 0 {
        return Err(format!("flight {} covers {} miles", flight.flight, flight.distance));
    }
    Ok(Rated {
        carrier: flight.carrier.to_owned(),
        flight: flight.flight,
        tailnum: flight.tailnum.map(str::to_owned),
        minutes_per_mile: flight.dep_delay.map(|delay| delay / flight.distance as f64),
    })
});
