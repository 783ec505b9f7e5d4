//! Functions for SQL: a text that is built, arithmetic that can be compared with the same in the engine's own language, and
//! one that fails.

const DIGITS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
const EARTH_RADIUS_KM: f64 = 6_371.008_8;

logmill_guest::functions! {
    /// The geohash of a place, with so many characters (1 to 12); null if it is none.
    fn geohash(lat: f64, lon: f64, precision: i64) -> Option<String> {
        let places = usize::try_from(precision).ok().filter(|places| (1..=12).contains(places))?;
        if !(-90.0..=90.0).contains(&lat) || !(-180.0..=180.0).contains(&lon) {
            return None;
        }
        let (mut south, mut north, mut west, mut east) = (-90.0, 90.0, -180.0, 180.0);
        let mut hash = String::with_capacity(places);
        for place in 0..places {
            let mut digit = 0;
            for bit in 0..5 {
                // Bits of the longitude and the latitude take turns, throughout.
                let (value, low, high) = if (place * 5 + bit) % 2 == 0 {
                    (lon, &mut west, &mut east)
                } else {
                    (lat, &mut south, &mut north)
                };
                let middle = (*low + *high) / 2.0;
                digit = digit * 2 + usize::from(value >= middle);
                *(if value >= middle { low } else { high }) = middle;
            }
            hash.push(char::from(DIGITS[digit]));
        }
        Some(hash)
    }

    /// Kilometres along the great circle between two places, by the haversine formula.
    fn haversine_km(lat_a: f64, lon_a: f64, lat_b: f64, lon_b: f64) -> f64 {
        let (from, to) = (lat_a.to_radians(), lat_b.to_radians());
        let (half_north, half_east) = ((to - from) / 2.0, (lon_b - lon_a).to_radians() / 2.0);
        let chord = half_north.sin().powi(2) + from.cos() * to.cos() * half_east.sin().powi(2);
        2.0 * EARTH_RADIUS_KM * chord.sqrt().min(1.0).asin()
    }

    /// `a * b + c`: next to nothing to compute, so that what is measured is the call.
    fn multiply_add(a: f64, b: f64, c: f64) -> f64 {
        a * b + c
    }

    /// The words of a text in reverse order, null for an empty one.
    fn reverse_words(text: Option<&str>) -> Option<String> {
        let words: Vec<&str> = text?.split_whitespace().rev().collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// The number, unless it is negative.
    fn not_negative(number: i64) -> Result<i64, String> {
        if number < 0 { Err(format!("{number} is negative")) } else { Ok(number) }
    }
}
