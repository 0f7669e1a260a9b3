//! Both engines that need nothing but this machine run, briefly, and give a sane result.

use std::path::PathBuf;

use ringraft_benches::{
    BenchError, FloorOptions, FsyncOptions, Report, Space, SyncMethod, floor, fsync,
};

fn assert_sane(report: &Report) {
    assert!(report.ops_per_s > 0, "{report:?}");
    let latency = report.latency_us;
    assert!(latency.p50 > 0.0, "{report:?}");
    assert!(latency.p50 <= latency.p99 && latency.p99 <= latency.max, "{report:?}");
    let json: serde_json::Value = serde_json::from_str(&report.json_line()).expect("valid JSON");
    for field in ["ops_per_s", "latency_us", "errors", "durable", "asked"] {
        assert!(json.get(field).is_some(), "{field} is missing in {json}");
    }
}

/// The floor without its disk: two round trips, with one operation in flight and with many.
#[test]
fn floor_without_sync() {
    // A machine of one core measures badly, but it must still run.
    let other_core = std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1).min(1);
    for outstanding in [1, 300] {
        let report = floor(&FloorOptions {
            outstanding,
            seconds: 0.2,
            warm_up_seconds: 0.05,
            sync: false,
            other_core,
            ..FloorOptions::default()
        })
        .expect("the floor runs");
        assert_sane(&report);
        assert_eq!(report.durable, Some(false));
        assert_eq!(report.asked["outstanding"], outstanding);
    }
}

/// The bare echo: one round trip, nothing durable.
#[test]
fn an_echo_has_no_disk() {
    let other_core = std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1).min(1);
    for outstanding in [1, 300] {
        let report = floor(&FloorOptions {
            outstanding,
            seconds: 0.2,
            warm_up_seconds: 0.05,
            echo: true,
            other_core,
            ..FloorOptions::default()
        })
        .expect("the echo runs");
        assert_sane(&report);
        assert_eq!((report.durable, report.asked["file_system"].is_null()), (Some(false), true));
    }
}

/// Every way to sync gives a figure, and values larger than a batch pass.
#[test]
fn floor_with_sync() {
    let other_core = std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1).min(1);
    for method in [SyncMethod::Linked, SyncMethod::Dsync, SyncMethod::Blocking] {
        let result = floor(&FloorOptions {
            outstanding: 3,
            value_bytes: 1 << 20,
            seconds: 0.2,
            warm_up_seconds: 0.0,
            dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
            method,
            other_core,
            ..FloorOptions::default()
        });
        match result {
            Ok(report) => {
                assert_sane(&report);
                assert_eq!(report.durable, Some(true));
            }
            Err(BenchError::FileSystem { .. }) => {} // Built in memory: refused, as it should be.
            Err(error) => panic!("{error}"),
        }
    }
}

/// One case of each method and space.
#[test]
fn fsync_cases() {
    let result = fsync(&FsyncOptions {
        dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
        methods: vec![SyncMethod::Linked, SyncMethod::Dsync, SyncMethod::Blocking],
        spaces: vec![Space::Zeroed, Space::Fresh],
        sizes: vec![4096],
        depths: vec![2],
        seconds: 0.05,
    });
    match result {
        Ok(report) => {
            assert_eq!(report.rows.len(), 6);
            report.rows.iter().for_each(|row| assert_sane(&row.report));
            assert!(report.table().contains("DURABLE"), "{}", report.table());
            assert!(report.json_line().starts_with("{\"file_system\":\""));
        }
        Err(BenchError::FileSystem { .. }) => {} // Built in memory: refused, as it should be.
        Err(error) => panic!("{error}"),
    }
}
