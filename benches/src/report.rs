//! What a benchmark found, as one line of JSON for programs and as a table for people.
//!
//! ```text
//! {"ops_per_s":n,"latency_us":{"p50":n,"p90":n,"p99":n,"p999":n,"max":n},
//!  "errors":{"busy":n,"unknown":n,"other":n},"durable":true,"asked":{…}}
//! ```
//!
//! `durable` is `null` if nobody could be asked.

use std::time::Duration;

use serde::Serialize;

use crate::histogram::Latencies;

/// Percentiles of the latency in microseconds, over the operations that succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LatencyMicros {
    /// Half of the operations took at most this.
    pub p50: f64,
    /// Nine in ten.
    pub p90: f64,
    /// Ninety-nine in a hundred.
    pub p99: f64,
    /// 999 in a thousand.
    pub p999: f64,
    /// The slowest one.
    pub max: f64,
}

/// Operations that did not succeed, by kind. They count neither as throughput nor as latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Errors {
    /// Refused for lack of room: definitely not done.
    pub busy: u64,
    /// Perhaps done, perhaps not: no answer in time.
    pub unknown: u64,
    /// Definitely not done for any other reason.
    pub other: u64,
}

impl Errors {
    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        self.busy += other.busy;
        self.unknown += other.unknown;
        self.other += other.other;
    }
}

/// The result of one run. Its fields are the JSON, in this order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Operations that succeeded, per second of the measured time.
    pub ops_per_s: u64,
    /// Their latency.
    pub latency_us: LatencyMicros,
    /// Those that did not.
    pub errors: Errors,
    /// Whether an operation was acknowledged only after it was synced; `None` if nobody knows.
    pub durable: Option<bool>,
    /// The options of the run, every default spelled out.
    pub asked: serde_json::Value,
}

impl Report {
    /// Puts a result together from what was recorded in `elapsed`.
    pub fn new(
        latencies: &Latencies,
        elapsed: Duration,
        errors: Errors,
        durable: Option<bool>,
        asked: &impl Serialize,
    ) -> Self {
        let seconds = elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { latencies.count() as f64 / seconds } else { 0.0 };
        Self {
            ops_per_s: rate.round() as u64,
            latency_us: latencies.percentiles(),
            errors,
            durable,
            asked: serde_json::to_value(asked).expect("options have string keys only"),
        }
    }

    /// The result as one line of JSON, without the newline.
    pub fn json_line(&self) -> String {
        serde_json::to_string(self).expect("a report has string keys only")
    }

    /// The same for a row of a table.
    fn durability_short(&self) -> &'static str {
        match self.durable {
            Some(true) => "DURABLE",
            Some(false) => "NOT DURABLE",
            None => "UNKNOWN",
        }
    }

    /// The durability of the run in words nobody can overlook.
    pub fn durability(&self) -> &'static str {
        match self.durable {
            Some(true) => "DURABLE (acknowledged only after a sync)",
            Some(false) => "NOT DURABLE (no sync: an experiment, not a figure to publish)",
            None => "DURABILITY UNKNOWN (no node was asked whether it syncs)",
        }
    }
}

/// The table for people: one row per run, then the durability of each kind of run that is in it.
pub fn table<'a>(rows: impl IntoIterator<Item = (&'a str, &'a Report)>) -> String {
    let heads = [
        "", "ops/s", "p50 us", "p90 us", "p99 us", "p99.9 us", "max us", "busy", "unknown", "other",
    ];
    let mut lines = vec![heads.map(str::to_owned)];
    let mut durabilities = Vec::new();
    for (name, report) in rows {
        let (latency, errors) = (report.latency_us, report.errors);
        lines.push([
            format!("{name} [{}]", report.durability_short()),
            thousands(report.ops_per_s),
            format!("{:.1}", latency.p50),
            format!("{:.1}", latency.p90),
            format!("{:.1}", latency.p99),
            format!("{:.1}", latency.p999),
            format!("{:.1}", latency.max),
            thousands(errors.busy),
            thousands(errors.unknown),
            thousands(errors.other),
        ]);
        if !durabilities.contains(&report.durability()) {
            durabilities.push(report.durability());
        }
    }
    let mut text = aligned(&lines);
    for durability in durabilities {
        text.push_str(durability);
        text.push('\n');
    }
    text
}

/// Lines of cells as text: the first column to the left, the others to the right.
fn aligned<const COLUMNS: usize>(lines: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines {
        let mut row = format!("{:<width$}", line[0], width = widths[0]);
        for (cell, width) in line.iter().zip(widths).skip(1) {
            row.push_str(&format!("  {cell:>width$}"));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// A count with commas.
fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(durable: Option<bool>) -> Report {
        Report {
            ops_per_s: 1_234_567,
            latency_us: LatencyMicros { p50: 1.5, p90: 2.0, p99: 3.0, p999: 4.0, max: 50.0 },
            errors: Errors { busy: 1, unknown: 2, other: 3 },
            durable,
            asked: serde_json::json!({"outstanding": 1}),
        }
    }

    /// The JSON line is the one programs were promised, field by field.
    #[test]
    fn the_json_line_is_as_promised() {
        assert_eq!(
            report(Some(true)).json_line(),
            "{\"ops_per_s\":1234567,\
             \"latency_us\":{\"p50\":1.5,\"p90\":2.0,\"p99\":3.0,\"p999\":4.0,\"max\":50.0},\
             \"errors\":{\"busy\":1,\"unknown\":2,\"other\":3},\
             \"durable\":true,\"asked\":{\"outstanding\":1}}"
        );
    }

    /// The table names the durability in capitals, in every row and below.
    #[test]
    fn the_table_shouts_its_durability() {
        let (yes, no, unknown) = (report(Some(true)), report(Some(false)), report(None));
        let text = table([("a", &yes), ("b", &no), ("c", &unknown)]);
        assert!(text.contains("a [DURABLE]      1,234,567"), "{text}");
        assert!(text.contains("b [NOT DURABLE]  1,234,567"), "{text}");
        assert!(text.contains("c [UNKNOWN]      1,234,567"), "{text}");
        assert!(text.contains("\nDURABILITY UNKNOWN ("), "{text}");
        assert!(text.contains("\nDURABLE (") && text.contains("\nNOT DURABLE ("), "{text}");
    }

    /// Rates are operations over the measured time.
    #[test]
    fn rate_is_count_over_time() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_micros(5), 500);
        let asked = serde_json::json!({});
        let made = Report::new(
            &latencies,
            Duration::from_millis(250),
            Errors::default(),
            Some(true),
            &asked,
        );
        assert_eq!(made.ops_per_s, 2000);
    }
}
