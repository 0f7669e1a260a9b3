//! Values of arguments that need more than clap's own parsers.

use std::time::Duration;

/// A span of time as people write it: `500ms`, `5s`, `1m`, or a bare number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 =
        number.parse().map_err(|_| format!("{text:?} doesn't begin with a number"))?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" | "" => number,
        "m" => number * 60.0,
        _ => return Err(format!("{unit:?} is not a unit: use us, ms, s or m")),
    };
    if !(1e-6..=86_400.0).contains(&seconds) {
        return Err(format!("{text:?} is outside 1us to 1440m"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each unit is read, nonsense is refused.
    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        for nonsense in ["", "s", "5h", "0s", "1.2.3s", "-1s", "1e9m"] {
            assert!(duration(nonsense).is_err(), "{nonsense}");
        }
    }
}
