//! The room as a whole, on a plan that waits for permission: who shares a batch, who is refused, who is never run.

mod house;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use self::house::{FAILS, House, MS, PANICS, UNFIT, output, settle};
use super::*;
use crate::engine::Merging;
use crate::infer::{BatchReason, Batched};
use crate::repository::TimeoutAction;

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_told_before_the_request_is_there() {
    let house = House::new(|settings| settings.queue.requests_max = 1);
    let first = house.occupy().await;
    assert!(house.batcher.check_room(&house.variant).is_ok());
    let second = house.ask(&[1]);
    while house.queued() == 0 {
        tokio::task::yield_now().await;
    }
    let full = house.batcher.check_room(&house.variant).unwrap_err();
    assert!(matches!(full, BatchError::QueueFull { what: "requests", limit: 1 }), "{full}");
    house.open();
    assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
    assert!(house.batcher.check_room(&house.variant).is_ok());
}

#[tokio::test]
async fn what_queues_together_runs_together_and_everyone_gets_their_own() {
    let house = House::new(|_| {});
    let first = house.occupy().await;
    let rest: Vec<_> = [&[1][..], &[2, 3], &[4], &[5]].into_iter().map(|rows| house.ask(rows)).collect();
    settle().await;
    house.open();
    assert_eq!(output(&first.await.unwrap().unwrap()), [0]);
    let mut answers = Vec::new();
    for answer in rest {
        answers.push(answer.await.unwrap().unwrap());
    }
    assert_eq!(house.runs(), [vec![0], vec![1, 2, 3, 4], vec![5]]);
    assert_eq!(answers.iter().map(output).collect::<Vec<_>>(), [vec![1], vec![2, 3], vec![4], vec![5]]);
    assert_eq!(answers[1].usage.batch, Some(Batched { rows: 4, reason: BatchReason::Full }));
    assert_eq!(answers[3].usage.batch, Some(Batched { rows: 1, reason: BatchReason::Idle }));
    drop(answers);
    assert_eq!((house.queued(), house.admission.in_flight()), (0, 0));
    let all = house.variant.statistics.snapshot();
    assert_eq!((all.inference_count, all.execution_count, all.success.count), (6, 3, 5));
}

#[tokio::test]
async fn different_shapes_never_share_a_batch() {
    let house = House::new(|_| {});
    let first = house.occupy().await;
    let asked: Vec<_> = [(1, 1), (2, 2), (3, 1), (4, 2)]
        .map(|(v, w)| house.ask_wide(&[v], w, Schedule::default()))
        .into_iter()
        .collect();
    settle().await;
    house.open();
    first.await.unwrap().unwrap();
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    let runs = house.runs();
    assert_eq!(runs[..2], [vec![0], vec![1, 3]]);
    // Whether the others share a batch depends on what the first took, which is no matter here.
    assert_eq!(runs[2..].concat(), [2, 2, 4, 4]);
}

#[tokio::test]
async fn models_that_mix_rows_run_one_request_at_a_time() {
    let merging =
        Merging::Alone { operator: "DynamicQuantizeLinear".into(), reason: "its scale spans the batch".into() };
    let house = House::of(merging, |_| {});
    let first = house.occupy().await;
    let asked: Vec<_> = [&[1][..], &[2, 3], &[4]].into_iter().map(|rows| house.ask(rows)).collect();
    settle().await;
    house.open();
    first.await.unwrap().unwrap();
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(house.runs(), [vec![0], vec![1], vec![2, 3], vec![4]]);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_keeps_what_it_has() {
    let house = House::new(|batching| {
        batching.queue.requests_max = 2;
        batching.queue.bytes_max = 3;
    });
    let first = house.occupy().await;
    let held = [house.ask(&[1]), house.ask(&[2])];
    settle().await;
    let refused = house.ask(&[3]).await.unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "the queue of the model is full: it holds at most 2 requests");
    assert_eq!(house.queued(), 2);
    house.open();
    first.await.unwrap().unwrap();
    for answer in held {
        answer.await.unwrap().unwrap();
    }
    let refused = house.ask_wide(&[1], 4, Schedule::default()).await.unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "the queue of the model is full: it holds at most 3 bytes");
}

