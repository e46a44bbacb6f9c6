//! Executors that drop a task half-way.

use std::time::Duration;

use crate::case::{Case, expect, holdings, holdings_alone};
use crate::child::path;
use pollflip_kit::group::wait_until;

cases![
    a_runtime_that_shuts_down_half_way_through_a_restart_leaves_nothing,
    a_cancelled_smol_task_leaves_nothing,
    a_task_that_lost_a_race_half_way_through_a_restart_can_be_polled_again,
];

fn a_runtime_that_shuts_down_half_way_through_a_restart_leaves_nothing(case: &Case) {
    drop(case.task());
    let before = holdings_alone();
    for _ in 0..3 {
        let mut task = case.task();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
        case.plan("hang");
        task.restarter().request().expect("a restart");
        let running = runtime.spawn(task);
        wait_until("the successor", || holdings().children == 1);
        assert!(!running.is_finished());
        drop(runtime);
        expect(before);
        assert!(!path("restart.sock").exists());
    }
}

fn a_cancelled_smol_task_leaves_nothing(case: &Case) {
    let executor = smol::Executor::new();
    drop(case.task());
    let before = holdings_alone();
    let mut task = case.task();
    case.plan("hang");
    task.restarter().request().expect("a restart");
    let running = executor.spawn(task);
    while holdings().children == 0 {
        executor.try_tick();
        std::thread::sleep(Duration::from_millis(1));
    }
    let cancelled = smol::future::block_on(executor.run(running.cancel()));
    assert!(cancelled.is_none());
    expect(before);
}

fn a_task_that_lost_a_race_half_way_through_a_restart_can_be_polled_again(case: &Case) {
    let mut task = case.task();
    task.restarter().request().expect("a restart");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let successor = runtime.block_on(async {
        loop {
            // Dropped again and again: `&mut task` is the future here.
            if let Ok(result) = tokio::time::timeout(Duration::from_micros(200), &mut task).await {
                return result;
            }
        }
    });
    assert!(successor.expect("a successor").pid() > 0);
}
