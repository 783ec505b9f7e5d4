//! Functions for SQL: ordinary functions of a row's values, which Logmill calls with whole columns.

logmill_guest::functions! {
    /// A text with `*` for every digit.
    fn mask(text: &str) -> String {
        text.chars().map(|c| if c.is_ascii_digit() { '*' } else { c }).collect()
    }

    /// How many words a text has. A null has none, which is why the argument is an `Option`.
    fn words(text: Option<&str>) -> i32 {
        text.map_or(0, |text| text.split_whitespace().count() as i32)
    }

    /// The room of a text such as `room 101`. An error sets the row aside.
    fn room(text: &str) -> Result<Option<i64>, String> {
        let Some((_, rest)) = text.split_once("room ") else { return Ok(None) };
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().map(Some).map_err(|_| format!("no room has the number `{rest}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_have_numbers() {
        assert_eq!(room("room 101, second floor"), Ok(Some(101)));
        assert_eq!(room("noon"), Ok(None));
        assert!(room("room service").is_err());
    }
}
