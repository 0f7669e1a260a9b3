//! What the control lane answers over HTTP.

use crate::config::LogLevel;
use crate::control::deadlines::Deadlines;
use crate::control::{LogControl, NodeNumbers, ShardFeed, metrics, report, snapshots};
use glommio::timer::Timer;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long an answer waits for new numbers from the shards before it uses the last ones.
const FRESH_WITHIN: Duration = Duration::from_millis(100);
/// A shard whose loop hasn't turned for longer is not alive.
pub(crate) const ALIVE_WITHIN: Duration = Duration::from_secs(2);
/// The longest name of a level, bytes.
const LEVEL_BYTES_MAX: usize = 64;

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const INDEX: &str = "\
ringraft
/livez      is every shard's loop turning?
/readyz     can every group be served?
/metrics    for Prometheus
/status     every shard and group, as JSON
/snapshots  every snapshot, as JSON; POST 1,2 takes one of these groups, POST of nothing one of all
/log-level  GET, or PUT error, warn, info, debug or trace
";

/// What all answers share.
pub(crate) struct Lane<F> {
    pub(crate) feed: F,
    pub(crate) log: LogControl,
    pub(crate) deadlines: Deadlines,
    /// How long a client may take for anything.
    pub(crate) patience: Duration,
    /// Where the files of the node's logs are.
    pub(crate) log_dir: PathBuf,
}

pub(crate) type Answer = Response<Full<Bytes>>;

/// Answers one request.
pub(crate) async fn answer<F: ShardFeed>(lane: &Lane<F>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match path.as_str() {
        "/log-level" if request.method() == Method::PUT => set_log_level(lane, request).await,
        "/snapshots" if request.method() == Method::POST => snapshots::take(lane, request).await,
        _ if !is_read => refuse_method(&path),
        "" => text(StatusCode::OK, TEXT, INDEX.to_owned()),
        "/livez" => checks(&report::alive(&fresh(lane, ALIVE_WITHIN).await)),
        "/readyz" => checks(&report::ready(&fresh(lane, ALIVE_WITHIN).await)),
        "/metrics" => {
            let numbers = fresh(lane, FRESH_WITHIN).await;
            match metrics::encode(numbers, lane.log.lines_dropped()) {
                Ok(body) => text(StatusCode::OK, OPEN_METRICS, body),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
            }
        }
        "/status" => {
            let body = report::status(&fresh(lane, FRESH_WITHIN).await).to_string();
            text(StatusCode::OK, JSON, body)
        }
        "/snapshots" => snapshots::look(lane).await,
        "/log-level" => text(StatusCode::OK, TEXT, format!("{}\n", lane.log.level())),
        _ => text(StatusCode::NOT_FOUND, TEXT, INDEX.to_owned()),
    }
}

/// Asks the shards and waits a little for their answers; then takes what there is.
async fn fresh<F: ShardFeed>(lane: &Lane<F>, within: Duration) -> NodeNumbers {
    let answers = |numbers: &NodeNumbers| -> Vec<u64> {
        numbers.shards.iter().map(|shard| shard.answers).collect()
    };
    let before = answers(&lane.feed.latest());
    let deadline = Instant::now() + within;
    let mut pause = Duration::from_micros(100);
    lane.feed.request();
    loop {
        let now = lane.feed.latest();
        let all_new = answers(&now).iter().zip(&before).all(|(now, before)| now > before);
        if all_new || Instant::now() >= deadline {
            return now;
        }
        Timer::new(pause).await;
        // Parking costs the hot lanes: not more often than needed.
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

fn checks(checks: &[report::Check]) -> Answer {
    let passed = checks.iter().all(|check| check.failure.is_none());
    let mut body = String::new();
    for check in checks {
        match &check.failure {
            None => body.push_str(&format!("[+]{} ok\n", check.name)),
            Some(failure) => body.push_str(&format!("[-]{} failed: {failure}\n", check.name)),
        }
    }
    body.push_str(if passed { "ok\n" } else { "not ok\n" });
    let status = if passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    text(status, TEXT, body)
}

async fn set_log_level<F: ShardFeed>(lane: &Lane<F>, request: Request<Incoming>) -> Answer {
    let name = match body_text(lane, request, "a level", LEVEL_BYTES_MAX).await {
        Ok(name) => name,
        Err(refusal) => return refusal,
    };
    let Some(level) = LogLevel::from_name(name.trim()) else {
        let names: Vec<&str> = LogLevel::ALL.iter().map(|level| level.name()).collect();
        let message = format!("{:?} is not a level: use {}\n", name.trim(), names.join(", "));
        return text(StatusCode::BAD_REQUEST, TEXT, message);
    };
    lane.log.set_level(level);
    tracing::info!(%level, "log level changed");
    text(StatusCode::OK, TEXT, format!("{level}\n"))
}

/// The body of a request, or why it is refused.
pub(crate) async fn body_text<F>(
    lane: &Lane<F>,
    request: Request<Incoming>,
    what: &str,
    bytes_max: usize,
) -> Result<String, Answer> {
    let body = Limited::new(request.into_body(), bytes_max).collect();
    let refusal = match lane.deadlines.within(lane.patience, body).await {
        Some(Ok(body)) => return Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned()),
        Some(Err(_)) => {
            let message = format!("the body must be {what} of at most {bytes_max} bytes\n");
            text(StatusCode::PAYLOAD_TOO_LARGE, TEXT, message)
        }
        None => text(StatusCode::REQUEST_TIMEOUT, TEXT, "the body took too long\n".into()),
    };
    Err(refusal)
}

fn refuse_method(path: &str) -> Answer {
    let allowed = match path {
        "/log-level" => "GET, HEAD, PUT",
        "/snapshots" => "GET, HEAD, POST",
        _ => "GET, HEAD",
    };
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, TEXT, format!("use {allowed}\n"));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

pub(crate) fn text(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