#[tokio::test(start_paused = true)]
async fn an_expired_request_is_answered_by_the_clock_and_never_run() {
    let house = House::new(|_| {});
    let first = house.occupy().await;
    let asked_at = Instant::now();
    let deadline = Schedule { deadline: Some(asked_at + 50 * MS), ..Schedule::default() };
    let timeout = Schedule { queue_timeout: Some(30 * MS), ..Schedule::default() };
    let (by_deadline, by_timeout) = (house.ask_scheduled(1, deadline), house.ask_scheduled(2, timeout));
    assert!(matches!(by_timeout.await.unwrap(), Err(BatchError::Expired { .. })));
    assert_eq!(asked_at.elapsed().as_millis(), 30);
    assert!(matches!(by_deadline.await.unwrap(), Err(BatchError::Expired { .. })));
    assert_eq!(asked_at.elapsed().as_millis(), 50);
    settle().await;
    assert_eq!(house.queued(), 0);
    house.open();
    first.await.unwrap().unwrap();
    assert_eq!(house.runs(), [vec![0]]);
    assert_eq!(house.admission.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_late_request_can_be_delayed_instead() {
    let house = House::new(|batching| {
        batching.queue.timeout_action = TimeoutAction::Delay;
        batching.batch_size_max = 1;
    });
    let first = house.occupy().await;
    let timeout = Schedule { queue_timeout: Some(10 * MS), ..Schedule::default() };
    let late = house.ask_scheduled(1, timeout);
    let in_time = house.ask(&[2]);
    tokio::time::sleep(20 * MS).await;
    house.open();
    for answer in [first, late, in_time] {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(house.runs(), [vec![0], vec![2], vec![1]]);
}

#[tokio::test]
async fn an_abandoned_request_gives_its_place_back_and_never_runs() {
    let house = House::new(|batching| batching.queue.requests_max = 1);
    let first = house.occupy().await;
    let abandoned = house.ask(&[1]);
    settle().await;
    assert_eq!(house.queued(), 1);
    abandoned.abort();
    assert!(abandoned.await.unwrap_err().is_cancelled());
    settle().await;
    assert_eq!((house.queued(), house.admission.in_flight()), (0, 1));
    let next = house.ask(&[2]);
    settle().await;
    house.open();
    for answer in [first, next] {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(house.runs(), [vec![0], vec![2]]);
}

#[tokio::test]
async fn higher_priorities_go_first() {
    let house = House::new(|batching| {
        batching.priority_levels = 3;
        batching.default_priority = 2;
        batching.batch_size_max = 1;
    });
    let first = house.occupy().await;
    let priority = |priority| Schedule { priority, ..Schedule::default() };
    let asked: Vec<_> = [(1, 3), (2, 0), (3, 1), (4, 2), (5, 99)]
        .map(|(row, level)| house.ask_scheduled(row, priority(level)))
        .into_iter()
        .collect();
    settle().await;
    house.open();
    first.await.unwrap().unwrap();
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(house.runs(), [vec![0], vec![3], vec![2], vec![4], vec![5], vec![1]]);
}

#[tokio::test]
async fn a_panic_or_failure_ends_its_batch_only() {
    let house = House::new(|_| {});
    house.open();
    assert!(matches!(house.ask(&[PANICS]).await.unwrap(), Err(BatchError::Panicked)));
    assert!(matches!(house.ask(&[FAILS]).await.unwrap(), Err(BatchError::Engine(_))));
    assert_eq!(output(&house.ask(&[7]).await.unwrap().unwrap()), [7]);
    assert_eq!((house.queued(), house.admission.in_flight()), (0, 0));
}

#[tokio::test]
async fn contents_that_do_not_fit_cost_nobody_else_an_answer() {
    let house = House::new(|batching| batching.queue_delay_max = 100 * MS);
    house.open();
    let asked: Vec<_> = [1, 2, UNFIT, 4].into_iter().map(|row| house.ask(&[row])).collect();
    for (answer, row) in asked.into_iter().zip([Some(1), Some(2), None, Some(4)]) {
        let answer = answer.await.unwrap();
        assert_eq!(answer.as_ref().ok().map(output), row.map(|row| vec![row]));
    }
    assert_eq!(house.runs(), [vec![1, 2, UNFIT, 4], vec![1, 2], vec![UNFIT, 4], vec![UNFIT], vec![4]]);
    assert_eq!((house.queued(), house.admission.in_flight()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn waiting_fills_a_batch_or_ends_with_the_delay() {
    let house = House::new(|batching| batching.queue_delay_max = 20 * MS);
    house.open();
    let asked_at = Instant::now();
    let (a, b) = (house.ask(&[1]), house.ask(&[2]));
    assert_eq!(a.await.unwrap().unwrap().usage.batch.unwrap().reason, BatchReason::Delay);
    assert_eq!(b.await.unwrap().unwrap().usage.batch.unwrap().rows, 2);
    assert_eq!(asked_at.elapsed().as_millis(), 20);
    let four: Vec<_> = (3..7).map(|row| house.ask(&[row])).collect();
    for answer in four {
        assert_eq!(answer.await.unwrap().unwrap().usage.batch.unwrap().reason, BatchReason::Full);
    }
    assert_eq!(asked_at.elapsed().as_millis(), 20, "a full batch waits for nothing");
}

#[tokio::test]
async fn the_worker_ends_with_its_variant() {
    let house = House::new(|_| {});
    house.open();
    house.ask(&[1]).await.unwrap().unwrap();
    let plan = Arc::downgrade(&house.plan);
    let House { variant, plan: held, .. } = house;
    drop((variant, held));
    while plan.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_quick_runs_where_it_was_formed() {
    for (micros, rows, is_here) in [(20, 1, true), (20, 2, true), (20, 3, false), (60, 1, false)] {
        let house = House::timed(Merging::Rows, Some(Duration::from_micros(micros)), |_| {});
        house.open();
        let answer = house.ask(&vec![7; rows]).await.unwrap().unwrap();
        assert_eq!(answer.usage.batch.unwrap().rows, rows);
        let ran_here = *house.plan.threads.lock().unwrap() == [thread::current().id()];
        assert_eq!(ran_here, is_here, "{rows} rows of {micros} us");
        assert_eq!(house.batcher.pool.idle(), 1, "the core was given back");
    }
}

#[tokio::test]
async fn a_quick_batch_waits_for_a_core_and_a_panic_ends_it_only() {
    let house = House::timed(Merging::Rows, Some(Duration::from_micros(1)), |_| {});
    let core = house.batcher.pool.try_acquire().unwrap();
    let together = [house.ask(&[1]), house.ask(&[2])];
    settle().await;
    assert_eq!((house.runs().len(), house.queued()), (0, 2));
    house.open();
    drop(core);
    for answer in together {
        assert_eq!(answer.await.unwrap().unwrap().usage.batch.unwrap().rows, 2);
    }
    assert!(matches!(house.ask(&[PANICS]).await.unwrap(), Err(BatchError::Panicked)));
    assert_eq!(output(&house.ask(&[7]).await.unwrap().unwrap()), [7]);
}

#[tokio::test]
async fn nobody_overtakes_where_order_is_kept() {
    let house = House::new(|batching| batching.preserve_ordering = true);
    let first = house.occupy().await;
    let asked: Vec<_> = [(1, 1), (2, 2), (3, 1)]
        .map(|(value, width)| house.ask_wide(&[value], width, Schedule::default()))
        .into_iter()
        .collect();
    settle().await;
    house.open();
    first.await.unwrap().unwrap();
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(house.runs(), [vec![0], vec![1], vec![2, 2], vec![3]]);
}

#[tokio::test]
async fn a_large_answer_counts_as_leaving_from_when_it_is_there() {
    let house = House::new(|_| {});
    house.open();
    let leaving = || house.admission.outflow().bytes();
    let small = house.ask(&[1]).await.unwrap().unwrap();
    assert_eq!(leaving(), 0);
    let asked = house.ask_wide(&[1], 100_000, Schedule::default());
    while leaving() == 0 {
        tokio::task::yield_now().await;
    }
    // Though nobody has asked for it yet.
    let large = asked.await.unwrap().unwrap();
    assert_eq!(leaving(), output(&large).len() as u64);
    drop((small, large));
    assert_eq!(leaving(), 0);
}

#[tokio::test]
async fn who_leaves_during_the_run_is_no_success() {
    let house = House::new(|_| {});
    let first = house.occupy().await;
    while house.plan.threads.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    house.open();
    house.ask(&[1]).await.unwrap().unwrap();
    let all = house.variant.statistics.snapshot();
    assert_eq!((all.execution_count, all.success.count), (2, 1));
}
