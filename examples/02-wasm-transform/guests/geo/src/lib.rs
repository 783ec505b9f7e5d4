//! Places on Earth, for SQL: `geohash(lat, lon, precision)` and `haversine_km(lat_a, lon_a, lat_b, lon_b)`.

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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_the_geohashes_that_are_known() {
        assert_eq!(geohash(57.64911, 10.40744, 11).as_deref(), Some("u4pruydqqvj"));
        assert_eq!(geohash(40.639751, -73.778925, 5).as_deref(), Some("dr5x1"));
        assert_eq!(geohash(91.0, 0.0, 5), None);
        assert_eq!(geohash(0.0, 0.0, 13), None);
    }

    #[test]
    fn a_quarter_of_a_great_circle() {
        assert!((haversine_km(0.0, 0.0, 0.0, 90.0) - 10_007.557).abs() < 0.001);
        assert_eq!(haversine_km(40.0, -73.0, 40.0, -73.0), 0.0);
    }
}
